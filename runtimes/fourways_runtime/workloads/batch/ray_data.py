"""A run under Ray Data: the chunks are the rows of a Dataset, the workers are its actors.

Owns how a run is distributed on a Ray cluster, but not what a run is: an actor scores its assigned
chunks with the same pipeline as any other worker and records each with its predictions in the same
ledger. Rows and predictions therefore never pass through Ray, only chunk numbers do, and losing an
actor, a node or the whole cluster loses only what was not yet recorded.

Ray assigns the work and restarts lost actors; the driver lays out, checks and publishes the run.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fourways_api import RuntimeConfig
from fourways_api.base import SKIP_RULES
from fourways_runtime.errors import (
    ConfigError,
    ModelHangs,
    StoreFull,
    StoreUnavailable,
    Unavailable,
    WorkloadError,
)
from fourways_runtime.io.store.runs.plan import Failure
from fourways_runtime.logs import log_as_json
from fourways_runtime.model_watch import WATCH
from fourways_runtime.process import leave

from .chunk_loop import score_chunks
from .claims import Heartbeat, as_error
from .host import system_allocator, worker
from .run_context import RunContext

if TYPE_CHECKING:
    from fourways_runtime.io.sinks.base import PredictionSink
    from fourways_runtime.io.store.runs.ledger import RunLedger
    from fourways_runtime.io.store.runs.plan import Claim
    from fourways_runtime.scoring.columns import Array

logger = logging.getLogger("fourways.batch")

_MOST_AT_ONCE = 8
"""Maximum number of chunks assigned together: the next one is read while one is scored."""

_HAND_OUTS = 4
"""Minimum number of assignments per actor, so that no actor runs on long after the others."""

_OBJECT_STORE_BYTES = 80 * 2**20
"""Object store size of a local Ray: only chunk numbers pass through it."""


def _open_ledger(context: RunContext, until: ExitStack) -> RunLedger:
    from fourways_runtime.io.store import open_run_store, owners_of, read_uri

    store = open_run_store(read_uri(context.config.paths.store_uri_file), owners_of(context.config))
    until.callback(store.close)
    return until.enter_context(store.ledger(context.new_run(), context.settings(), worker()))


class RayEngine:
    """Scores chunks on the actors of a Ray cluster; this process is their driver."""

    def resolve_digest(self, context: RunContext) -> None:
        """Fetch the model without loading it: the driver never scores."""
        context.fetch_model()

    def never_begun(self, context: RunContext, error: WorkloadError) -> None:
        """Record the error in the store for the waiting Job, since Ray only logs it."""
        if isinstance(error, Unavailable):
            return
        # The first error is the one to report.
        with suppress(WorkloadError), ExitStack() as opened:
            ledger = _open_ledger(context, opened)
            if ledger.join():
                ledger.fail(error.reason, str(error), error.exit_code)

    def score(self, context: RunContext, ledger: RunLedger, sink: PredictionSink | None) -> None:
        """Get chunks scored until all of them are recorded."""
        batch = context.batch
        with _cluster(batch.workers * context.config.threads, batch.backoff_limit):
            while left := ledger.left():
                context.raise_if_failed(ledger)
                self._hand_out(context, left, ledger)
        totals = ledger.totals()
        context.progress.rows, context.progress.rejects = totals.rows, totals.rejects
        context.log("scored", rows=totals.rows, rejects=totals.rejects)

    def _hand_out(
        self, context: RunContext, left: list[tuple[int, int]], ledger: RunLedger
    ) -> None:
        import ray.data
        from ray.exceptions import RayError

        batch = context.batch
        at_once = min(_MOST_AT_ONCE, max(1, len(left) // (batch.workers * _HAND_OUTS)))
        # Ray itself does not limit how often a lost actor restarts; the spec's limit applies here.
        rows = [
            {"chunk": number, "last": begun + 1 + batch.backoff_limit} for number, begun in left
        ]
        chunks = ray.data.from_items(rows, override_num_blocks=-(-len(left) // at_once))
        scored = chunks.map_batches(
            ChunkActor,
            fn_constructor_args=(context.config.model_dump_json(by_alias=True), context.name),
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=batch.workers),
            num_cpus=context.config.threads,
        )
        try:
            for done in scored.iter_batches(batch_size=None, prefetch_batches=0):
                if done["reason"][0]:
                    raise as_error(Failure(done["reason"][0], done["message"][0], 0))
                context.outage.ended()
                context.log_progress(ledger, ledger.totals())
        except RayError as error:
            context.raise_if_failed(ledger)
            told = str(getattr(error, "cause", error)).strip().partition("\n")[0]
            raise Unavailable(f"workers were lost on the Ray cluster: {told[:500]}") from error


class ChunkActor:
    """An actor: a worker of the run whose chunks are assigned to it instead of claimed."""

    def __init__(self, config: str, run: str) -> None:
        log_as_json()
        # An actor is a process of its own: if it ends, Ray restarts it as often as the spec allows.
        WATCH.start(_end)
        read = RuntimeConfig.model_validate_json(config, context=SKIP_RULES)
        self._part = _ActorPart(read.with_own_secrets(), run)

    def __call__(self, handed: dict[str, Array]) -> dict[str, Array]:
        """Score chunks by number; ``last`` is the last attempt allowed for each.

        The result repeats the input and adds the reason and message of any error: if raised, the
        error would arrive as one of Ray's.
        """
        numbers, last = handed["chunk"].tolist(), handed["last"].tolist()
        reason = message = ""
        try:
            self._part.work_on(dict(zip(numbers, last, strict=True)))
        except WorkloadError as error:
            reason, message = error.reason, str(error)
        told = {"reason": [reason], "message": [message]}
        return {**handed, **{key: np.array(text * len(numbers)) for key, text in told.items()}}


def _end(error: ModelHangs) -> None:
    logger.error("%s", error, extra={"reason": error.reason})
    leave(error.exit_code)


class _ActorPart:
    """What an actor keeps between calls: the model, the table and its connection to the ledger."""

    def __init__(self, config: RuntimeConfig, run: str) -> None:
        self._context = RunContext(config, run)
        self._open = ExitStack()
        self._ledger: RunLedger | None = None

    def work_on(self, handed: dict[int, int]) -> None:
        """Score and record chunks; ``handed`` maps each to its maximum attempts by all workers.

        Raises:
            WorkloadError: The chunks could not be scored or recorded.

        """
        again = 0
        while True:
            try:
                self._work_on({number: last + again for number, last in handed.items()})
            except StoreFull:
                raise
            except StoreUnavailable as error:
                self._ledger = None
                self._open.close()
                self._context.wait_out(error)
                again += 1
            else:
                return

    def _work_on(self, handed: dict[int, int]) -> None:
        context = self._context
        context.fetch_model()
        ledger = self._ledger or self._join_run()
        if ledger is None:
            return
        with (
            context.taking_part(ledger) as sink,
            system_allocator(),
            Heartbeat(ledger) as heartbeat,
        ):
            claims = _taken(ledger, handed)
            changes = context.changes(ledger)
            score_chunks(context, ledger, changes, sink, claims, heartbeat.check)

    def _join_run(self) -> RunLedger | None:
        """Join the run that the driver has laid out; return None if it is over."""
        ledger = _open_ledger(self._context, self._open)
        if not ledger.join():
            return None
        self._context.joined = True
        ledger.lay_out(partial(self._context.plan, self._context.table()))
        self._ledger = ledger
        return ledger


def _taken(ledger: RunLedger, handed: dict[int, int]) -> Iterator[Claim]:
    """Claim the assigned chunks except those already recorded. Raises Unavailable."""
    for number, last in handed.items():
        claim = ledger.take(number)
        if claim is None:
            continue
        if claim.attempt > last:
            raise Unavailable(
                f"chunk {number} was started {claim.attempt - 1} times, and its worker was lost "
                "each time: check that it has enough memory (spec.resources.memory)"
            )
        yield claim


@contextmanager
def _cluster(cpus: int, backoff_limit: int) -> Iterator[None]:
    """Connect to the Ray cluster this process is part of, or start one on this machine.

    Raises:
        ConfigError: Ray is not installed.
        Unavailable: There is no cluster at the configured address.

    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray.data
    except ImportError:
        raise ConfigError(
            "engine Ray needs the package ray, which is not installed here: use an image with "
            "fourways[ray], or set batch.engine to Jobs"
        ) from None
    here: dict[str, Any] = {}
    if not os.environ.get("RAY_ADDRESS"):
        # On loopback and without the dashboard: anyone who reaches it can run arbitrary code.
        here = {
            "address": "local",
            "num_cpus": cpus,
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE_BYTES,
            "_node_ip_address": "127.0.0.1",
        }
    try:
        with _own_signals():
            ray.init(configure_logging=False, log_to_driver=False, **here)
    except Exception as error:  # noqa: BLE001  (where Ray does not start in time it raises just that)
        raise Unavailable(f"no Ray cluster responds: {error}") from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_consecutive_actor_init_deaths = backoff_limit
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Restore the SIGTERM handler: Ray's would end the process without a termination message."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
