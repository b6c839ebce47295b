"""The requests that wait for the model, and which of them are scored next.

Time is estimated from measured batches, with a margin for how far they differ from the estimates.
What follows from it:

* A batch holds what can be scored before the earliest deadline of its requests, up to a maximum
  number of rows.
* A request that cannot be answered before its deadline even if it is next is rejected on arrival;
  one that turns out later to be impossible to answer in time is rejected before it is scored.
* If there is no time for all that wait, the oldest are rejected first: the newest have most time
  left, so more of them can be scored together, and a large batch costs less per row. As long as
  two batches can score all of them in time, the oldest are scored first.

A request whose client has disconnected is not scored. A client that has closed its sending side may
still be reading, or may be gone: its request is scored when there is time. The caller passes the
time; requests have no timers here.
"""

from __future__ import annotations

from collections import deque
from math import inf

from fourways_http import HttpError, Promise

from .batch_times import BatchTimes
from .observed import ServingMetrics
from .request import InferenceRequest
from .scorer import overloaded
from .templates import UnparsedRequest

WAITING_BATCHES = 16
"""Maximum number of waiting rows, in full batches, because their values are held in memory."""


class WaitingRequest:
    """A request in the queue.

    ``due`` and ``since``, when it arrived, are in seconds of ``monotonic()``, ``within`` is its
    time-out.
    """

    __slots__ = ("due", "inference", "promise", "rows", "since", "within")

    def __init__(
        self,
        inference: UnparsedRequest | InferenceRequest,
        promise: Promise,
        rows: int,
        due: float,
        within: float,
        since: float = 0.0,
    ) -> None:
        self.inference = inference
        self.promise = promise
        self.rows = rows
        self.due = due
        self.within = within
        self.since = since


class RequestQueue:
    """Waiting requests in the order of their arrival. Times are in seconds of ``monotonic()``."""

    __slots__ = (
        "_max_rows",
        "_max_waiting",
        "_metrics",
        "_most_rows",
        "_rows",
        "_times",
        "_waiting",
    )

    def __init__(
        self, times: BatchTimes, metrics: ServingMetrics, max_rows: int, max_waiting: int
    ) -> None:
        """Start empty.

        Args:
            times: Estimates how long a batch takes.
            metrics: Counts the requests that are rejected later.
            max_rows: Maximum rows of a batch.
            max_waiting: Maximum number of waiting requests.

        """
        self._times = times
        self._metrics = metrics
        self._max_rows = max_rows
        self._max_waiting = max_waiting
        self._most_rows = max_rows * WAITING_BATCHES
        self._waiting: deque[WaitingRequest] = deque()
        self._rows = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, one: WaitingRequest) -> None:
        """Let a request wait."""
        self._waiting.append(one)
        self._rows += one.rows

    def make_room(
        self, rows: int, due: float, now: float, busy: float
    ) -> list[WaitingRequest] | None:
        """Take out the oldest requests until one of so many rows can be answered in time.

        Returns them; the caller rejects them. Returns None, and takes nothing out, if it cannot be.
        ``busy`` is the time (s) until the batch in progress is done.
        """
        waiting = self._waiting
        if len(waiting) >= self._max_waiting or self._rows >= self._most_rows:
            return None
        if due == inf:
            return []
        time = (due - now) / self._times.margin - busy
        if self._times.seconds(self._rows + rows) <= time:
            return []
        if self._times.seconds(rows) > time:
            return None
        count, ahead = 0, self._rows
        for one in waiting:
            if self._times.seconds(ahead + rows) <= time:
                break
            if one.due >= due:
                return None
            count, ahead = count + 1, ahead - one.rows
        return [self._pop() for _ in range(count)]

    def next_batch(self, now: float) -> tuple[list[WaitingRequest], int]:
        """Take the next batch from the queue, and reject what can no longer be answered."""
        waiting = self._waiting
        everything = self._all(now)
        if everything:
            return everything, sum([one.rows for one in everything])
        if not self._in_turn(now):
            return self._newest(now)
        batch: list[WaitingRequest] = []
        doubtful: list[WaitingRequest] = []
        rows, first_due = 0, inf
        while waiting:
            one = waiting[0]
            others = bool(batch) or len(waiting) > 1
            together, due = rows + one.rows, min(first_due, one.due)
            if one.promise.abandoned:
                self._pop().promise.set_exception(client_left())
            elif one.due <= now or (others and not self._fits(one.rows, one.due - now)):
                # A lone request is scored regardless, so that the model is measured again.
                self.reject_late(self._pop(), now)
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

    def _all(self, now: float) -> list[WaitingRequest]:
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

    def _newest(self, now: float) -> tuple[list[WaitingRequest], int]:
        """Take as many of the newest requests as can be scored before the oldest of them is due.

        Rejects those that could not be scored after this batch. The others go on waiting.
        """
        waiting = self._waiting
        batch: list[WaitingRequest] = []
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
                one.promise.set_exception(client_left())
            elif one.due <= now or (not fits and waiting):
                self.reject_late(one, now)
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
                self.reject_late(one, now)
        return batch, rows

    def _pop(self) -> WaitingRequest:
        one = self._waiting.popleft()
        self._rows -= one.rows
        return one

    def _fits(self, rows: int, left: float) -> bool:
        return self._times.seconds(rows) * self._times.margin <= left

    def reject_late(self, one: WaitingRequest, now: float) -> None:
        """Answer 503 to a request that there is no time for, and count why."""
        if one.due <= now:
            self._metrics.timed_out()
            text = f"the request waited over {one.within:g} s for the model: try again"
        else:
            self._metrics.rejected()
            text = "the model has no time left for the request: try again"
        one.promise.set_exception(overloaded(text))

    def pending(self) -> list[float]:
        """Return when the waiting requests are due."""
        return [one.due for one in self._waiting if not one.promise.done()]

    def reject_overdue(self, now: float) -> None:
        """Reject what can no longer be answered, because its time has passed."""
        for one in [one for one in self._waiting if one.due <= now]:
            self._waiting.remove(one)
            self._rows -= one.rows
            self.reject_late(one, now)


def client_left() -> HttpError:
    """Return the error for a request whose client has disconnected; nobody reads it."""
    return HttpError(499, "the client has disconnected")
