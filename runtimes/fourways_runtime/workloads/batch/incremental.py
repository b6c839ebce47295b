"""Find the rows that an incremental run need not score again.

Owns when a run must score everything, and how changed rows are detected: by a column that grows
with every change, or by a hash of each row's key and inputs. Sections of the table whose bytes have
not changed since the previous run are not even read. Hashing works on whole columns; there is no
Python loop over rows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from fourways_runtime.errors import SourceError
from fourways_runtime.io.sources.text_order import why_unordered
from fourways_runtime.io.sources.watermarks import highest, lowered
from fourways_runtime.io.store.runs.merge import among
from fourways_runtime.scoring.columns import Array, Rows
from fourways_runtime.scoring.hashing import row_hashes
from fourways_runtime.scoring.literals import shown
from fourways_runtime.scoring.splits import Newer, Section

if TYPE_CHECKING:
    from fourways_api.modes import Incremental
    from fourways_runtime.io.sources.base import Chunk
    from fourways_runtime.io.store.base import Run
    from fourways_runtime.io.store.runs.plan import Base


def why_full(spec: Incremental | None, run: Run, contract: str, base: Base | None) -> str | None:
    """Return why every row must be scored, or None if the published run can be reused."""
    if spec is None:
        return "the run is not incremental"
    if base is None:
        return "nothing is published yet"
    if (base.version, base.digest) != (run.version, run.digest):
        return "the model has changed"
    if base.contract != contract:
        return "the contract has changed"
    if (base.watermark_column, base.row_hash) != (spec.watermark, spec.row_hash):
        return "changes are detected in another way than before"
    if spec.watermark is not None and base.watermark is None:
        return "the published run has no watermark"
    if spec.row_hash and not base.sections:
        return "the published run did not record its rows' hashes"
    if base.duplicates:
        # The row that lost to a repeated key would look new and replace the unchanged winner.
        return "the published run contained repeated keys"
    if spec.lookback is not None and lowered(base.watermark, spec.lookback) is None:
        return (
            f"lookback {spec.lookback} cannot be taken from the watermark {shown(base.watermark)}: "
            "a number needs a number, a time a duration"
        )
    if spec.full_every is not None and base.since_full + 1 >= spec.full_every:
        return f"every {spec.full_every} runs, all rows are scored"
    return None


def since(spec: Incremental, base: Base) -> Any:
    """Return the watermark from which rows are scored: the published run's minus the lookback."""
    if spec.lookback is None:
        return base.watermark
    return lowered(base.watermark, spec.lookback)


@dataclass(frozen=True, slots=True)
class Told:
    """The rows of a piece that must be scored, and what is known about the others."""

    batch: pa.RecordBatch
    rows: Rows
    hashes: Array | None = None
    """Hashes of the rows that must be scored, if rows are compared with the previous run."""

    seen: Array | None = None
    """Hashes of the rows that have not changed."""

    watermark: Any = None


class Changes:
    """Separates the rows that must be scored from those that need not. Thread-safe."""

    def __init__(
        self,
        spec: Incremental | None,
        *,
        since: Any = None,
        digests: frozenset[str] = frozenset(),
        known: Callable[[], Array] | None = None,
        columns: tuple[str, ...] = (),
    ) -> None:
        """Compare with the previous run: ``digests`` are those of its sections.

        ``known`` returns the sorted hashes of its rows and is called when a section's digest is not
        in ``digests``; ``since`` is its highest watermark, minus any lookback; ``columns`` are the
        columns that are hashed.
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
        """Tell whether no row of a section has changed."""
        return section.digest in self._digests

    def tell(self, chunk: Chunk) -> Told:
        """Select the rows of a piece that must be scored.

        Raises SourceError: its watermarks are texts that are not ordered by what they say.
        """
        batch, rows = chunk.batch, chunk.rows
        if self._watermark is not None:
            values = chunk.watermark
            values = batch.column(self._watermark) if values is None else values
            top = highest(values)
            if (why := why_unordered(values, top)) is not None:
                raise SourceError(f"incremental.watermark: column {self._watermark}: {why}")
            return Told(batch, rows, watermark=top)
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
