"""The version of this program."""

from __future__ import annotations

import importlib.metadata


def own_version() -> str:
    """Return the version of this program."""
    try:
        return importlib.metadata.version("fourways")
    except importlib.metadata.PackageNotFoundError:
        return "not installed as a package"
