"""The engines: the chunks of a run are scored by this process or by those an engine starts.

A run is the same under each engine: it is laid out, recorded and published through the ledger. An
engine only decides how the chunks are distributed and what a process must know about the model.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from . import run_context
from .chunk_loop import score_chunks
from .claims import Heartbeat, unclaimed
from .host import system_allocator

if TYPE_CHECKING:
    from fourways_runtime.errors import WorkloadError
    from fourways_runtime.io.sinks.base import PredictionSink
    from fourways_runtime.io.store.runs.ledger import RunLedger

    from .run_context import RunContext


class Engine(Protocol):
    """How the chunks of a run are scored."""

    def resolve_digest(self, context: RunContext) -> None:
        """Find out the model's digest, which is part of a run's identity. Raises WorkloadError."""
        ...

    def score(self, context: RunContext, ledger: RunLedger, sink: PredictionSink | None) -> None:
        """Get chunks scored until all of them are recorded. Raises WorkloadError."""
        ...

    def never_begun(self, context: RunContext, error: WorkloadError) -> None:
        """Handle an error that ended the run before it was found or created in the store."""
        ...


class LocalEngine:
    """Scores chunks in this process, alongside other processes that claim some of them."""

    def resolve_digest(self, context: RunContext) -> None:
        """Load the model: this process needs it in any case."""
        context.pipeline()

    def score(self, context: RunContext, ledger: RunLedger, sink: PredictionSink | None) -> None:
        """Score chunks until all of them are recorded, by this worker or others."""
        begun = time.monotonic()
        changes = context.changes(ledger)
        with system_allocator(), Heartbeat(ledger) as heartbeat:
            claims = unclaimed(ledger)
            score_chunks(context, ledger, changes, sink, claims, heartbeat.check)
            while not ledger.totals().complete:
                context.raise_if_failed(ledger)
                heartbeat.check()
                stolen = ledger.claim() or ledger.steal()
                if stolen is None:
                    time.sleep(run_context.RETRY_SECONDS / 2)
                else:
                    claims = unclaimed(ledger, stolen)
                    score_chunks(context, ledger, changes, sink, claims, heartbeat.check)
        seconds = time.monotonic() - begun
        context.log(
            "scored",
            rows=context.progress.rows,
            rejects=context.progress.rejects,
            rows_per_second=round(context.progress.rows / seconds) if seconds else None,
        )

    def never_begun(self, context: RunContext, error: WorkloadError) -> None:
        """Do nothing: the error goes into this process's own termination message."""
