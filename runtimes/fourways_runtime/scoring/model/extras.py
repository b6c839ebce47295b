"""Importing a format's library, or saying which extra brings it."""

from __future__ import annotations

import importlib
from typing import Any

from fourways_runtime.errors import ConfigError


def load_module(name: str, extra: str) -> Any:
    """Import a module. Raises ConfigError naming the extra when it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigError(
            f"{name} is not in this image; install the extra fourways[{extra}]"
        ) from None
