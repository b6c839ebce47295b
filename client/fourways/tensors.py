"""Rows, columns and data frames as the tensors of a request; predictions as a data frame."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from .prediction import Json, Key, Prediction

Rows: TypeAlias = Any
"""Rows as a list of mappings, as a mapping of columns, or as a data frame of pandas or polars."""


def columns_of(rows: Rows) -> dict[str, list[Any]]:
    """Return rows as columns. Raises TypeError if they are none of the accepted kinds."""
    if _library(rows) == "polars":
        return dict(rows.to_dict(as_series=False))
    if _library(rows) == "pandas":
        return {str(name): rows[name].tolist() for name in rows.columns}
    if isinstance(rows, Mapping):
        return {name: list(values) for name, values in rows.items()}
    if isinstance(rows, Sequence) and all(isinstance(row, Mapping) for row in rows):
        names = dict.fromkeys(name for row in rows for name in row)
        return {name: [row.get(name) for row in rows] for name in names}
    raise TypeError("rows are a list of mappings, a mapping of columns, or a data frame")


def frame_like(rows: Rows, found: Sequence[Prediction | None]) -> Any:
    """Return predictions as a data frame of the same library; other rows get the list itself."""
    library = _library(rows)
    if library is None:
        return list(found)
    names = dict.fromkeys(name for one in found if one is not None for name in one.outputs)
    columns = {name: [None if p is None else p.outputs[name] for p in found] for name in names}
    if library == "pandas":
        return type(rows)(columns, index=rows.index)
    return type(rows)(columns)


def tensors(columns: Mapping[str, Sequence[Any]], described: Json) -> list[Json]:
    """Return columns as tensors with the datatypes of a model's metadata.

    A column that the metadata does not list is sent with a datatype guessed from its values: it may
    be the entity key.
    """
    known = {one["name"]: one for one in described["inputs"]}
    made = []
    for name, values in columns.items():
        data = [_plain(value) for value in values]
        one = known.get(name) or {"datatype": _guessed(data), "shape": [-1]}
        shape = [len(data), *_sizes(one["shape"][1:], data[0] if data else None)]
        made.append({"name": name, "datatype": one["datatype"], "shape": shape, "data": data})
    return made


def _sizes(shape: Sequence[int], value: Any) -> list[int]:
    """Return a row's shape; a size that is -1 in the metadata is that of the first row."""
    sizes = []
    for size in shape:
        found = len(value) if isinstance(value, list) else 1
        sizes.append(found if size == -1 else size)
        value = value[0] if isinstance(value, list) and value else None
    return sizes


def key_name(described: Json) -> str:
    """Return the name of the entity key's input."""
    for one in described["inputs"]:
        if (one.get("parameters") or {}).get("entity_key"):
            return str(one["name"])
    return "entity_key"


def keys_in(columns: Mapping[str, Sequence[Any]], described: Json) -> list[Key] | None:
    """Return the entity keys among the columns; None if there are none."""
    keys = columns.get(key_name(described))
    return None if keys is None else [_plain(key) for key in keys]


def _plain(value: Any) -> Any:
    """Return a value for JSON: numpy's scalars and arrays as Python's, a missing one as None.

    Dates and times become ISO 8601, bytes base64.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if hasattr(value, "isoformat"):
        return None if value != value else value.isoformat()
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and math.isnan(value):
        return None
    return value


def _guessed(data: Sequence[Any]) -> str:
    if all(type(value) is int for value in data):
        return "INT64"
    return "FP64" if all(type(value) in (int, float) for value in data) else "BYTES"


def _library(rows: Any) -> str | None:
    """Return ``pandas`` or ``polars`` for a data frame, without importing either."""
    root = type(rows).__module__.partition(".")[0]
    return root if root in ("pandas", "polars") and hasattr(rows, "columns") else None
