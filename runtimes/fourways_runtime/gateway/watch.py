"""Waiting for answers a stream has not given yet: one look at the store for all who wait.

Owns how often it is looked. A burst of waiting requests asks no more often than a single one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from ..http import HttpError
from ..store.base import Key
from ..store.stream import LiveAnswer

FIRST_PAUSE, LONGEST_PAUSE, GROWTH = 0.01, 0.1, 1.5
MAX_KEYS = 10_000
"""Keys that are waited for at the same time; beyond, nobody is held."""

Look = Callable[[list[Key]], Awaitable[Mapping[Key, LiveAnswer]]]


class Watch:
    """Looks for the keys of one deployment that requests wait for."""

    def __init__(self, look: Look, draining: Callable[[], bool]) -> None:
        self._look = look
        self._draining = draining
        self._awaited: dict[Key, list[asyncio.Future[LiveAnswer]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._pause = FIRST_PAUSE

    async def wait(self, keys: Sequence[Key], seconds: float) -> dict[Key, LiveAnswer]:
        """Wait for all of these keys, for ``seconds`` at most; return the answers there are."""
        if self._draining() or len(self._awaited) + len(keys) > MAX_KEYS:
            return {}
        loop = asyncio.get_running_loop()
        futures: dict[Key, asyncio.Future[LiveAnswer]] = {key: loop.create_future() for key in keys}
        for key, future in futures.items():
            self._awaited.setdefault(key, []).append(future)
        self._pause = FIRST_PAUSE
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run())
        try:
            await asyncio.wait(futures.values(), timeout=seconds)
        finally:
            self._leave(futures)
        return {
            key: future.result()
            for key, future in futures.items()
            if future.done() and not future.cancelled()
        }

    def close(self) -> None:
        """Let all who wait go."""
        if self._task is not None:
            self._task.cancel()
        self._let_go()

    def _leave(self, futures: Mapping[Key, asyncio.Future[LiveAnswer]]) -> None:
        for key, future in futures.items():
            waiting = self._awaited.get(key)
            if waiting is not None and future in waiting:
                waiting.remove(future)
                if not waiting:
                    del self._awaited[key]

    def _let_go(self) -> None:
        for waiting in self._awaited.values():
            for future in waiting:
                future.cancel()
        self._awaited.clear()

    async def _run(self) -> None:
        while self._awaited:
            await asyncio.sleep(self._pause)
            self._pause = min(self._pause * GROWTH, LONGEST_PAUSE)
            if self._draining():
                self._let_go()
                return
            try:
                found = await self._look(list(self._awaited))
            except HttpError:
                continue  # the store is away; who waits does so for its own time only
            for key, answer in found.items():
                for future in self._awaited.pop(key, ()):
                    if not future.done():
                        future.set_result(answer)
