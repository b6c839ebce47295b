"""The loop that reads, scores and records claimed chunks and enforces the limits as it goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from .claims import Recorder, pieces, scorer
from .limits import RejectLimit
from .prefetch import overlapped

if TYPE_CHECKING:
    from fourways_runtime.io.sinks.base import PredictionSink
    from fourways_runtime.io.store.runs.ledger import RunLedger
    from fourways_runtime.io.store.runs.plan import Claim

    from .incremental import Changes
    from .run_context import RunContext

SAY_SECONDS = 2.0
"""Time between two logs of the progress."""


def score_chunks(
    context: RunContext,
    ledger: RunLedger,
    changes: Changes,
    sink: PredictionSink | None,
    claims: Iterator[Claim],
    watch: Callable[[], None],
) -> None:
    """Score and record the claimed chunks.

    ``watch`` is called while the loop waits, and may raise to end it. Raises WorkloadError.
    """
    recorder = Recorder(ledger, sink, context.places)
    limit = RejectLimit(context.batch.max_rejects, ledger.total_rows)
    with closing(
        overlapped(
            pieces(claims, context.table(), changes),
            scorer(context.pipeline(), changes, ledger, context.profiler),
            recorder.write,
            context.config.threads,
            watch,
        )
    ) as written:
        said = time.monotonic()
        for step in written:
            context.progress.rows += step.rows
            context.progress.refused(step.rejects)
            if not step.chunk:
                continue
            context.outage.ended()
            # The limit is checked once a chunk is recorded: its rejects can be inspected then.
            totals = ledger.totals()
            exceeded = limit.surely_exceeded(totals.rejects)
            context.judge(exceeded, limit, totals.rejects, totals.rows)
            if time.monotonic() - said > SAY_SECONDS:
                said = time.monotonic()
                context.log_progress(ledger, totals)
