"""Libraries that a few tests need and that take seconds to import.

Each worker of pytest collects all files. What a file imports at its top costs every worker that
time, also where another worker runs the file's tests.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

# jsonschema checks IRIs with it where it can be imported, and its grammar takes seconds to build.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]


class LazyModule:
    """A module that is imported when one of its attributes is first asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        # pytest asks each name of a test module for marks of its own; those begin with "_".
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(import_module(self._name), name)
