"""What tells new rows from old where a file has no types: numbers and times compare as such.

Owns what the values of a column of text are, and which rows are older than a value. What they are
is found out once, when the table is cut, and told to whoever reads it: else a part without a
decimal point would be another type than the next. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fourways_runtime.errors import SourceError
from fourways_runtime.scoring.cells import Cells, Faults, is_text, shown, texts_of
from fourways_runtime.scoring.columns import Reject
from fourways_runtime.scoring.json_cells import is_json, json_texts
from fourways_runtime.scoring.splits import Newer

from .base import Chunk

NUMBER, TIME, ZONED, TEXT = "number", "time", "time with a zone", "text"
_TYPES: dict[str, tuple[Any, ...]] = {
    NUMBER: (pa.int64(), pa.float64()),
    TIME: (pa.timestamp("us"),),
    ZONED: (pa.timestamp("us", "UTC"),),
    TEXT: (pa.string(),),
}
_LOOKED_AT = 1000
"""Values by which it is told what a column is where they are not all alike."""

DETAIL = "watermark"
"""What a split's detail calls the kind of value."""


def kind_of(cells: Cells) -> str | None:
    """Return what most values of a column are; None where there is none to tell by."""
    texts = _texts(cells).drop_null()
    if not len(texts):
        return None
    some = [pa.array([text]) for text in texts[:_LOOKED_AT].to_pylist()]
    for kind in (NUMBER, TIME, ZONED):
        if _cast(texts, kind) is not None:
            return kind
        if 2 * sum(_cast(text, kind) is not None for text in some) > len(some):
            return kind  # A poisoned value among them costs its row.
    return TEXT


def agreed(column: str, kinds: Iterable[tuple[str, str | None]]) -> str | None:
    """Return what the values are in all files, given as name and kind.

    Raises:
        SourceError: naming two that differ.

    """
    known = [(file, kind) for file, kind in kinds if kind is not None]
    for file, kind in known:
        if kind != known[0][1]:
            raise SourceError(
                f"column {column}, which tells what is new, is a {known[0][1]} in {known[0][0]} "
                f"and a {kind} in {file}; write it alike in both"
            )
    return known[0][1] if known else None


def sifted(chunk: Chunk, column: str, kind: str | None, newer: Newer | None, file: str) -> Chunk:
    """Return the rows that are not older, and their values in ``column``.

    A row whose value is of another kind is refused; one without a value is taken for new.

    Raises:
        SourceError: there was no value to tell the kind by, or the last run's is of another.

    """
    values, faults = _typed(chunk.batch.column(column), kind, f"{file}: column {column}")
    rejects = [
        Reject(int(chunk.rows[at]), None, column, reason) for at, reason in sorted(faults.items())
    ]
    kept = np.ones(chunk.batch.num_rows, bool)
    kept[list(faults)] = False
    if newer is not None:
        try:
            # A column without a decimal point in this part may have had one in others.
            compared = values.cast(pa.float64()) if isinstance(newer.value, float) else values
            since: Any = pa.scalar(newer.value).cast(compared.type)
        except pa.ArrowException:
            raise SourceError(
                f"{file}: column {column} is a {kind}, and the run before ended at "
                f"{shown(newer.value)}; run once without incremental"
            ) from None
        older = pc.less(compared, since).fill_null(False)
        kept &= ~older.to_numpy(zero_copy_only=False)
    if kept.all():
        return Chunk(chunk.batch, chunk.rows, chunk.rejects, values)
    mask = pa.array(kept)
    return Chunk(
        chunk.batch.filter(mask), chunk.rows[kept], [*chunk.rejects, *rejects], values.filter(mask)
    )


def _typed(cells: Cells, kind: str | None, told: str) -> tuple[Cells, Faults]:
    if is_json(cells.type):
        cells = json_texts(cells)
    if not is_text(cells.type):
        return cells, {}
    texts = _texts(cells)
    if kind is None:
        if texts.null_count == len(texts):
            return pa.nulls(len(texts), pa.float64()), {}
        raise SourceError(
            f"{told} has no value in the first rows, so whether it is a number, a time or a text "
            "is not known; put rows that have one first"
        )
    values = _cast(texts, kind)
    if values is not None:
        return values, {}
    good: list[str | None] = []
    faults: Faults = {}
    for at, text in enumerate(texts.to_pylist()):
        fits = text is None or _cast(pa.array([text]), kind) is not None
        good.append(text if fits else None)
        if not fits:
            faults[at] = f"{shown(text)} is not a {kind}"
    values = _cast(pa.array(good, pa.string()), kind)
    # Each fits alone, and so together: as the wider of the types a kind has.
    assert values is not None  # noqa: S101
    return values, faults


def _texts(cells: Cells) -> Cells:
    """Return texts without spaces around them; empty ones, and what is no text, are null."""
    texts, missing, faults = texts_of(cells)
    trimmed: Cells = pc.utf8_trim_whitespace(texts)
    lengths: Cells = pc.binary_length(trimmed)
    none = missing | (lengths.to_numpy(zero_copy_only=False) == 0)
    none[list(faults)] = True
    return pc.if_else(pa.array(none), pa.scalar(None, pa.string()), trimmed)


def _cast(texts: Cells, kind: str) -> Cells | None:
    for to in _TYPES[kind]:
        try:
            values = texts.cast(to)
        except pa.ArrowInvalid:
            continue
        if kind == NUMBER and not pc.all(pc.is_finite(values)).as_py() and len(values.drop_null()):
            continue
        return values
    return None


def highest(column: Cells) -> Any:
    """Return the highest value, as JSON has it; None where there is none."""
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        # Python's times end at microseconds: a little lower, and a row is scored twice.
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    top = pc.max(column).as_py()
    if isinstance(top, bytes):
        return top.decode("utf-8", "replace")
    return top.isoformat() if hasattr(top, "isoformat") else top
