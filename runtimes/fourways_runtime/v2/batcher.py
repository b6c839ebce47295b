"""Requests that arrive together are scored together: one batch for a tick of the event loop.

Owns the queue between HTTP and the model. Nobody waits for company: a batch is what one turn of the
loop brought, up to a cap on rows. A batch the model needs long for runs on a single worker thread,
so that the loop goes on answering probes; what arrives meanwhile is the next batch. The queue is
bounded: beyond it a request is turned away at once. So is the wait: what has waited too long is
answered instead of scored. No request has a timer of its own for that: the queue is looked at
before each batch, and by one timer while a batch is with the worker.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import inf
from time import monotonic, perf_counter

from fourways_http import HttpError, Promise, Response

from .observed import ServingMetrics
from .request import InferenceRequest
from .scorer import RequestOutcome, RequestScorer, ScoredPart, overloaded
from .templates import UnparsedRequest

MAX_WAITING = 2048
"""Requests that wait, at the most."""

WAITING_BATCHES = 16
"""Full batches of rows that wait, at the most."""

Render = Callable[[UnparsedRequest | InferenceRequest, ScoredPart], Response]
_Waiting = tuple[UnparsedRequest | InferenceRequest, Promise, float]
"""With when it came, in seconds of ``monotonic()``."""


class Batcher:
    """Scores requests on the running event loop."""

    def __init__(
        self,
        scorer: RequestScorer,
        render: Render,
        metrics: ServingMetrics,
        *,
        max_rows: int,
        inline_rows: int,
        max_waiting: int = MAX_WAITING,
        timeout: float = inf,
    ) -> None:
        """``inline_rows``: a batch of more rows runs on the worker thread. ``timeout`` (s): what
        takes longer is refused."""
        self._scorer = scorer
        self._render = render
        self._metrics = metrics
        self._max_rows = max_rows
        self._inline_rows = inline_rows
        self._max_waiting = max_waiting
        self._timeout = timeout
        self._most_rows = max_rows * WAITING_BATCHES
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Waiting] = deque()
        self._rows = 0
        self._under_way = False  # a batch is scheduled or being scored
        self._watching: asyncio.TimerHandle | None = None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="model")
        metrics.waiting.set_function(lambda: float(len(self._waiting)))

    def ask(
        self, inference: UnparsedRequest | InferenceRequest, since: float | None = None
    ) -> Promise:
        """Return the answer to come. Raises HttpError 503 where too many wait.

        ``since`` is when the request came, where that was before now.
        """
        if len(self._waiting) >= self._max_waiting or self._rows >= self._most_rows:
            self._metrics.rejected()
            raise overloaded("too many requests wait for the model: try again")
        promise = Promise()
        self._waiting.append((inference, promise, monotonic() if since is None else since))
        self._rows += inference.rows
        if not self._under_way:
            self._under_way = True
            self._loop.call_soon(self._turn)
        return promise

    def close(self) -> None:
        """Let the worker thread go."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _turn(self) -> None:
        """Score the next batch; the one after it takes its turn when this one is done."""
        self._drop_late()
        if not self._waiting:
            self._under_way = False
            return
        batch, rows = self._next()
        inferences = [waiting[0] for waiting in batch]
        if rows <= self._inline_rows:
            self._deliver(batch, *self._timed(inferences))
            self._again()
            return
        scored = self._loop.run_in_executor(self._worker, self._timed, inferences)
        scored.add_done_callback(lambda done: self._scored(batch, done))
        self._watch(batch)

    def _scored(
        self, batch: list[_Waiting], done: asyncio.Future[tuple[list[RequestOutcome], float]]
    ) -> None:
        if self._watching is not None:
            self._watching.cancel()
        if not done.cancelled():
            self._deliver(batch, *done.result())
            self._again()

    def _again(self) -> None:
        self._under_way = bool(self._waiting)
        if self._waiting:
            self._loop.call_soon(self._turn)

    def _watch(self, batch: list[_Waiting]) -> None:
        """See that nobody waits too long for a batch that is with the worker, or behind it."""
        if self._timeout == inf:
            return
        pending = [since for _, promise, since in (*batch, *self._waiting) if not promise.done()]
        wait = self._timeout / 4  # who comes while nobody waits is seen soon enough
        if pending:
            wait = max(0.0, min(pending) + self._timeout - monotonic())
        self._watching = self._loop.call_later(wait, self._too_long, batch)

    def _too_long(self, batch: list[_Waiting]) -> None:
        latest = monotonic() - self._timeout
        for _, promise, since in batch:
            if since <= latest and not promise.done():
                self._late(promise, HttpError(504, f"the model took over {self._timeout:g} s"))
        self._drop_late()
        self._watch(batch)

    def _drop_late(self) -> None:
        """Answer those who waited too long. Who came first is in front, but for lookups."""
        latest = monotonic() - self._timeout
        waiting = self._waiting
        while waiting and waiting[0][2] <= latest:
            inference, promise, _ = waiting.popleft()
            self._rows -= inference.rows
            text = f"the request waited over {self._timeout:g} s for the model: try again"
            self._late(promise, overloaded(text))

    def _late(self, promise: Promise, error: HttpError) -> None:
        self._metrics.timed_out()
        promise.set_exception(error)

    def _next(self) -> tuple[list[_Waiting], int]:
        waiting = self._waiting
        batch = [waiting.popleft()]
        rows = batch[0][0].rows
        while waiting and rows + waiting[0][0].rows <= self._max_rows:
            batch.append(waiting.popleft())
            rows += batch[-1][0].rows
        self._rows -= rows
        self._metrics.batch(len(batch), rows)
        return batch, rows

    def _timed(
        self, inferences: Sequence[UnparsedRequest | InferenceRequest]
    ) -> tuple[list[RequestOutcome], float]:
        started = perf_counter()
        return self._scorer.score(inferences), perf_counter() - started

    def _deliver(
        self, batch: list[_Waiting], outcomes: list[RequestOutcome], seconds: float
    ) -> None:
        self._metrics.scored(seconds)
        for (inference, promise, _), outcome in zip(batch, outcomes, strict=True):
            if promise.done():
                continue
            if type(outcome) is ScoredPart:
                try:
                    promise.set_result(self._render(inference, outcome))
                except Exception as error:  # noqa: BLE001  (its neighbours get their answers)
                    promise.set_exception(error)
            elif isinstance(outcome, Exception):
                if not isinstance(outcome, HttpError):
                    self._metrics.failed()
                promise.set_exception(outcome)
