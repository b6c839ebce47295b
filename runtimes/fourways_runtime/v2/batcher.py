"""Scores requests together that arrive in the same tick of the event loop.

Owns the way between HTTP and the model. No request is held back to fill a batch: a batch is what
arrived in one turn of the loop, as far as the queue finds it can be scored in time
(:mod:`.request_queue`). A quick batch runs on the event loop, any other on a worker thread
(:mod:`.placement`). Deadlines are checked before each batch, and by one timer while the worker
thread is scoring.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import inf
from time import monotonic, perf_counter, thread_time

from fourways_http import HttpError, Promise, Response
from fourways_runtime.errors import ModelError

from .batch_times import BatchTimes
from .faults import FeatureFault, ModelFault
from .observed import ServingMetrics
from .parts import RequestOutcome, ScoredPart
from .placement import Placement
from .request import InferenceRequest
from .request_queue import RequestQueue, WaitingRequest, client_left
from .scorer import RequestScorer, overloaded
from .templates import UnparsedRequest

logger = logging.getLogger("fourways.serving")

MAX_WAITING = 8192
"""Maximum number of waiting requests; the time limits normally apply long before."""

LARGE_ANSWER = 10_000
"""Number of values; a larger response is rendered on the worker thread."""

Render = Callable[[UnparsedRequest | InferenceRequest, ScoredPart], Response]


class Batcher:
    """Scores requests on the running event loop."""

    def __init__(
        self,
        scorer: RequestScorer,
        render: Render,
        metrics: ServingMetrics,
        *,
        max_rows: int,
        warm_up: Sequence[tuple[int, float]] = (),
        proven: bool = False,
        row_values: int = 1,
        max_waiting: int = MAX_WAITING,
        timeout: float = inf,
    ) -> None:
        """Start an empty queue.

        Args:
            scorer: Scores the batches.
            render: Renders a request's response.
            metrics: Counts and measures the batches.
            max_rows: Maximum rows of a batch.
            warm_up: Rows and seconds of batches of synthetic records.
            proven: Whether the warm-up is as reliable as batches of real requests.
            row_values: Number of values in one row's response.
            max_waiting: Maximum number of waiting requests.
            timeout: Seconds after which a request is refused.

        """
        self._scorer = scorer
        self._render = render
        self._metrics = metrics
        self._timeout = timeout
        self._large_rows = max(0, LARGE_ANSWER // max(1, row_values))
        self._loop = asyncio.get_running_loop()
        self._under_way = False  # a batch is scheduled or being scored
        self._on_worker = 0  # requests of the batch that the worker scores
        self._done_at = 0.0  # when the worker's batch is expected to be done
        self._watching: asyncio.TimerHandle | None = None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._times = BatchTimes()  # wall-clock time
        self._queue = RequestQueue(self._times, metrics, max_rows, max_waiting)
        self._placement = Placement(proven)
        for rows, seconds in warm_up:
            self._times.note(rows, seconds)
            self._placement.note(rows, seconds)
        metrics.waiting.set_function(lambda: float(len(self._queue)))
        metrics.running.set_function(lambda: float(self._on_worker))

    def ask(
        self,
        inference: UnparsedRequest | InferenceRequest,
        since: float | None = None,
        timeout: float | None = None,
    ) -> Promise:
        """Return a promise of the response. Raises HttpError 503 if it could not come in time.

        ``since`` is the arrival time if it was before now; ``timeout`` (s) is the client's, which
        only counts if it is shorter than the server's.
        """
        now = monotonic()
        within = self._timeout if timeout is None else min(timeout, self._timeout)
        arrived = now if since is None else since
        due = arrived + within
        rows = inference.rows
        if not rows:
            nothing = Promise()
            nothing.set_result(self._render(inference, self._scorer.nothing))
            return nothing
        if self._under_way:
            self._make_room(rows, due, now)
        promise = Promise()
        self._queue.add(WaitingRequest(inference, promise, rows, due, within, arrived))
        if not self._under_way:
            self._under_way = True
            self._loop.call_soon(self._turn)
        return promise

    def close(self) -> None:
        """Shut down the worker thread."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _make_room(self, rows: int, due: float, now: float) -> None:
        """Reject what has waited longest for a newer request, or raise HttpError 503 for this."""
        # A batch that is overdue may need as long again.
        busy = abs(self._done_at - now) if self._done_at else 0.0
        rejected = self._queue.make_room(rows, due, now, busy)
        if rejected is None:
            self._metrics.rejected()
            raise overloaded("too many requests wait for the model: try again")
        for one in rejected:
            # Later, because the answer may go to a connection that is being read right now.
            self._loop.call_soon(self._queue.reject_late, one, now)

    # ---- batches

    def _turn(self) -> None:
        """Score the next batch; the batch after it is scheduled when this one is done."""
        now = monotonic()
        batch, rows = self._queue.next_batch(now)
        if not batch:
            self._under_way = False
            return
        self._metrics.batch(len(batch), rows)
        self._metrics.queued(now - batch[0].since)
        if self._placement.on_the_loop(rows):
            started = perf_counter()
            outcomes = self._scorer.score([one.inference for one in batch])
            seconds = perf_counter() - started
            self._times.note(rows, seconds)
            self._placement.ran_on_the_loop(rows, seconds)
            self._deliver(batch, outcomes, seconds)
            self._again()
            return
        self._done_at = monotonic() + self._times.seconds(rows)
        self._on_worker = len(batch)
        inferences = [one.inference for one in batch]
        scored = self._loop.run_in_executor(self._worker, self._on_thread, inferences, rows)
        scored.add_done_callback(lambda done: self._scored(batch, rows, done))
        self._watch(batch)

    def _on_thread(
        self, inferences: Sequence[UnparsedRequest | InferenceRequest], rows: int
    ) -> tuple[list[RequestOutcome], float, float]:
        """Score; return the outcomes, the wall-clock time and the CPU time of this thread."""
        started, computed = perf_counter(), thread_time()
        outcomes = self._scorer.score(inferences)
        return outcomes, perf_counter() - started, thread_time() - computed

    def _scored(
        self,
        batch: list[WaitingRequest],
        rows: int,
        done: asyncio.Future[tuple[list[RequestOutcome], float, float]],
    ) -> None:
        if self._watching is not None:
            self._watching.cancel()
        self._done_at = 0.0
        self._on_worker = 0
        if done.cancelled():
            return
        outcomes, seconds, computed = done.result()
        self._times.note(rows, seconds)
        self._placement.ran_on_the_thread(rows, computed)
        self._deliver(batch, outcomes, seconds)
        self._again()

    def _again(self) -> None:
        self._under_way = len(self._queue) > 0
        if self._under_way:
            self._loop.call_soon(self._turn)

    # ---- time

    def _watch(self, batch: list[WaitingRequest]) -> None:
        """Start the timer for requests in the worker's batch or behind it that may time out."""
        due = min([one.due for one in batch if not one.promise.done()], default=inf)
        due = min(due, min(self._queue.pending(), default=inf))
        if due == inf and self._timeout == inf:
            return
        # Nothing waits now; requests that arrive later are checked after a fraction of the limit.
        wait = self._timeout / 4 if due == inf else max(0.0, due - monotonic())
        self._watching = self._loop.call_later(wait, self._too_long, batch)

    def _too_long(self, batch: list[WaitingRequest]) -> None:
        now = monotonic()
        for one in batch:
            if one.due <= now and not one.promise.done():
                self._metrics.timed_out()
                text = f"the model took over {one.within:g} s"
                one.promise.set_exception(HttpError(504, text))
        self._queue.reject_overdue(now)
        self._watch(batch)

    # ---- answers

    def _deliver(
        self, batch: list[WaitingRequest], outcomes: list[RequestOutcome], seconds: float
    ) -> None:
        self._metrics.scored(seconds)
        for one, outcome in zip(batch, outcomes, strict=True):
            promise = one.promise
            if promise.done():
                continue
            if promise.abandoned:
                promise.set_exception(client_left())
            elif type(outcome) is ScoredPart:
                if one.rows > self._large_rows:
                    self._render_large(one, outcome)
                    continue
                try:
                    promise.set_result(self._render(one.inference, outcome))
                except Exception as error:  # noqa: BLE001  (its neighbours get their answers)
                    promise.set_exception(error)
            elif isinstance(outcome, Exception):
                self._count(outcome)
                promise.set_exception(_for_client(outcome))

    def _render_large(self, one: WaitingRequest, part: ScoredPart) -> None:
        rendered = self._loop.run_in_executor(self._worker, self._render, one.inference, part)

        def settle(done: asyncio.Future[Response]) -> None:
            if done.cancelled():
                one.promise.set_exception(overloaded("the server is stopping"))
                return
            error = done.exception()
            if isinstance(error, Exception):
                one.promise.set_exception(error)
            else:
                one.promise.set_result(done.result())

        rendered.add_done_callback(settle)

    def _count(self, error: Exception) -> None:
        if isinstance(error, ModelFault):
            self._metrics.failed()
            self._metrics.model_faults(error.rows)
        elif isinstance(error, FeatureFault):
            self._metrics.feature_faults()
        elif not isinstance(error, HttpError):
            self._metrics.failed()


def _for_client(error: Exception) -> Exception:
    """Return the error to answer with: a model that fails is named as that."""
    if not isinstance(error, ModelError):
        return error
    logger.error("%s", error, exc_info=error, extra={"reason": error.reason})
    return ModelFault(str(error), {}, 0)
