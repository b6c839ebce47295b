"""Requests that arrive together are scored together: one batch for a tick of the event loop.

Owns the queue between HTTP and the model. Nobody waits for company: a batch is what one turn of the
loop brought, up to a cap on rows. A batch the model needs long for runs on a single worker thread,
so that the loop goes on answering probes; what arrives meanwhile is the next batch. The queue is
bounded: beyond it a request is turned away at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

from ..http import HttpError, Response
from .observed import ServingMetrics
from .question import Question
from .scoring import Outcome, Part, Scorer, overloaded

MAX_WAITING = 2048
"""Requests that wait, at the most."""

WAITING_BATCHES = 16
"""Full batches of rows that wait, at the most."""

Render = Callable[[Question, Part], Response]
_Waiting = tuple[Question, "asyncio.Future[Response]"]


class Batcher:
    """Scores questions on the running event loop."""

    def __init__(
        self,
        scorer: Scorer,
        render: Render,
        metrics: ServingMetrics,
        *,
        max_rows: int,
        inline_rows: int,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        """``inline_rows``: a batch of more rows runs on the worker thread."""
        self._scorer = scorer
        self._render = render
        self._metrics = metrics
        self._max_rows = max_rows
        self._inline_rows = inline_rows
        self._max_waiting = max_waiting
        self._most_rows = max_rows * WAITING_BATCHES
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Waiting] = deque()
        self._rows = 0
        self._under_way = False  # a batch is scheduled or being scored
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="model")
        metrics.waiting.set_function(lambda: float(len(self._waiting)))

    def ask(self, question: Question) -> asyncio.Future[Response]:
        """Return the answer to come. Raises HttpError 503 where too many wait."""
        if len(self._waiting) >= self._max_waiting or self._rows >= self._most_rows:
            self._metrics.turned_away()
            raise overloaded("too many requests wait for the model: try again")
        future: asyncio.Future[Response] = self._loop.create_future()
        self._waiting.append((question, future))
        self._rows += question.rows
        if not self._under_way:
            self._under_way = True
            self._loop.call_soon(self._turn)
        return future

    def close(self) -> None:
        """Let the worker thread go."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _turn(self) -> None:
        """Score the next batch; the one after it takes its turn when this one is done."""
        batch, rows = self._next()
        questions = [question for question, _ in batch]
        if rows <= self._inline_rows:
            self._deliver(batch, *self._timed(questions))
            self._again()
            return
        scored = self._loop.run_in_executor(self._worker, self._timed, questions)
        scored.add_done_callback(lambda done: self._scored(batch, done))

    def _scored(
        self, batch: list[_Waiting], done: asyncio.Future[tuple[list[Outcome], float]]
    ) -> None:
        if not done.cancelled():
            self._deliver(batch, *done.result())
            self._again()

    def _again(self) -> None:
        self._under_way = bool(self._waiting)
        if self._waiting:
            self._loop.call_soon(self._turn)

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

    def _timed(self, questions: Sequence[Question]) -> tuple[list[Outcome], float]:
        started = perf_counter()
        return self._scorer.score(questions), perf_counter() - started

    def _deliver(self, batch: list[_Waiting], outcomes: list[Outcome], seconds: float) -> None:
        self._metrics.scored(seconds)
        for (question, future), outcome in zip(batch, outcomes, strict=True):
            if future.done():
                continue
            if isinstance(outcome, Part):
                try:
                    future.set_result(self._render(question, outcome))
                except Exception as error:  # noqa: BLE001  (its neighbours get their answers)
                    future.set_exception(error)
            else:
                if not isinstance(outcome, HttpError):
                    self._metrics.failed()
                future.set_exception(outcome)
