"""A run under Ray: its workers are actors of a Ray cluster.

Owns where a run's workers are, but not what a run is: an actor claims, scores and records chunks in
the same ledger and with the same code as any other worker. Neither rows nor chunks pass through
Ray. Losing an actor, a node or the whole cluster loses only what was not yet recorded, and the
chunk of an actor that hangs is claimed by another one.

The driver lays out, checks and publishes the run. It starts the actors, replaces lost ones, and
waits for the ledger, not for the actors: one that never returns does not hold the run.
"""

from __future__ import annotations

import logging
import os
import queue
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from fourways_api import RuntimeConfig
from fourways_api.base import SKIP_RULES
from fourways_api.installing import install_command
from fourways_runtime.errors import (
    ConfigError,
    ModelHangs,
    StoreFull,
    StoreUnavailable,
    Unavailable,
    WorkloadError,
)
from fourways_runtime.io.store.runs.ledger import LEASE_SECONDS
from fourways_runtime.io.store.runs.plan import Failure
from fourways_runtime.logs import log_as_json
from fourways_runtime.model_watch import WATCH

from .chunk_loop import SAY_SECONDS
from .claims import as_error
from .engine import LocalEngine
from .host import worker
from .run_context import RunContext

if TYPE_CHECKING:
    from fourways_runtime.io.sinks.base import PredictionSink
    from fourways_runtime.io.store.runs.ledger import RunLedger

logger = logging.getLogger("fourways.batch")

LOOK_SECONDS = 0.5
"""Time between two looks of the driver at the ledger."""

LATE_SECONDS = LEASE_SECONDS / 2
"""How long an actor's leases stay expired before the driver replaces it: two renewals."""

_LEAVE_SECONDS = 5.0
"""How long actors may take to end once the run is complete."""

_OBJECT_STORE_BYTES = 80 * 2**20
"""Object store size of a local Ray: next to nothing passes through it."""


def _open_ledger(context: RunContext, until: ExitStack, name: str = "") -> RunLedger:
    from fourways_runtime.io.store import open_run_store, owners_of, read_uri

    store = open_run_store(read_uri(context.config.paths.store_uri_file), owners_of(context.config))
    until.callback(store.close)
    return until.enter_context(
        store.ledger(context.new_run(), context.settings(), f"{worker()}{name}")
    )


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
        begun = dict(ledger.left())
        if begun:
            with (
                _cluster(batch.workers * context.config.threads),
                _Actors(context, begun) as actors,
            ):
                actors.wait(ledger)
        totals = ledger.totals()
        context.progress.rows, context.progress.rejects = totals.rows, totals.rejects
        context.log("scored", rows=totals.rows, rejects=totals.rejects)


class _Actors:
    """The actors of a run, as the driver sees them. Leaving the context ends them."""

    def __init__(self, context: RunContext, begun: dict[int, int]) -> None:
        """``begun``: how often each unrecorded chunk was started before."""
        self._context = context
        self._begun = begun
        self._prefix, self._started = f"/{secrets.token_hex(4)}", 0
        self._at_work: dict[Any, tuple[str, Any]] = {}
        """Name and handle of each actor, by the reference of its result."""

        self._late: dict[str, float] = {}
        """Since when an actor's leases are seen expired."""

        self._losses, self._done = 0, 0
        """Losses since the last recorded chunk, and the chunks recorded then."""

    def __enter__(self) -> _Actors:
        for _ in range(self._context.batch.workers):
            self._start()
        return self

    def __exit__(self, *exc: object) -> None:
        import ray

        for _, actor in self._at_work.values():
            ray.kill(actor)

    def _start(self) -> None:
        import ray

        config = self._context.config
        self._started += 1
        name = f"{self._prefix}.{self._started}"
        # The driver counts and replaces lost actors: Ray limits neither losses in a row nor those
        # at one chunk.
        remote: Any = ray.remote(num_cpus=config.threads, max_restarts=0)(RayWorker)
        actor = remote.remote(config.model_dump_json(by_alias=True), self._context.name, name)
        self._at_work[actor.work.remote()] = name, actor

    def wait(self, ledger: RunLedger) -> None:
        """Wait until all chunks are recorded. Raises WorkloadError."""
        import ray

        context = self._context
        said = time.monotonic()
        while True:
            ended, _ = ray.wait([*self._at_work], timeout=LOOK_SECONDS)
            context.raise_if_failed(ledger)
            totals = ledger.totals()
            context.outage.ended()
            if totals.complete:
                left = [*self._at_work]
                ray.wait(left, num_returns=len(left), timeout=_LEAVE_SECONDS)
                return
            for result in ended:
                self._ended(ledger, result, totals.done)
            self._replace_hung(ledger)
            if time.monotonic() - said > SAY_SECONDS:
                said = time.monotonic()
                context.log_progress(ledger, totals)

    def _ended(self, ledger: RunLedger, result: Any, done: int) -> None:
        """Handle the end of an actor before the end of the run. Raises WorkloadError."""
        import ray
        from ray.exceptions import RayError

        name, actor = self._at_work.pop(result)
        self._late.pop(name, None)
        try:
            reason, message = ray.get(result)
        except RayError as lost:
            cause = str(getattr(lost, "cause", lost)).strip().partition("\n")[0]
            error: WorkloadError = Unavailable(f"it was lost on the Ray cluster: {cause[:500]}")
        else:
            if not reason:
                return
            error = as_error(Failure(reason, message, 0))
            ray.kill(actor)  # A call in it may never return.
            if not isinstance(error, ModelHangs):
                raise error
        self._context.log("worker lost", worker=name, error=str(error))
        self._count(ledger, error, done)
        self._start()

    def _count(self, ledger: RunLedger, error: WorkloadError, done: int) -> None:
        """Count the loss of an actor. Raises Unavailable if there were too many."""
        batch = self._context.batch
        self._losses = 1 if done > self._done else self._losses + 1
        self._done = done
        starts = ((starts - self._begun.get(at, 0), at) for at, starts in ledger.left())
        most, chunk = max(starts, default=(0, 0))
        if most > 1 + batch.backoff_limit:
            what = f"chunk {chunk} was started {most} times, and its worker was lost each time"
        elif self._losses > batch.backoff_limit * batch.workers:
            lost = "a worker was lost" if self._losses == 1 else f"{self._losses} workers were lost"
            what = f"{lost}, and no chunk was recorded meanwhile"
        else:
            return
        if isinstance(error, ModelHangs):
            raise error
        raise Unavailable(
            f"{what}: check that workers have enough memory (spec.resources.memory); {error}"
        )

    def _replace_hung(self, ledger: RunLedger) -> None:
        """End the actors that no longer renew their leases; :meth:`_ended` replaces them."""
        import ray

        now = time.monotonic()
        late = set(ledger.late())
        names = dict(self._at_work.values())
        # All leases have expired at the end of an outage of the store, too.
        self._late = {
            name: self._late.get(name, now)
            for name in names
            if any(owner.endswith(name) for owner in late)
        }
        for name, since in self._late.items():
            if now - since > LATE_SECONDS:
                self._context.log("worker hangs", worker=name)
                ray.kill(names[name])


class RayWorker:
    """An actor: a worker of the run, in a process of its own."""

    def __init__(self, config: str, run: str, name: str) -> None:
        """``name`` distinguishes the actor from others of its machine."""
        log_as_json()
        self._ends: queue.SimpleQueue[WorkloadError | None] = queue.SimpleQueue()
        WATCH.start(self._ends.put)
        read = RuntimeConfig.model_validate_json(config, context=SKIP_RULES)
        self._context = RunContext(read.with_own_secrets(), run)
        self._context.end_if_stuck(self._ends.put)
        self._name = name

    def work(self) -> tuple[str, str]:
        """Score and record chunks until the run is complete; return reason and message of an error.

        If it were raised, it would arrive as one of Ray's. The result does not wait for a call into
        the model, the store or the sink that never returns.
        """
        threading.Thread(target=self._work, name="work", daemon=True).start()
        error = self._ends.get()
        return ("", "") if error is None else (error.reason, str(error))

    def _work(self) -> None:
        try:
            self._work_on()
        except WorkloadError as error:
            self._ends.put(error)
        except Exception as error:
            logger.exception("unexpected error")
            self._ends.put(Unavailable(f"{type(error).__name__}: {error}"))
        else:
            self._ends.put(None)

    def _work_on(self) -> None:
        while True:
            try:
                with ExitStack() as opened:
                    self._take_part(opened)
                    return
            except StoreFull:
                raise
            except StoreUnavailable as error:
                self._context.wait_out(error)

    def _take_part(self, opened: ExitStack) -> None:
        """Join the run that the driver has laid out, and work on it until it is over."""
        context = self._context
        context.fetch_model()
        ledger = _open_ledger(context, opened, self._name)
        if not ledger.join():
            return
        context.joined = True
        ledger.lay_out(partial(context.plan, context.table()))
        with context.taking_part(ledger) as sink:
            LocalEngine().score(context, ledger, sink)


@contextmanager
def _cluster(cpus: int) -> Iterator[None]:
    """Connect to the Ray cluster this process is part of, or start one on this machine.

    Raises:
        ConfigError: Ray is not installed.
        Unavailable: There is no cluster at the configured address.

    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise ConfigError(
            f"engine Ray needs a package that is not installed here: {install_command('ray')}, or "
            "set batch.engine to Jobs"
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
