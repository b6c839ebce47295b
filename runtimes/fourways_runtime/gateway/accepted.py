"""Questions that became events: which are under way, so that asking again is joined to them.

Bounded memory of this one gateway. What it forgets, or another gateway accepted, is published once
more: the worker's answer for a key replaces the one before, so that costs a scoring and no more.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from time import monotonic

from ..store.base import Key

MAX_ACCEPTED = 65_536


class _Entry:
    __slots__ = ("expires", "id", "key", "published")

    def __init__(
        self, identity: str, key: Key, expires: float, published: asyncio.Future[None]
    ) -> None:
        self.id = identity
        self.key = key
        self.expires = expires
        self.published = published


class Accepted:
    """The questions of one deployment that were published and may not be answered yet."""

    def __init__(self, seconds: float, most: int = MAX_ACCEPTED) -> None:
        """``seconds``: so long a question counts as under way."""
        self._seconds = seconds
        self._most = most
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._by_key: dict[Key, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def id_of(self, key: Key) -> str | None:
        """Return the id of a key's question that is under way."""
        entry = self._by_key.get(key)
        if entry is None or entry.expires < monotonic() or not entry.published.done():
            return None
        return entry.id

    async def once(
        self, question: str, identity: str, key: Key, publish: Callable[[], Awaitable[None]]
    ) -> str:
        """Publish, unless the same question is under way; return the id it is under way with.

        Who asks while it is being published waits for the same outcome. Raises what publishing
        raises.
        """
        self._prune()
        entry = self._entries.get(question)
        if entry is not None:
            await asyncio.shield(entry.published)
            return entry.id
        published = asyncio.ensure_future(publish())
        entry = _Entry(identity, key, monotonic() + self._seconds, published)
        self._entries[question] = self._by_key[key] = entry
        published.add_done_callback(lambda done: self._settle(question, done))
        # Who asked may go away meanwhile; the event is published all the same.
        await asyncio.shield(published)
        return identity

    def _prune(self) -> None:
        now = monotonic()
        while self._entries:
            question, entry = next(iter(self._entries.items()))
            if entry.expires >= now and len(self._entries) < self._most:
                return
            self._forget(question)

    def _settle(self, question: str, done: asyncio.Future[None]) -> None:
        if done.cancelled() or done.exception() is not None:
            self._forget(question)

    def _forget(self, question: str) -> None:
        entry = self._entries.pop(question, None)
        if entry is not None and self._by_key.get(entry.key) is entry:
            del self._by_key[entry.key]
