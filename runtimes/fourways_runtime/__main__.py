"""``python -m fourways_runtime MODE``: the command of every container.

Each mode is imported when it is asked for, so that none pays for another's libraries.
"""

from __future__ import annotations

import sys
from importlib import import_module

MODES = {"batch": "batch", "gateway": "gateway", "serve": "serving"}


def main() -> int:
    """Run the shell named on the command line; return its exit code."""
    if len(sys.argv) != 2 or sys.argv[1] not in MODES:
        print(f"usage: python -m fourways_runtime {'|'.join(MODES)}", file=sys.stderr)
        return 2
    return int(import_module(f"fourways_runtime.{MODES[sys.argv[1]]}").main())


if __name__ == "__main__":
    sys.exit(main())
