"""The shape of a value in JSON, where the contract leaves sizes open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def shape_of(declared: Sequence[int], value: Any) -> list[int]:
    """Return a value's shape; a declared size of -1 is that of the value."""
    sizes = []
    for size in declared:
        found = len(value) if isinstance(value, list) else 1
        sizes.append(found if size == -1 else size)
        value = value[0] if isinstance(value, list) and value else None
    return sizes
