"""Watermarks in files without types: numbers and times are compared as such.

This module detects the kind of the values in a text column, and finds the rows that are older than
a value. The kind is determined once, when the table is cut, and passed to each reader: otherwise a
part without a decimal point would have another type than the next. A typed column is compared by
its type.

A watermark may come out slightly lower than it was (a decimal, a time in nanoseconds), and then a
row is scored twice; it is never higher, which would skip rows. Infinity, NaN and times beyond the
years 1 to 9999 are not watermarks; their rows count as new. Pure.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fourways_runtime.errors import SourceError
from fourways_runtime.scoring.cells import Cells, is_text, texts_of
from fourways_runtime.scoring.columns import Array, Reject
from fourways_runtime.scoring.json_cells import is_json, json_texts
from fourways_runtime.scoring.splits import Newer
from fourways_runtime.scoring.values import Faults, shown

from .base import Chunk

NUMBER, TIME, ZONED, TEXT = "number", "time", "time with a zone", "text"
_TYPES: dict[str, tuple[Any, ...]] = {
    NUMBER: (pa.int64(), pa.float64()),
    TIME: (pa.timestamp("us"),),
    ZONED: (pa.timestamp("us", "UTC"),),
    TEXT: (pa.string(),),
}
_LOOKED_AT = 1000
"""Number of values that decide the kind of a column if they are not all alike."""

DETAIL = "watermark"
"""The key of the kind in a split's detail."""


def kind_of_type(found: Any) -> str | None:
    """Return the kind of a typed column's values; None if it cannot be a watermark."""
    types = pa.types
    if types.is_dictionary(found):
        found = found.value_type
    if types.is_integer(found) or types.is_floating(found) or types.is_decimal(found):
        return NUMBER
    if types.is_timestamp(found):
        return TIME if found.tz is None else ZONED
    if types.is_date(found):
        return TIME
    return TEXT if is_text(found) else None


def why_incomparable(column: str, kind: str | None, value: Any) -> str | None:
    """Say why values of a kind cannot be compared with the last watermark; None if they can."""
    if kind is None:
        return None
    if kind == TEXT:
        fits = isinstance(value, str)
    elif kind == NUMBER:
        fits = isinstance(value, int | float)
    else:
        moment = _moment(value)
        zoned = isinstance(moment, datetime) and moment.tzinfo is not None
        fits = moment is not None and zoned == (kind == ZONED)
    if fits:
        return None
    return f"column {column} is a {kind}, but the previous run ended at {shown(value)}"


def lowered(value: Any, lookback: str) -> Any:
    """Return a watermark lowered by ``lookback``: a number, or a duration such as ``36h``.

    None if the two do not match: texts have no distance, and a time needs a duration.
    """
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86_400}.get(lookback[-1])
    if unit is None:
        is_number = isinstance(value, int | float)
        return value - int(lookback) if is_number else None
    moment = _moment(value)
    if moment is None:
        return None
    back = timedelta(seconds=int(lookback[:-1]) * unit)
    try:
        if isinstance(moment, datetime):
            return (moment - back).isoformat()
        return (moment - timedelta(days=math.ceil(back / timedelta(days=1)))).isoformat()
    except OverflowError:
        first = datetime.min.replace(tzinfo=moment.tzinfo) if isinstance(moment, datetime) else None
        return (first or date.min).isoformat()


def lies_ahead(value: Any, now: datetime) -> bool:
    """Tell whether a watermark is a time more than a day after ``now`` (with a zone)."""
    moment = _moment(value)
    if moment is None:
        return False
    if not isinstance(moment, datetime):
        return moment > now.date() + timedelta(days=1)
    zoned = moment if moment.tzinfo is not None else moment.replace(tzinfo=now.tzinfo)
    return zoned > now + timedelta(days=1)


def _moment(value: Any) -> date | datetime | None:
    if not isinstance(value, str):
        return None
    try:
        return date.fromisoformat(value) if len(value) == 10 else datetime.fromisoformat(value)
    except ValueError:
        return None


def older(column: Cells, value: Any) -> Array:
    """Tell which rows (N,) of a typed column are lower than ``value``; a missing one is not.

    Raises:
        pa.ArrowException: the two cannot be compared.

    """
    column = _simple(column)
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64(), safe=False)
        value = float(value)
        value -= 4 * math.ulp(value)  # Arrow may be off in the last digits.
    since = lowest_new(value, column.type)
    if isinstance(since, bool):
        return np.asarray(column.is_valid()) & since
    below: Cells = pc.less(column, since)
    found: Array = below.fill_null(False).to_numpy(zero_copy_only=False)
    return found


def lowest_new(value: Any, kind: Any) -> Cells | bool:
    """Return the lowest value of a column's type that is not older than a watermark.

    It is a scalar of the type ``kind``, which may differ from the type that the watermark was taken
    from. True: every value of the type is older; False: none is.

    Raises:
        pa.ArrowInvalid: the two cannot be compared.

    """
    types = pa.types
    is_number = isinstance(value, int | float)
    if types.is_integer(kind) and is_number:
        return _between(math.ceil(value), np.iinfo(kind.to_pandas_dtype()), kind)
    if types.is_floating(kind) and is_number:
        return pa.scalar(_rounded_down(value, kind), kind)
    moment = _moment(value)
    if (types.is_timestamp(kind) or types.is_date(kind)) and moment is not None:
        if types.is_date(kind):
            return pa.scalar(moment.date() if isinstance(moment, datetime) else moment, kind)
        return _between(_count(moment, kind.unit), np.iinfo(np.int64), kind)
    if is_text(kind) and isinstance(value, str):
        return pa.scalar(value).cast(kind)
    raise pa.ArrowInvalid(f"{shown(value)} cannot be compared with {kind}")


def _between(value: int, limits: Any, kind: Any) -> Cells | bool:
    if value > limits.max:
        return True
    return False if value <= limits.min else pa.scalar(value, kind)


def _rounded_down(value: float, kind: Any) -> Any:
    """Return the nearest value of a float type that is not above a number."""
    number = kind.to_pandas_dtype()
    with np.errstate(over="ignore"):
        found = number(value)
    return found if found <= value else np.nextafter(found, number(-math.inf))


def _count(moment: date | datetime, unit: str) -> int:
    """Return the units since 1970 UTC, rounded towards the past."""
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day)
    epoch = datetime(1970, 1, 1, tzinfo=None if moment.tzinfo is None else UTC)
    microseconds = (moment - epoch) // timedelta(microseconds=1)
    if unit == "ns":
        return microseconds * 1000
    return microseconds // {"s": 10**6, "ms": 10**3, "us": 1}[unit]


def _simple(column: Cells) -> Cells:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_decimal(column.type) and column.type.bit_width < 128:
        return column.cast(pa.decimal128(column.type.precision, column.type.scale))
    if pa.types.is_float16(column.type):
        return column.cast(pa.float32())  # Arrow cannot compare half floats.
    return column.cast(pa.string()) if pa.types.is_string_view(column.type) else column


def kind_of(cells: Cells) -> str | None:
    """Return the kind of most values of a column; None if it has no values."""
    texts = _texts(cells).drop_null()
    if not len(texts):
        return None
    some = [pa.array([text]) for text in texts[:_LOOKED_AT].to_pylist()]
    for kind in (NUMBER, TIME, ZONED):
        if _cast(texts, kind) is not None:
            return kind
        if 2 * sum(_cast(text, kind) is not None for text in some) > len(some):
            return kind  # If some values are bad, only their rows are rejected.
    return TEXT


def agreed(column: str, kinds: Iterable[tuple[str, str | None]]) -> str | None:
    """Return the kind of the values in all files, given as name and kind.

    Raises:
        SourceError: it names two files that differ.

    """
    known = [(file, kind) for file, kind in kinds if kind is not None]
    for file, kind in known:
        if kind != known[0][1]:
            raise SourceError(
                f"column {column}, which tells what is new, is a {known[0][1]} in {known[0][0]} "
                f"and a {kind} in {file}; use one type in both"
            )
    return known[0][1] if known else None


def constant_kind(given: Iterable[str | None]) -> str | None:
    """Return the kind of the values of a column that is in the names of folders."""
    return kind_of(pa.array(sorted({value for value in given if value}), pa.string()))


def parsed(value: str | None, kind: str | None) -> Cells:
    """Return one value of such a column as its kind, (1,); one of another kind is missing."""
    cells: Cells = pa.array([value], pa.string())
    typed = None if kind is None else _cast(cells, kind)
    return pa.nulls(1, _TYPES[kind or TEXT][0]) if typed is None else typed


def sifted(chunk: Chunk, column: str, kind: str | None, newer: Newer | None, file: str) -> Chunk:
    """Return the rows that are not older, and their values in ``column``.

    A row whose value is of another kind is rejected; one without a value counts as new.

    Raises:
        SourceError: no value showed the kind, or the last run's watermark is of another kind.

    """
    values, faults = _typed(chunk.batch.column(column), kind, f"{file}: column {column}")
    rejects = [
        Reject(int(chunk.rows[at]), None, column, reason) for at, reason in sorted(faults.items())
    ]
    kept = np.ones(chunk.batch.num_rows, bool)
    kept[list(faults)] = False
    if newer is not None:
        try:
            kept &= ~older(values, newer.value)
        except pa.ArrowException:
            raise SourceError(
                f"{file}: column {column} is a {kind}, but the previous run ended at "
                f"{shown(newer.value)}; run once without incremental"
            ) from None
    if kept.all():
        return Chunk(chunk.batch, chunk.rows, chunk.rejects, values)
    mask = pa.array(kept)
    return Chunk(
        chunk.batch.filter(mask), chunk.rows[kept], [*chunk.rejects, *rejects], values.filter(mask)
    )


def _typed(cells: Cells, kind: str | None, column: str) -> tuple[Cells, Faults]:
    if is_json(cells.type):
        cells = json_texts(cells)
    if not is_text(cells.type):
        return cells, {}
    texts = _texts(cells)
    if kind is None:
        if texts.null_count == len(texts):
            return pa.nulls(len(texts), pa.float64()), {}
        raise SourceError(
            f"{column} has no value in the first rows, so whether it is a number, a time or a text "
            "is unknown; put rows that have one first"
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
    # Each fits alone, and so all fit together, as the widest type of the kind.
    assert values is not None  # noqa: S101
    return values, faults


def _texts(cells: Cells) -> Cells:
    """Return texts without surrounding spaces; empty texts and cells that are not text are null."""
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


def _in_utc(column: Cells) -> Cells:
    """Return the times of a column that Python can hold, as it shows them, with the zone UTC.

    Texts of one zone order as the times do: a run compares those of its parts.
    """
    unit, zone = column.type.unit, None if column.type.tz is None else "UTC"
    column = column.cast(pa.timestamp(unit, zone))
    if unit == "ns":
        # Python's times have microseconds: slightly lower, so a row may be scored twice.
        return column.cast(pa.timestamp("us", zone), safe=False)
    low, high = (pa.scalar(_count(of, unit), column.type) for of in (datetime.min, datetime.max))
    return _within(column, low, high)


def _within(column: Cells, low: Any, high: Any) -> Cells:
    kept: Any = pc.and_(pc.greater_equal(column, low), pc.less_equal(column, high))
    return column.filter(kept)


def highest(column: Cells) -> Any:
    """Return the highest value, as JSON stores it; None if there is none."""
    column = _simple(column)
    if pa.types.is_null(column.type):
        return None
    if pa.types.is_floating(column.type):
        column = column.filter(pc.is_finite(column))
    if pa.types.is_timestamp(column.type):
        column = _in_utc(column)
    elif pa.types.is_date(column.type):
        column = _within(column, pa.scalar(date.min), pa.scalar(date.max))
    top = pc.max(column).as_py()
    if isinstance(top, bytes):
        return _valid_start(top)
    if isinstance(top, decimal.Decimal):
        whole = top == top.to_integral_value() and abs(top) < 2**63
        return int(top) if whole else float(top)
    return top.isoformat() if hasattr(top, "isoformat") else top


def _valid_start(raw: bytes) -> str:
    """Return the text before the first byte that is not UTF-8; it is never higher."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        return raw[: error.start].decode()
