"""Folders named COLUMN=VALUE (as in Hive): the values in their names, and which folders to read.

Folders that a filter excludes are neither listed nor opened. Pure, except for listing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

from fourways_runtime.errors import SourceError

Filter = Mapping[str, frozenset[str]]
"""Accepted values, by column."""

NULL = "__HIVE_DEFAULT_PARTITION__"
"""The text in a folder's name for a missing value."""

_EXPANDED = 1024
"""Maximum number of patterns into which one glob expands."""


@dataclass(frozen=True, slots=True)
class TableFile:
    """A file, and the columns that have a single value in all of it."""

    path: str
    constants: Mapping[str, str | None] = field(default_factory=dict)
    info: Mapping[str, Any] | None = None
    """Its entry in the listing that found it: size, and tag or time."""


def constants(path: str) -> dict[str, str | None]:
    """Return the values in the names of the folders above a file."""
    return dict(
        pair for folder in PurePosixPath(path).parent.parts if (pair := _pair(folder)) is not None
    )


def _pair(folder: str) -> tuple[str, str | None] | None:
    column, equals, value = folder.partition("=")
    if not equals or not column:
        return None
    return unquote(column), None if value == NULL else unquote(value)


def _ruled_out(folder: str, filters: Filter) -> bool:
    pair = _pair(folder)
    return pair is not None and pair[0] in filters and (pair[1] or NULL) not in filters[pair[0]]


def kept(parts: tuple[TableFile, ...], filters: Filter, shown: str) -> tuple[TableFile, ...]:
    """Return the files that match a filter.

    Raises:
        SourceError: no file matches, or the table is not partitioned by that column.

    """
    for column, values in filters.items():
        for part in parts:
            if column not in part.constants:
                raise SourceError(
                    f"{shown}: {PurePosixPath(part.path).name} is in no folder {column}=VALUE, "
                    "which the filter needs"
                )
        parts = tuple(p for p in parts if (p.constants[column] or NULL) in values)
        if not parts:
            wanted = ", ".join(sorted(values)[:5])
            raise SourceError(f"{shown}: no partition has {column} = {wanted}")
    return parts


def expanded(pattern: str, filters: Filter) -> list[str]:
    """Insert a filter's values into a glob, so that only their folders are listed."""
    patterns = [""]
    for segment in pattern.split("/"):
        column = segment.removesuffix("=*")
        choices = [segment]
        if segment.endswith("=*") and unquote(column) in filters:
            # Other values may be encoded in the folder's name, or special in a glob: keep the star.
            values = sorted(filters[unquote(column)])
            if all(re.fullmatch(r"[A-Za-z0-9._-]+", value) for value in values):
                choices = [f"{column}={value}" for value in values]
        if len(patterns) * len(choices) > _EXPANDED:
            choices = [segment]
        patterns = [f"{before}/{choice}" for before in patterns for choice in choices]
    return [pattern[1:] for pattern in patterns]


def found_files(backend: Any, path: str, filters: Filter) -> dict[str, Mapping[str, Any]]:
    """List the files beneath a folder, sorted by name, with their entries in the listing."""
    found: dict[str, Mapping[str, Any]] = {}
    if not filters:
        found = dict(backend.find(path, detail=True))
    folders = [path] if filters else []
    while folders:
        folder = folders.pop()
        for entry in backend.ls(folder, detail=True):
            name = str(entry["name"]).rstrip("/")
            if entry["type"] != "directory":
                if name != folder.rstrip("/"):
                    found[name] = entry
            elif not _ruled_out(PurePosixPath(name).name, filters):
                folders.append(name)
    return dict(sorted(found.items()))
