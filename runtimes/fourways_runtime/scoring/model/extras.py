"""Imports a format's library, or names the extra that installs it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fourways_api.installing import install_command
from fourways_runtime.errors import ConfigError

from .library_errors import library_error

TREES_WITHOUT = ("sklearn", "pandas")
"""What the libraries of trees import if it is there, for their estimators and data frames, which
nothing here uses: it takes four times as long to import as they do themselves."""


def load_module(name: str, extra: str, *, without: tuple[str, ...] = ()) -> Any:
    """Import a module, as if the packages ``without`` were not installed, unless it is imported
    already.

    Raises:
        ConfigError: it is not installed (names the extra), or broken.

    """
    try:
        with _hidden(without if name not in sys.modules else ()):
            return importlib.import_module(name)
    except ImportError:
        raise ConfigError(f"{name} is not installed: {install_command(extra)}") from None
    except OSError as error:
        # A system library that it needs, such as LightGBM's OpenMP, is missing.
        raise ConfigError(f"{name} cannot be imported: {library_error(error)}") from None


@contextmanager
def _hidden(packages: tuple[str, ...]) -> Iterator[None]:
    """Have imports of packages fail that are not imported yet."""
    hidden = [package for package in packages if package not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: not importable
    try:
        yield
    finally:
        for package in hidden:
            del sys.modules[package]
