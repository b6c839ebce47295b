"""Columns of JSON values: typed if all values clearly are, else each value as its own text.

Readers of JSON (JSON Lines, events) pass their columns through this module, so that the decoder
judges every unusual value in the same way and with the same messages. Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from . import exact_json
from .literals import EXACT, is_float
from .times import is_time

_ExtensionType: Any = pa.ExtensionType  # Its stub forbids subclasses.


class JsonCells(_ExtensionType):  # type: ignore[misc]
    """Cells that are JSON values, each as its own text; null is missing.

    A JSON reader returns them for a column whose values are not all clearly of the contract's type.
    They are decoded one by one, as JSON: a text is not accepted as a number.
    """

    def __init__(self) -> None:
        super().__init__(pa.binary(), "fourways.json")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: Any, serialized: bytes) -> JsonCells:
        return cls()


def is_json(found: Any) -> bool:
    """Return whether cells are JSON values, each as its text."""
    return isinstance(found, JsonCells)


def json_values(found: Any) -> list[Any]:
    """Return the values of JSON cells; None for null."""
    return [None if raw is None else exact_json.loads(raw) for raw in found.storage.to_pylist()]


def json_texts(found: Any) -> Any:
    """Return JSON cells as texts: a string's own text, anything else as its JSON source."""
    values = json_values(found)
    raw = found.storage.to_pylist()
    texts = [
        value if isinstance(value, str) or value is None else text.decode()
        for value, text in zip(values, raw, strict=True)
    ]
    return pa.array(texts, pa.string())


def json_column(kind: str, depth: int, values: Sequence[Any]) -> Any:
    """Return JSON values as an Arrow array of the contract's type ``kind``.

    ``depth`` is the number of dimensions of the field; None is null. If any value is not clearly of
    that type, the column is returned as :class:`JsonCells`, and the decoder judges it.
    """
    try:
        if _all_plain(kind, depth, values):
            wide: Any = json_type(kind)
            for _ in range(depth):
                wide = pa.list_(wide)
            return pa.array(values, wide)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        pass
    texts = [None if value is None else exact_json.dumps(value) for value in values]
    return _from_storage(JsonCells(), pa.array(texts, pa.binary()))


_JSON_TYPES: dict[str, Any] = {"bool": pa.bool_(), "uint64": pa.uint64()}
_TEXTUAL = frozenset({"string", "bytes"})
_PLAIN: dict[str, frozenset[type]] = {
    "bool": frozenset({bool, type(None)}),
    "string": frozenset({str, type(None)}),
    "float": frozenset({int, float, type(None)}),
    "whole": frozenset({int, type(None)}),
}
_from_storage: Any = pa.ExtensionArray.from_storage


def json_type(kind: str) -> Any:
    """Return the Arrow type of a contract type's values as JSON has them."""
    if kind in _TEXTUAL or is_time(kind):
        return pa.string()
    return _JSON_TYPES.get(kind) or (pa.float64() if is_float(kind) else pa.int64())


def _all_plain(kind: str, depth: int, values: Sequence[Any]) -> bool:
    textual = kind in _TEXTUAL or is_time(kind)
    group = "string" if textual else kind if kind in _PLAIN else "float"
    group = "whole" if group == "float" and not is_float(kind) else group
    scalars: list[Any] = list(values) if not depth else list(_scalars(values, depth))
    if not set(map(type, scalars)) <= _PLAIN[group]:
        return False
    if group != "float":
        return True
    exact = EXACT[kind]
    return not any(type(value) is int and abs(value) > exact for value in scalars)


def _scalars(values: Sequence[Any], depth: int) -> Iterator[Any]:
    """Yield the scalars of lists nested ``depth`` deep; a list if one is nested deeper."""
    for value in values:
        if value is None and depth:
            continue
        if depth and isinstance(value, list):
            yield from _scalars(value, depth - 1)
        else:
            yield [] if depth else value
