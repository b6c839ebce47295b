"""Scores requests together that arrive in the same tick of the event loop.

Owns the queue between HTTP and the model. No request is held back to fill a batch: a batch is what
arrived in one turn of the loop. Limits are set by time, estimated from measured batches:

* A batch holds what can be scored before the earliest deadline of its requests, up to a maximum
  number of rows.
* A request that cannot be answered before its deadline even if it is next is rejected on arrival,
  with 503; one that turns out later to be impossible to answer in time is rejected before it is
  scored.
* If there is no time for all that wait, the oldest are rejected first: the newest have most time
  left, so more of them can be scored together, and a large batch costs less per row. As long as
  two batches can score all of them in time, the oldest are scored first.
* A quick batch runs on the event loop, any other on a worker thread (:mod:`.placement`).

A request whose client has disconnected is not scored. A client that has closed its sending side may
still be reading, or may be gone: its request is scored when there is time. Requests have no timers
of their own: deadlines are checked before each batch, and by one timer while the worker thread is
scoring.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import inf
from time import monotonic, perf_counter, thread_time

from fourways_http import HttpError, Promise, Response
from fourways_runtime.errors import ModelError

from .batch_times import BatchTimes
from .faults import FeatureFault, ModelFault
from .observed import ServingMetrics
from .placement import Placement
from .request import InferenceRequest
from .scorer import RequestOutcome, RequestScorer, ScoredPart, overloaded
from .templates import UnparsedRequest

logger = logging.getLogger("fourways.serving")

MAX_WAITING = 8192
"""Maximum number of waiting requests; the time limits normally apply long before."""

WAITING_BATCHES = 16
"""Maximum number of waiting rows, in full batches, because their values are held in memory."""

LARGE_ANSWER = 10_000
"""Number of values; a larger response is rendered on the worker thread."""

_SAFETY = 0.85
"""Share of the remaining time that may be planned with."""

Render = Callable[[UnparsedRequest | InferenceRequest, ScoredPart], Response]


class _Waiting:
    """A request in the queue. ``due`` is in seconds of ``monotonic()``, ``within`` its time-out."""

    __slots__ = ("due", "inference", "promise", "rows", "within")

    def __init__(
        self,
        inference: UnparsedRequest | InferenceRequest,
        promise: Promise,
        rows: int,
        due: float,
        within: float,
    ) -> None:
        self.inference = inference
        self.promise = promise
        self.rows = rows
        self.due = due
        self.within = within


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
        self._max_rows = max_rows
        self._max_waiting = max_waiting
        self._timeout = timeout
        self._most_rows = max_rows * WAITING_BATCHES
        self._large_rows = max(0, LARGE_ANSWER // max(1, row_values))
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Waiting] = deque()
        self._rows = 0
        self._under_way = False  # a batch is scheduled or being scored
        self._on_worker = 0  # requests of the batch that the worker scores
        self._done_at = 0.0  # when the worker's batch is expected to be done
        self._watching: asyncio.TimerHandle | None = None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._times = BatchTimes()  # wall-clock time
        self._placement = Placement(proven)
        for rows, seconds in warm_up:
            self._times.note(rows, seconds)
            self._placement.note(rows, seconds)
        metrics.waiting.set_function(lambda: float(len(self._waiting)))
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
        due = (now if since is None else since) + within
        rows = inference.rows
        if not rows:
            nothing = Promise()
            nothing.set_result(self._render(inference, self._scorer.nothing))
            return nothing
        if self._under_way and not self._has_room(rows, due, now):
            self._metrics.rejected()
            raise overloaded("too many requests wait for the model: try again")
        promise = Promise()
        self._waiting.append(_Waiting(inference, promise, rows, due, within))
        self._rows += rows
        if not self._under_way:
            self._under_way = True
            self._loop.call_soon(self._turn)
        return promise

    def close(self) -> None:
        """Shut down the worker thread."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _has_room(self, rows: int, due: float, now: float) -> bool:
        """Return whether a request of so many rows can be answered in time.

        Rejects requests that have waited longer, if that makes room for it.
        """
        waiting = self._waiting
        if len(waiting) >= self._max_waiting or self._rows >= self._most_rows:
            return False
        if due == inf:
            return True
        # A batch that is overdue may need as long again.
        left = (due - now) * _SAFETY - (abs(self._done_at - now) if self._done_at else 0.0)
        if self._times.seconds(self._rows + rows) <= left:
            return True
        if self._times.seconds(rows) > left:
            return False
        while waiting and self._times.seconds(self._rows + rows) > left:
            if waiting[0].due >= due:
                return False
            # Later, because the answer may go to a connection that is being read right now.
            self._loop.call_soon(self._refuse_late, self._pop(), now)
        return True

    # ---- batches

    def _turn(self) -> None:
        """Score the next batch; the batch after it is scheduled when this one is done."""
        batch, rows = self._next(monotonic())
        if not batch:
            self._under_way = False
            return
        self._metrics.batch(len(batch), rows)
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
        batch: list[_Waiting],
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
        self._under_way = bool(self._waiting)
        if self._waiting:
            self._loop.call_soon(self._turn)

    def _next(self, now: float) -> tuple[list[_Waiting], int]:
        """Take the next batch from the queue, and reject what can no longer be answered."""
        waiting = self._waiting
        everything = self._all(now)
        if everything:
            return everything, sum([one.rows for one in everything])
        if not self._in_turn(now):
            return self._newest(now)
        batch: list[_Waiting] = []
        doubtful: list[_Waiting] = []
        rows, first_due = 0, inf
        while waiting:
            one = waiting[0]
            others = bool(batch) or len(waiting) > 1
            together, due = rows + one.rows, min(first_due, one.due)
            if one.promise.abandoned:
                self._pop().promise.set_exception(_left())
            elif one.due <= now or (others and not self._fits(one.rows, one.due - now)):
                # A lone request is scored regardless, so that the model is measured again.
                self._refuse_late(self._pop(), now)
            elif one.promise.half_closed and len(waiting) > 1:
                doubtful.append(self._pop())
            elif batch and (together > self._max_rows or not self._fits(together, due - now)):
                break
            else:
                batch.append(self._pop())
                rows, first_due = together, due
        for one in doubtful:
            waiting.append(one)
            self._rows += one.rows
        return batch, rows

    def _all(self, now: float) -> list[_Waiting]:
        """Take the whole queue if it is one batch that can be scored in time; else nothing."""
        waiting, first_due = self._waiting, inf
        for one in waiting:
            if one.promise.abandoned or one.promise.half_closed:
                return []
            if one.due < first_due:
                first_due = one.due
        if self._rows > self._max_rows or not self._fits(self._rows, first_due - now):
            return []
        everything = list(waiting)
        waiting.clear()
        self._rows = 0
        return everything

    def _in_turn(self, now: float) -> bool:
        """Return whether all that wait can be scored in time in two batches, the oldest first."""
        rows, first_due, start = 0, inf, now
        for one in self._waiting:
            together, due = rows + one.rows, min(first_due, one.due)
            if not self._fits(together, due - start):
                if start > now:
                    return False
                start = now + self._times.seconds(rows)
                together, due = one.rows, one.due
                if not self._fits(together, due - start):
                    return False
            rows, first_due = together, due
        return True

    def _newest(self, now: float) -> tuple[list[_Waiting], int]:
        """Take as many of the newest requests as can be scored before the oldest of them is due.

        Rejects those that could not be scored after this batch. The others go on waiting.
        """
        waiting = self._waiting
        batch: list[_Waiting] = []
        rows, first_due = 0, inf
        while waiting:
            one = waiting[-1]
            together, due = rows + one.rows, min(first_due, one.due)
            fits = together <= self._max_rows and self._fits(together, due - now)
            if batch and not fits:
                break
            waiting.pop()
            self._rows -= one.rows
            if one.promise.abandoned:
                one.promise.set_exception(_left())
            elif one.due <= now or (not fits and waiting):
                self._refuse_late(one, now)
            else:
                batch.append(one)
                rows, first_due = together, due
        batch.reverse()
        done = now + self._times.seconds(rows)
        for _ in range(len(waiting)):
            one = self._pop()
            if self._fits(one.rows, one.due - done):
                waiting.append(one)
                self._rows += one.rows
            else:
                self._refuse_late(one, now)
        return batch, rows

    def _pop(self) -> _Waiting:
        one = self._waiting.popleft()
        self._rows -= one.rows
        return one

    def _fits(self, rows: int, left: float) -> bool:
        return self._times.seconds(rows) <= left * _SAFETY

    def _refuse_late(self, one: _Waiting, now: float) -> None:
        if one.due <= now:
            self._metrics.timed_out()
            text = f"the request waited over {one.within:g} s for the model: try again"
        else:
            self._metrics.rejected()
            text = "the model has no time left for the request: try again"
        one.promise.set_exception(overloaded(text))

    # ---- time

    def _watch(self, batch: list[_Waiting]) -> None:
        """Start the timer for requests in the worker's batch or behind it that may time out."""
        pending = [one.due for one in (*batch, *self._waiting) if not one.promise.done()]
        due = min(pending, default=inf)
        if due == inf and self._timeout == inf:
            return
        # Nothing waits now; requests that arrive later are checked after a fraction of the limit.
        wait = self._timeout / 4 if due == inf else max(0.0, due - monotonic())
        self._watching = self._loop.call_later(wait, self._too_long, batch)

    def _too_long(self, batch: list[_Waiting]) -> None:
        now = monotonic()
        for one in batch:
            if one.due <= now and not one.promise.done():
                self._metrics.timed_out()
                text = f"the model took over {one.within:g} s"
                one.promise.set_exception(HttpError(504, text))
        for one in [one for one in self._waiting if one.due <= now]:
            self._waiting.remove(one)
            self._rows -= one.rows
            self._refuse_late(one, now)
        self._watch(batch)

    # ---- answers

    def _deliver(
        self, batch: list[_Waiting], outcomes: list[RequestOutcome], seconds: float
    ) -> None:
        self._metrics.scored(seconds)
        for one, outcome in zip(batch, outcomes, strict=True):
            promise = one.promise
            if promise.done():
                continue
            if promise.abandoned:
                promise.set_exception(_left())
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

    def _render_large(self, one: _Waiting, part: ScoredPart) -> None:
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


def _left() -> HttpError:
    """Return the error for a request whose client has disconnected; nobody reads it."""
    return HttpError(499, "the client has disconnected")
