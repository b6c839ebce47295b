"""Imports a format's library, or names the extra that installs it."""

from __future__ import annotations

import importlib
from typing import Any

from fourways_api.installing import install_command
from fourways_runtime.errors import ConfigError

from .library_errors import library_error


def load_module(name: str, extra: str) -> Any:
    """Import a module. Raises ConfigError if it is not installed (naming the extra), or broken."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigError(f"{name} is not installed: {install_command(extra)}") from None
    except OSError as error:
        # A system library that it needs, such as LightGBM's OpenMP, is missing.
        raise ConfigError(f"{name} cannot be imported: {library_error(error)}") from None
