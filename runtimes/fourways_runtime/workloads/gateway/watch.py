"""Waits for predictions that a stream has not made yet, with one lookup for all waiting requests.

Owns the polling interval. A burst of waiting requests polls the store no more often than one does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from itertools import chain

from fourways_api.backoff import Backoff
from fourways_http import HttpError
from fourways_runtime.io.store.streams.stream import LiveAnswer
from fourways_runtime.scoring.columns import Key

from .accepted import PublishedEvent

FIRST_PAUSE, LONGEST_PAUSE, GROWTH = 0.01, 0.1, 1.5
MAX_KEYS = 10_000
"""Maximum keys waited for at the same time; beyond it, requests do not wait."""

Look = Callable[[list[Key], list[PublishedEvent]], Awaitable[Mapping[Key, LiveAnswer]]]
"""Looks up predictions, and marks the events that became dead letters."""


class _Waiter:
    """A request waiting for keys. Unless it is patient, the first dead letter ends the wait."""

    __slots__ = ("answers", "asked", "done", "left", "patient")

    def __init__(
        self, asked: Mapping[Key, PublishedEvent | None], patient: bool, done: asyncio.Future[None]
    ) -> None:
        self.asked = asked
        self.patient = patient
        self.done = done
        self.answers: dict[Key, LiveAnswer] = {}
        self.left = {key for key, question in asked.items() if not _is_refused(question)}
        if not self.left or (len(self.left) < len(asked) and not patient):
            self.let_go()

    def tell(self, key: Key, answer: LiveAnswer | None) -> None:
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
    """Polls for the keys of one deployment that requests wait for."""

    def __init__(self, look: Look, draining: Callable[[], bool]) -> None:
        self._look = look
        self._draining = draining
        self._awaited: dict[Key, list[_Waiter]] = {}
        self._task: asyncio.Task[None] | None = None
        self._backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE, growth=GROWTH)

    async def wait(
        self, asked: Mapping[Key, PublishedEvent | None], seconds: float, patient: bool
    ) -> dict[Key, LiveAnswer]:
        """Wait for all of these keys, for at most ``seconds``; return the answers found.

        The wait ends early if a key's event is refused. If ``patient``, it continues for the
        other keys.
        """
        if self._draining() or len(self._awaited) + len(asked) > MAX_KEYS:
            return {}
        loop = asyncio.get_running_loop()
        waiter = _Waiter(asked, patient, loop.create_future())
        if waiter.done.done():
            return {}
        for key in waiter.left:
            self._awaited.setdefault(key, []).append(waiter)
        self._backoff.reset()
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run())
        try:
            await asyncio.wait({waiter.done}, timeout=seconds)
        finally:
            for key in asked:
                self._leave(key, waiter)
        return waiter.answers

    def close(self) -> None:
        """End all waits."""
        if self._task is not None:
            self._task.cancel()
        self._let_go()

    def _leave(self, key: Key, waiter: _Waiter) -> None:
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
            asked = self._asked()
            try:
                found = await self._look(list(self._awaited), asked)
            except HttpError:
                continue  # the store is down; each request's own time limit still ends its wait
            for key, answer in found.items():
                for waiter in self._awaited.pop(key, ()):
                    waiter.tell(key, answer)
            for question in asked:
                if question.refused is not None:
                    self._refused(question)

    def _asked(self) -> list[PublishedEvent]:
        asked: dict[PublishedEvent, None] = {}
        for key, waiting in self._awaited.items():
            for waiter in waiting:
                question = waiter.asked[key]
                if question is not None:
                    asked[question] = None
        return list(asked)

    def _refused(self, question: PublishedEvent) -> None:
        """Notify the requests waiting for this event, but not those with another for its key."""
        for waiter in tuple(self._awaited.get(question.key, ())):
            if waiter.asked[question.key] is question:
                self._leave(question.key, waiter)
                waiter.tell(question.key, None)


def _is_refused(question: PublishedEvent | None) -> bool:
    return question is not None and question.refused is not None
