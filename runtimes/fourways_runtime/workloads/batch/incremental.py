"""What an incremental run need not score again.

Owns when a run must score everything, and how new rows are told from old: by a column that grows
with every change, or by a hash of each row's key and inputs. Sections of the table whose bytes are
those of the run before are not even read. Hashing works on whole columns; there is no Python loop
over rows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fourways_runtime.io.sinks.key_hashes import text_hashes
from fourways_runtime.io.sources.watermarks import highest, lowered
from fourways_runtime.io.store.runs.merge import among
from fourways_runtime.scoring.cells import Cells, is_list, is_text
from fourways_runtime.scoring.columns import Array, Rows
from fourways_runtime.scoring.json_cells import is_json
from fourways_runtime.scoring.literals import shown
from fourways_runtime.scoring.splits import Newer, Section

if TYPE_CHECKING:
    from fourways_api.modes import Incremental
    from fourways_runtime.io.sources.base import Chunk
    from fourways_runtime.io.store.base import Run
    from fourways_runtime.io.store.runs.ledger import Base

_ODD = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_NULL = np.uint64(0xD1B54A32D192ED03)


def why_full(spec: Incremental | None, run: Run, contract: str, base: Base | None) -> str | None:
    """Say why every row must be scored; None where the published run can be built on."""
    if spec is None:
        return "the run is not incremental"
    if base is None:
        return "nothing is published yet"
    if (base.version, base.digest) != (run.version, run.digest):
        return "the model is another one"
    if base.contract != contract:
        return "the contract has changed"
    if (base.watermark_column, base.row_hash) != (spec.watermark, spec.row_hash):
        return "changes are found in another way than before"
    if spec.watermark is not None and base.watermark is None:
        return "the published run has seen no watermark"
    if spec.row_hash and not base.sections:
        return "the published run did not record its rows' hashes"
    if base.duplicates:
        # A row that gave way looks new, and would win over the one that has not changed.
        return "the published run met repeated keys"
    if spec.lookback is not None and lowered(base.watermark, spec.lookback) is None:
        return (
            f"lookback {spec.lookback} cannot be taken from the watermark {shown(base.watermark)}: "
            "a number needs a number, a time a duration"
        )
    if spec.full_every is not None and base.since_full + 1 >= spec.full_every:
        return f"every {spec.full_every} runs all is scored"
    return None


def since(spec: Incremental, base: Base) -> Any:
    """Return the watermark from which rows are scored: the published run's, less the lookback."""
    if spec.lookback is None:
        return base.watermark
    return lowered(base.watermark, spec.lookback)


@dataclass(frozen=True, slots=True)
class Told:
    """The rows of a piece that are to be scored, and what was learnt of the others."""

    batch: pa.RecordBatch
    rows: Rows
    hashes: Array | None = None
    """Of the rows that are to be scored, where runs are compared."""

    seen: Array | None = None
    """Hashes of the rows that are as they were."""

    watermark: Any = None


class Changes:
    """Tells the rows that must be scored from those that need not. Safe for several threads."""

    def __init__(
        self,
        spec: Incremental | None,
        *,
        since: Any = None,
        digests: frozenset[str] = frozenset(),
        known: Callable[[], Array] | None = None,
        columns: tuple[str, ...] = (),
    ) -> None:
        """Compare with the run before: ``digests`` are those of its sections.

        ``known`` returns the sorted hashes of its rows, and is called where a section is not among
        those; ``since`` is its highest watermark; ``columns`` are those that make up a row.
        """
        self._watermark = spec.watermark if spec is not None else None
        self.by_hash = spec is not None and spec.row_hash
        self._digests = digests
        self._load = known
        self._known: Array | None = None
        self._loading = threading.Lock()
        self._columns = columns
        self.newer = (
            Newer(self._watermark, since) if self._watermark and since is not None else None
        )

    def unchanged(self, section: Section) -> bool:
        """Tell whether all rows of a section are as they were."""
        return section.digest in self._digests

    def tell(self, chunk: Chunk) -> Told:
        """Sort out the rows of a piece."""
        batch, rows = chunk.batch, chunk.rows
        if self._watermark is not None:
            values = chunk.watermark
            values = batch.column(self._watermark) if values is None else values
            return Told(batch, rows, watermark=highest(values))
        if not self.by_hash:
            return Told(batch, rows)
        hashes = row_hashes(batch, self._columns)
        if self._load is None:
            return Told(batch, rows, hashes)
        same = among(self._base(self._load), hashes)
        new = np.flatnonzero(~same)
        kept = batch.take(pa.array(new, pa.int64()))
        return Told(kept, rows[new], hashes[new], hashes[same])

    def _base(self, load: Callable[[], Array]) -> Array:
        with self._loading:
            if self._known is None:
                self._known = load()
            return self._known


# ---------------------------------------------------------------- hashes


def row_hashes(batch: pa.RecordBatch, columns: tuple[str, ...]) -> Array:
    """Hash each row's values in ``columns`` to 64 bits, (N,) of int64.

    The same values give the same hash in every run, whatever the width of the type they are kept
    in. Two rows that differ share a hash with a probability of about 2**-64.
    """
    found = np.zeros(batch.num_rows, np.uint64)
    high = np.empty_like(found)
    with np.errstate(over="ignore"):
        for name in columns:
            # Each step can be undone, so rows that differ in one column never share a hash. In
            # place: a wide table takes as many turns as it has columns.
            found += _column_hashes(batch.column(name))
            found *= _ODD
            np.right_shift(found, np.uint64(32), out=high)
            found ^= high
        return _mixed(found).view(np.int64)


def _mixed(values: Array) -> Array:
    values = values ^ (values >> np.uint64(31))
    values *= _MIX
    values ^= values >> np.uint64(29)
    return values


def _column_hashes(column: Cells) -> Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if is_json(column.type):
        column = column.storage
    if pa.types.is_null(column.type):
        return np.full(len(column), _NULL)
    if is_list(column.type):
        elements = pc.list_flatten(column)
        lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
        hashes = _folded(_column_hashes(elements), lengths.astype(np.int64))
    elif is_text(column.type):
        hashes = text_hashes(column.cast(pa.binary()))
    else:
        hashes = _bits(column)
    if column.null_count:
        missing = column.is_null().to_numpy(zero_copy_only=False)
        hashes = np.where(missing, _NULL, hashes)
    return hashes


def _bits(column: Cells) -> Array:
    """Return 64 bits that stand for a scalar, whole numbers and floats alike in every width."""
    types = pa.types
    if types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    elif types.is_decimal(column.type):
        return _column_hashes(column.cast(pa.string()))
    elif not (types.is_integer(column.type) or types.is_floating(column.type)):
        column = column.cast(pa.int64(), safe=False)
    column = column.fill_null(0) if column.null_count else column
    values: Array = column.to_numpy(zero_copy_only=False)
    if values.dtype.kind == "f":
        return values.astype(np.float64).view(np.uint64)
    if values.dtype.kind == "u":
        return values.astype(np.uint64)
    return values.astype(np.int64).view(np.uint64)


def _folded(elements: Array, lengths: Array) -> Array:
    """Fold the hashes of elements that lie one after another into one for each run of them."""
    starts = np.cumsum(lengths) - lengths
    place = (np.arange(len(elements)) - np.repeat(starts, lengths)).astype(np.uint64)
    spread = _mixed(elements * _ODD + _mixed(place * _MIX + _ODD))
    folded = np.zeros(len(lengths), np.uint64)
    filled = lengths > 0
    if filled.any():
        folded[filled] = np.add.reduceat(spread, starts[filled])
    return folded + lengths.astype(np.uint64)
