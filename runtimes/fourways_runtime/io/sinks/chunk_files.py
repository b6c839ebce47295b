"""A chunk's predictions as one Parquet file, with the hashes of its keys beside it.

This module defines the file: its columns and its row groups, and that it is durable under a unique
name before its receipt is returned. The hashes serve to find rows with the same key later, in a
table larger than memory: they are sorted and divided into 64 ranges that can be read separately.
After them, the key file stores the positions of the file's rows in the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from fourways_api import Contract
from fourways_runtime.scoring.columns import Array, Keys, Predictions
from fourways_runtime.scoring.hashing import key_hashes

from ..folders import OutputFolder
from ..store.layout import columns
from ..table_columns import TableColumn

GROUP_ROWS = 131_072
"""Rows of a row group: the unit that a reader decodes and a writer buffers."""

RANGES = 64
KEYS = ".keys"
_HEADER = 8 * (RANGES + 2)
_alias: Any = pa.type_for_alias  # The type stub accepts only literal names.
_SIGNED = {"uint8": "int16", "uint16": "int32", "uint32": "int64"}


@dataclass(frozen=True, slots=True)
class Receipt:
    """The file to which a chunk was written."""

    file: str
    """Name in the folder; empty if the chunk has no rows."""

    rows: int
    size: int = 0
    """Bytes."""

    def dump(self) -> str:
        """Serialize the receipt."""
        return orjson.dumps({"file": self.file, "rows": self.rows, "bytes": self.size}).decode()

    @classmethod
    def load(cls, text: str) -> Receipt:
        """Parse a receipt."""
        receipt = orjson.loads(text)
        return cls(receipt["file"], receipt["rows"], receipt["bytes"])


class Layout:
    """The conversion of predictions to Arrow columns; safe to share."""

    def __init__(self, contract: Contract, *, signed: bool = False) -> None:
        """Define the columns; ``signed`` for a format without unsigned numbers."""
        self._columns = columns(contract)
        self.key = self._columns[0].name
        self.schema = pa.schema(
            [pa.field(c.name, _arrow(c, signed), nullable=False) for c in self._columns]
        )
        self.texts = [c.name for c in self._columns[1:] if c.kind == "string" and not c.shape]

    def table(self, predictions: Predictions) -> pa.RecordBatch:
        """Return predictions as a batch."""
        outputs = [predictions.columns[column.name] for column in self._columns[1:]]
        values: list[Keys] = [predictions.keys, *outputs]
        arrays: list[Any] = [
            _array(column, field.type, value)
            for column, field, value in zip(self._columns, self.schema, values, strict=True)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def writer(self, file: Any) -> pq.ParquetWriter:
        """Return a writer of batches to a file."""
        texts: Any = self.texts
        return pq.ParquetWriter(
            file,
            self.schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=texts,
            write_page_index=True,
        )


def _arrow(column: TableColumn, signed: bool) -> Any:
    # Few readers know half floats.
    kind = "float32" if column.kind == "float16" else str(column.kind)
    kind = _SIGNED.get(kind, kind) if signed else kind
    if kind == "uint64" and signed:
        found: Any = pa.decimal128(20, 0)
    else:
        found = pa.bool_() if kind == "bool" else _alias(kind)
    for _ in column.shape:
        found = pa.list_(found)
    return found


def _array(column: TableColumn, kind: Any, values: Keys) -> Any:
    leaf = kind
    while pa.types.is_list(leaf):
        leaf = leaf.value_type
    flat: Any = np.asarray(values).reshape(-1) if column.shape else values
    text = column.kind == "string"
    found: Any = pa.array(flat, pa.string()) if text else pa.array(flat)
    found = found if found.type == leaf else found.cast(leaf)
    for size in reversed(column.shape):
        if size == 0:
            return pa.array([[]] * len(values), kind)
        ends: Any = pa.array(np.arange(0, len(found) + 1, size, dtype=np.int32))
        found = pa.ListArray.from_arrays(ends, found)
    return found.cast(kind) if found.type != kind else found


class ChunkFile:
    """See :class:`.base.SinkChunk`."""

    def __init__(self, place: OutputFolder, layout: Layout, file: str, keys: str) -> None:
        self._place = place
        self._layout = layout
        self._file = file
        self._keys = keys
        self._open = ExitStack()
        self._writer: pq.ParquetWriter | None = None
        self._stream: Any = None
        self._waiting: list[pa.RecordBatch] = []
        self._hashes: list[Array] = []
        self._segments: list[Array] = []
        self._rows = 0

    def write(self, predictions: Predictions) -> None:
        """Append predictions."""
        if not len(predictions):
            return
        batch = self._layout.table(predictions)
        self._hashes.append(key_hashes(batch.column(self._layout.key)))
        self._segments.append(segments(predictions.rows, self._rows))
        self._waiting.append(batch)
        self._rows += batch.num_rows
        if sum(each.num_rows for each in self._waiting) >= GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._writer is None:
            self._stream = self._open.enter_context(self._place.create(self._file))
            self._writer = self._layout.writer(self._stream)
        table = pa.Table.from_batches(self._waiting, self._layout.schema)
        self._waiting = []
        with self._place.translated():
            self._writer.write_table(table, row_group_size=GROUP_ROWS)

    def finish(self) -> str:
        """Make the file durable."""
        if not self._rows:
            return Receipt("", 0).dump()
        try:
            if self._waiting:
                self._flush()
            with self._place.translated():
                if self._writer is not None:
                    self._writer.close()
                size = self._stream.tell()
        except BaseException as error:
            self._open.__exit__(type(error), error, error.__traceback__)
            raise
        self._open.close()
        keys = key_file(np.concatenate(self._hashes), np.concatenate(self._segments))
        self._place.put(self._keys, keys)
        return Receipt(self._file, self._rows, size).dump()

    def abandon(self) -> None:
        """Delete the file."""
        with suppress(BaseException):
            self._open.__exit__(GeneratorExit, GeneratorExit(), None)
        for name in (self._file, self._keys):
            # Any remainder is removed with its folder.
            with suppress(Exception):
                self._place.delete(name)


def segments(positions: Array, first: int) -> Array:
    """Return the start of each group of consecutive positions: (M, 2), row and position.

    ``positions`` (N,) are those of rows numbered from ``first``, in order.
    """
    begin = np.zeros(1, np.int64)
    if positions[-1] - positions[0] >= len(positions):
        begin = np.flatnonzero(np.diff(positions, prepend=positions[0] - 2) != 1)
    return np.stack([begin + first, positions[begin]], axis=1)


def key_file(hashes: Array, found: Array) -> bytes:
    """Serialize the key hashes (N,) of int64 and the source positions of the rows of a file.

    The layout is: where each range of hashes begins, the number of segments, all hashes, sorted;
    then the first rows of the segments (M, 2), and the positions of those rows.
    """
    hashes = np.sort(hashes)
    width = 2**64 // RANGES
    edges = np.array([-(2**63) + width * at for at in range(1, RANGES)], np.int64)
    starts = [0, *np.searchsorted(hashes, edges), len(hashes), len(found)]
    parts = (np.array(starts), hashes, found[:, 0], found[:, 1])
    return b"".join(np.ascontiguousarray(part, "<i8").data for part in parts)


def positions_of(place: OutputFolder, name: str, rows: Array) -> Array:
    """Return the positions in the source of rows (M,) of the file with this key file."""
    *_, hashes, segments = np.frombuffer(place.part(name, 0, _HEADER), "<i8")
    begin = _HEADER + 8 * int(hashes)
    raw = np.frombuffer(place.part(name, begin, begin + 16 * int(segments)), "<i8")
    firsts, positions = raw.reshape(2, -1)
    at = np.searchsorted(firsts, rows, "right") - 1
    found: Array = positions[at] + rows - firsts[at]
    return found


def repeated(place: OutputFolder, files: Sequence[str], rows: int, at_once: int = 500_000) -> Array:
    """Return the hashes that occur more than once in all key files, sorted."""
    starts = [np.frombuffer(place.part(name, 0, _HEADER), "<i8") for name in files]
    step = max(1, RANGES * at_once // max(rows, 1))
    found = []
    for low in range(0, RANGES, step):
        high = min(low + step, RANGES)
        some = [
            np.frombuffer(
                place.part(name, _HEADER + 8 * int(at[low]), _HEADER + 8 * int(at[high])), "<i8"
            )
            for name, at in zip(files, starts, strict=True)
            if at[high] > at[low]
        ]
        if some:
            ordered = np.concatenate(some)
            ordered.sort()
            found.append(np.unique(ordered[1:][ordered[1:] == ordered[:-1]]))
    return np.concatenate(found) if found else np.empty(0, np.int64)
