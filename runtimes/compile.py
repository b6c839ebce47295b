"""Compiles with mypyc what every request passes through: ``compile.py FOLDER [PYTHON]``.

FOLDER holds ``fourways_runtime`` and ``fourways_http``. The compiled modules are put beside their
sources there, and the sources stay as they are. Python imports a compiled module before its source,
so the same code runs faster where it was compiled, and runs from source everywhere else. The image
is built with it; ``docs/decisions/2026-11-26-the-hot-path-is-compiled.md`` says what it gains.

Needs mypy, setuptools, a C compiler and the headers of Python. PYTHON, where given, is an
interpreter that has the packages the modules import; their types are read there.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

MODULES = (
    "fourways_http/heads",
    "fourways_http/intake",
    "fourways_http/message",
    "fourways_http/promise",
    "fourways_http/protocol",
    "fourways_http/router",
    "fourways_http/state",
    "fourways_runtime/metrics",
    "fourways_runtime/v2/batch_times",
    "fourways_runtime/v2/batcher",
    "fourways_runtime/v2/body",
    "fourways_runtime/v2/deadline",
    "fourways_runtime/v2/faults",
    "fourways_runtime/v2/lone",
    "fourways_runtime/v2/parts",
    "fourways_runtime/v2/placement",
    "fourways_runtime/v2/request_queue",
    "fourways_runtime/v2/response",
    "fourways_runtime/v2/templates",
)
"""Each passed through by every request, typed, and without numpy's types where it takes numbers."""

OPTIONS = ("--config-file=", "--ignore-missing-imports", "--follow-imports=silent")


def main() -> int:
    """Compile; 2 where the command line is no folder."""
    if len(sys.argv) not in (2, 3) or not Path(sys.argv[1], "fourways_runtime").is_dir():
        print(__doc__, file=sys.stderr)
        return 2
    os.chdir(sys.argv[1])
    types = [f"--python-executable={sys.argv[2]}"] if len(sys.argv) == 3 else []
    from mypyc.build import mypycify
    from setuptools import setup

    modules = mypycify([*OPTIONS, *types, *(f"{name}.py" for name in MODULES)], debug_level="0")
    setup(
        name="fourways-compiled",
        ext_modules=modules,
        script_args=["--quiet", "build_ext", "--inplace"],
        packages=[],
    )
    shutil.rmtree("build")
    return 0


if __name__ == "__main__":
    sys.exit(main())
