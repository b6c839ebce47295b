"""``python -m fourways_runtime MODE``: the command of every container.

Each mode is imported only when it is requested, so that no mode loads another's libraries.
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
    "purge": "purge",
    "gateway": "gateway",
    "serve": "serving",
    "stream": "streaming",
    "quality": "quality",
    "edge-build": "edge",
    "edge-sign": "edge.sign",
}


def main() -> int:
    """Run the mode named on the command line; return its exit code."""
    if len(sys.argv) != 2 or sys.argv[1] not in MODES:
        print(f"usage: python -m fourways_runtime {'|'.join(MODES)}", file=sys.stderr)
        return 2
    # The first process of a container ignores signals without a handler: without this one, a
    # SIGTERM that arrives while libraries are loading would have no effect, and the process would
    # run until it is killed.
    signal.signal(signal.SIGTERM, _leave)
    # Pydantic would search the metadata of every package for plugins that nobody installed.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.disable()  # loading libraries creates many long-lived objects and no garbage
    try:
        mode = import_module(f"fourways_runtime.workloads.{MODES[sys.argv[1]]}")
    except ModuleNotFoundError as error:
        return _cannot_start(error)
    gc.enable()
    return int(mode.main())


def _cannot_start(error: ModuleNotFoundError) -> int:
    """Report a missing library in place of the mode, which could not be imported."""
    from fourways_api import Paths
    from fourways_api.runtime_config import CONFIG_VARIABLE

    from .logs import log_as_json
    from .process import failure
    from .termination_message import write_report

    log_as_json()
    report, code = failure(error, None, logging.getLogger("fourways"))
    # Read only this field: the document may be of any mode, and the mode's code is not available.
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
