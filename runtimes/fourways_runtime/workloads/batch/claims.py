"""One worker's share of a run: the chunks it claims, scores and records.

Owns the path of a chunk: claim, read, score, write, record. The stages run on separate threads
(:mod:`.prefetch`), so a chunk is claimed and read while the previous one is being written.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fourways_runtime import errors
from fourways_runtime.errors import StoreUnavailable, WorkloadError
from fourways_runtime.io.store.runs.chunk import ChunkRecord
from fourways_runtime.io.store.runs.ledger import LEASE_SECONDS, RunLedger
from fourways_runtime.io.store.runs.plan import Claim, Failure
from fourways_runtime.scoring.columns import Array, Reject, Scored
from fourways_runtime.scoring.profile import ProfileCounts, RecordProfiler

from ..place_watch import SINK, STORE, PlaceWatch
from . import careful

if TYPE_CHECKING:
    from fourways_runtime.io.sinks.base import PredictionSink, SinkChunk
    from fourways_runtime.io.sources.base import Chunk, Table
    from fourways_runtime.scoring.splits import Section
    from fourways_runtime.scoring.table_pipeline import TablePipeline

    from .incremental import Changes


PROFILED_WHOLE = 20_000
"""Rows up to which all of a table are compared with the training profile."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows of a claimed chunk. A piece without rows marks the end of a section or chunk."""

    claim: Claim
    rows: Chunk | None = None
    section: Section | None = None
    """The section that ends here, if rows are compared with the previous run."""

    unchanged: bool = False
    """Whether the section was skipped because it has not changed."""


@dataclass(frozen=True, slots=True)
class PieceResult:
    """The result of a piece."""

    piece: Piece
    scored: Scored | None = None
    """None if the piece marks an end."""

    hashes: Array | None = None
    """Hashes of the rows with a prediction, if rows are compared with the previous run."""

    seen: Array | None = None
    """Hashes of the rows that have not changed since the previous run."""

    watermark: Any = None
    """Highest watermark among the rows."""

    profile: ProfileCounts | None = None
    """Counts of the records, if they are compared with the training profile."""

    @property
    def read(self) -> int:
        """Number of rows of the table that the piece represents."""
        rows, section = self.piece.rows, self.piece.section
        if rows is not None:
            return rows.batch.num_rows + len(rows.rejects)
        return section.split.rows or 0 if section is not None and self.piece.unchanged else 0


@dataclass(slots=True)
class Recorded:
    """The result of writing a piece, which may complete its chunk."""

    rows: int = 0
    rejects: list[Reject] = field(default_factory=list)
    chunk: bool = False
    """Whether this piece completed a chunk and the chunk was recorded."""


def unclaimed(ledger: RunLedger, first: Claim | None = None) -> Iterator[Claim]:
    """Claim chunks until none is left, starting with ``first`` if one is already claimed."""
    claim = first or ledger.claim()
    while claim is not None:
        yield claim
        claim = ledger.claim()


def pieces(claims: Iterator[Claim], table: Table, changes: Changes) -> Iterator[Piece]:
    """Read claimed chunks; each is claimed once the previous one has been read."""
    for claim in claims:
        if not changes.by_hash:
            for rows in table.read(claim.split, changes.newer):
                yield Piece(claim, rows)
        else:
            for section in table.sections(claim.split):
                unchanged = changes.unchanged(section)
                for rows in () if unchanged else table.read(section.split):
                    yield Piece(claim, rows)
                yield Piece(claim, None, section, unchanged)
        yield Piece(claim)


def scorer(
    pipeline: TablePipeline,
    changes: Changes,
    ledger: RunLedger,
    profiler: RecordProfiler | None = None,
) -> Callable[[Piece], PieceResult]:
    """Return a function that scores a piece. It is safe to call from several threads."""
    small = ledger.total_rows is not None and ledger.total_rows <= PROFILED_WHOLE
    most = PROFILED_WHOLE if small else None

    def score(piece: Piece) -> PieceResult:
        chunk = piece.rows
        if chunk is None:
            return PieceResult(piece)
        changed = changes.tell(chunk)
        scored = careful.score_rows(pipeline, ledger, piece.claim, changed.batch, changed.rows)
        hashes = None
        if changed.hashes is not None:
            at = np.searchsorted(changed.rows, scored.predictions.rows)
            hashes = changed.hashes[at]
        rejects = [*chunk.rejects, *scored.rejects]
        profile = (
            None
            if profiler is None
            else profiler.sampled(scored, len(rejects), weighed=True, most=most)
        )
        return PieceResult(
            piece,
            Scored(scored.predictions, rejects),
            hashes,
            changed.seen,
            changed.watermark,
            profile,
        )

    return score


class Recorder:
    """Writes results in order and records each chunk at its end."""

    def __init__(self, ledger: RunLedger, sink: PredictionSink | None, places: PlaceWatch) -> None:
        self._ledger = ledger
        self._sink = sink
        self._places = places
        self._record: ChunkRecord | None = None
        self._out: SinkChunk | None = None
        self._rows = 0
        self._hashes: list[Array] = []
        """Hashes of the section's rows with a prediction, from this run or the previous one."""

        self._refused = False
        self._watermark: Any = None
        self._profile: ProfileCounts | None = None

    def write(self, outcome: PieceResult) -> Recorded:
        """Write the result of a piece. Raises StoreUnavailable."""
        with self._places.step(STORE, f"writing chunk {outcome.piece.claim.number}"):
            return self._write(outcome)

    def _write(self, outcome: PieceResult) -> Recorded:
        piece = outcome.piece
        record = self._record or self._begin(piece.claim)
        self._rows += outcome.read
        if piece.section is not None:
            self._section(record, piece.section, piece.unchanged)
            return Recorded(outcome.read)
        if outcome.scored is None:
            return self._end(record, piece.claim)
        if self._out is not None:
            with self._places.step(SINK, f"writing chunk {piece.claim.number}"):
                self._out.write(outcome.scored.predictions)
        record.write(outcome.scored.predictions, outcome.hashes)
        record.reject(outcome.scored.rejects)
        self._hashes += [each for each in (outcome.hashes, outcome.seen) if each is not None]
        self._refused = self._refused or bool(outcome.scored.rejects)
        if outcome.profile is not None:
            self._profile = self._profile or ProfileCounts()
            self._profile.add(outcome.profile)
        if outcome.watermark is not None:
            below = self._watermark is None or outcome.watermark > self._watermark
            self._watermark = outcome.watermark if below else self._watermark
        return Recorded(outcome.read, outcome.scored.rejects)

    def _begin(self, claim: Claim) -> ChunkRecord:
        self._record = ChunkRecord(self._ledger, claim.number)
        self._out = None if self._sink is None else self._sink.chunk(claim.number, claim.attempt)
        self._rows, self._watermark, self._profile = 0, None, None
        self._hashes, self._refused = [], False
        return self._record

    def _section(self, record: ChunkRecord, section: Section, unchanged: bool) -> None:
        if unchanged and section.digest is not None:
            record.unchanged(section.digest)
        elif self._hashes:
            # Without a digest, each run reads the section again and reports its rejects again.
            digest = None if self._refused else section.digest
            record.section(digest, np.concatenate(self._hashes))
        self._hashes, self._refused = [], False

    def _end(self, record: ChunkRecord, claim: Claim) -> Recorded:
        receipt = ""
        if self._out is not None:
            with self._places.step(SINK, f"writing chunk {claim.number}"):
                receipt = self._out.finish()
        if self._profile is not None:
            record.profile(self._profile)
        ours = record.done(self._rows, watermark=self._watermark, receipt=receipt)
        if not ours and self._out is not None:
            self._out.abandon()
        self._record = None
        return Recorded(chunk=ours)


class Heartbeat:
    """Renews a worker's claims from a separate thread while it works."""

    def __init__(self, ledger: RunLedger) -> None:
        self._ledger = ledger
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._error: Exception | None = None

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()

    def check(self) -> None:
        """Raise the error that ended the thread: without renewals, this worker's claims expire."""
        if self._error is not None:
            raise self._error

    def _beat(self) -> None:
        while not self._stop.wait(LEASE_SECONDS / 4):
            try:
                self._ledger.renew()
            except StoreUnavailable:
                continue  # The next write meets the outage and reports it.
            except Exception as error:  # noqa: BLE001  (raised where the worker waits)
                self._error = error
                return


def as_error(failure: Failure) -> WorkloadError:
    """Rebuild the error that ended another worker; an unknown one becomes a retryable error."""
    kind = getattr(errors, failure.reason, None)
    if isinstance(kind, type) and issubclass(kind, WorkloadError):
        return kind(failure.message)
    return StoreUnavailable(failure.message)
