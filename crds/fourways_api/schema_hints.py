"""Marks on fields that only the API server's schema needs: how lists merge."""

from __future__ import annotations

from typing import Any

from pydantic import Field

LIST_TYPE = "x-kubernetes-list-type"
LIST_KEYS = "x-kubernetes-list-map-keys"
INT_OR_STRING = "x-kubernetes-int-or-string"


def keyed_by(name: str) -> Any:  # pydantic's own Field says Any
    """Mark a list whose items are identified by the field ``name``: duplicates are refused."""
    return Field(json_schema_extra={LIST_TYPE: "map", LIST_KEYS: [name]})
