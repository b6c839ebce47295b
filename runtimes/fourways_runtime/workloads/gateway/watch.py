"""Waits for predictions that a stream has not made yet, with one lookup for all waiting requests.

Owns the polling interval. A burst of waiting requests polls the store no more often than one does.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from itertools import chain

from fourways_api.backoff import Backoff
from fourways_http import HttpError, Request
from fourways_runtime.io.store.streams.stream import AnswerKey, LiveAnswer

from .accepted import PublishedEvent

MAX_WAIT_SECONDS = 30
FIRST_PAUSE, LONGEST_PAUSE, GROWTH = 0.01, 0.1, 1.5
MAX_KEYS = 10_000
"""Maximum keys and questions waited for at the same time; beyond it, requests do not wait."""

_WAIT = re.compile(rb"(?:^|[,;\s])wait\s*=\s*\"?([0-9]{1,6})", re.IGNORECASE)

Look = Callable[[list[AnswerKey], list[PublishedEvent]], Awaitable[Mapping[AnswerKey, LiveAnswer]]]
"""Looks up predictions, and marks the events that became dead letters."""


class _Waiter:
    """A request waiting for predictions. Unless patient, the first dead letter ends the wait."""

    __slots__ = ("answers", "done", "left", "patient", "wanted")

    def __init__(
        self,
        wanted: Mapping[AnswerKey, PublishedEvent | None],
        patient: bool,
        done: asyncio.Future[None],
    ) -> None:
        self.wanted = wanted
        self.patient = patient
        self.done = done
        self.answers: dict[AnswerKey, LiveAnswer] = {}
        self.left = {each for each, event in wanted.items() if not _is_refused(event)}
        if not self.left or (len(self.left) < len(wanted) and not patient):
            self.let_go()

    def tell(self, key: AnswerKey, answer: LiveAnswer | None) -> None:
        """Record an answer, or that there will be none."""
        self.left.discard(key)
        if answer is not None:
            self.answers[key] = answer
        if not self.left or (answer is None and not self.patient):
            self.let_go()

    def let_go(self) -> None:
        """End the wait."""
        if not self.done.done():
            self.done.set_result(None)


class AnswerWatch:
    """Polls for the predictions of one deployment that requests wait for."""

    def __init__(self, look: Look, draining: Callable[[], bool]) -> None:
        self._look = look
        self._draining = draining
        self._awaited: dict[AnswerKey, list[_Waiter]] = {}
        self._task: asyncio.Task[None] | None = None
        self._backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE, growth=GROWTH)

    async def wait(
        self, wanted: Mapping[AnswerKey, PublishedEvent | None], seconds: float, patient: bool
    ) -> dict[AnswerKey, LiveAnswer]:
        """Wait for all of these predictions, for at most ``seconds``; return those found.

        The wait ends early if the event of one is refused. If ``patient``, it continues for the
        others.
        """
        if self._draining() or len(self._awaited) + len(wanted) > MAX_KEYS:
            return {}
        loop = asyncio.get_running_loop()
        waiter = _Waiter(wanted, patient, loop.create_future())
        if waiter.done.done():
            return {}
        for each in waiter.left:
            self._awaited.setdefault(each, []).append(waiter)
        self._backoff.reset()
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run())
        try:
            await asyncio.wait({waiter.done}, timeout=seconds)
        finally:
            for each in wanted:
                self._leave(each, waiter)
        return waiter.answers

    def close(self) -> None:
        """End all waits."""
        if self._task is not None:
            self._task.cancel()
        self._let_go()

    def _leave(self, key: AnswerKey, waiter: _Waiter) -> None:
        waiting = self._awaited.get(key)
        if waiting is not None and waiter in waiting:
            waiting.remove(waiter)
            if not waiting:
                del self._awaited[key]

    def _let_go(self) -> None:
        for waiter in chain.from_iterable(self._awaited.values()):
            waiter.let_go()
        self._awaited.clear()

    async def _run(self) -> None:
        while self._awaited:
            await asyncio.sleep(self._backoff.pause())
            if self._draining():
                self._let_go()
                return
            events = self._awaited_events()
            try:
                found = await self._look(list(self._awaited), events)
            except HttpError:
                continue  # the store is down; each request's own time limit still ends its wait
            for each, answer in found.items():
                for waiter in self._awaited.pop(each, ()):
                    waiter.tell(each, answer)
            for event in events:
                if event.refused is not None:
                    self._refused(event)

    def _awaited_events(self) -> list[PublishedEvent]:
        events: dict[PublishedEvent, None] = {}
        for each, waiting in self._awaited.items():
            for waiter in waiting:
                event = waiter.wanted[each]
                if event is not None:
                    events[event] = None
        return list(events)

    def _refused(self, event: PublishedEvent) -> None:
        """Notify the requests waiting for this event, but not those with another for its key."""
        for each in (event.question, event.key):
            for waiter in tuple(self._awaited.get(each, ())):
                if waiter.wanted[each] is event:
                    self._leave(each, waiter)
                    waiter.tell(each, None)


def _is_refused(event: PublishedEvent | None) -> bool:
    return event is not None and event.refused is not None


def preferred_wait(request: Request) -> int | None:
    """Return the seconds of ``Prefer: wait=N`` (RFC 7240), at most 30; None without one."""
    for name, value in request.headers:
        if len(name) == 6 and name.lower() == b"prefer" and (found := _WAIT.search(value)):
            return min(int(found[1]), MAX_WAIT_SECONDS) or None
    return None
