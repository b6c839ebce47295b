"""``python -m fourways_runtime MODE``: the command of every container.

Each mode is imported when it is asked for, so that none pays for another's libraries.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import sys
from importlib import import_module
from typing import NoReturn

MODES = {
    "batch": "batch",
    "attend": "batch.wait_for_run",
    "rollback": "rollback",
    "gateway": "gateway",
    "serve": "serving",
    "stream": "streaming",
    "edge-build": "edge",
}


def main() -> int:
    """Run the shell named on the command line; return its exit code."""
    if len(sys.argv) != 2 or sys.argv[1] not in MODES:
        print(f"usage: python -m fourways_runtime {'|'.join(MODES)}", file=sys.stderr)
        return 2
    # The first process of a container ignores what it has no handler for: told to stop while it
    # still loads its libraries, it would work on until it is killed.
    signal.signal(signal.SIGTERM, _leave)
    # It would look through the metadata of every package for plugins nobody installed.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.disable()  # Libraries being loaded make much that is kept and nothing to collect.
    try:
        mode = import_module(f"fourways_runtime.workloads.{MODES[sys.argv[1]]}")
    except ModuleNotFoundError as error:
        return _cannot_start(error)
    gc.enable()
    return int(mode.main())


def _cannot_start(error: ModuleNotFoundError) -> int:
    """Report a library that is missing, in place of the mode, which could not be imported."""
    from fourways_api import Paths
    from fourways_api.runtime_config import CONFIG_VARIABLE

    from .logs import log_as_json
    from .process import failure
    from .termination_message import write_report

    log_as_json()
    report, code = failure(error, None, logging.getLogger("fourways"))
    # Only this field is read: the document may be of any mode, and the mode is not here.
    try:
        paths = json.loads(os.environ.get(CONFIG_VARIABLE, "{}")).get("paths", {})
        file = str(paths["terminationLog"])
    except (ValueError, AttributeError, KeyError):
        file = Paths().termination_log
    write_report(report, file)
    return code


def _leave(signum: int, frame: object) -> NoReturn:
    os._exit(128 + signum)


if __name__ == "__main__":
    sys.exit(main())
