"""Remembers the requests that became events, so that a repetition joins the event in progress.

The memory is bounded and belongs to this one gateway. A request that it forgot, or that another
gateway accepted, is published again. That costs only one more scoring, because the worker's
prediction for a key replaces the previous one.

A dead letter is matched to its event by position and id together. The id alone is not enough: a
client may reuse one long after the first event failed. Nor is the position: a recreated stream
counts from the start again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from time import monotonic

from fourways_http import HttpError
from fourways_runtime.io.store.streams.stream import DeadLetterReason, EventPosition
from fourways_runtime.scoring.columns import Key

MAX_ACCEPTED = 65_536
_LOOKED_AFTER = 8
"""Maximum events of one key, newest first, that are checked for dead letters at once."""


class PublishedEvent:
    """A request that was published, and what is known of its event."""

    __slots__ = ("expires", "id", "key", "place", "refused", "taken")

    def __init__(
        self, identity: str, key: Key, expires: float, taken: asyncio.Future[EventPosition | None]
    ) -> None:
        self.id = identity
        self.key = key
        self.expires = expires
        self.taken = taken
        """Done when the broker has accepted the event."""

        self.place: EventPosition | None = None
        """Position of the event, while it may still become a dead letter."""

        self.refused: DeadLetterReason | None = None

    def look_in(self, letters: Mapping[EventPosition, DeadLetterReason]) -> None:
        """Record whether the event is one of these dead letters."""
        letter = letters.get(self.place) if self.place is not None else None
        if letter is not None and letter.id == self.id:
            self.refused, self.place = letter, None


class Accepted:
    """The requests of one deployment that were published and may still be unanswered."""

    def __init__(self, seconds: float, most: int = MAX_ACCEPTED) -> None:
        """``seconds``: how long a request counts as in progress."""
        self._seconds = seconds
        self._most = most
        self._questions: OrderedDict[str, PublishedEvent] = OrderedDict()
        self._by_key: dict[Key, list[PublishedEvent]] = {}
        self._bound: OrderedDict[tuple[str, bytes], tuple[bytes, float]] = OrderedDict()
        """The payload's digest of each idempotency key, and when the key may be reused."""

    def __len__(self) -> int:
        return len(self._questions)

    def bind(self, owned: tuple[str, bytes], payload: bytes) -> None:
        """Bind a caller's idempotency key to what it was sent with.

        Raises HttpError 422 if it is bound to another payload, as
        draft-ietf-httpapi-idempotency-key-header says.
        """
        now = monotonic()
        while self._bound:
            first = next(iter(self._bound))
            if self._bound[first][1] >= now and len(self._bound) < self._most:
                break
            del self._bound[first]
        known = self._bound.setdefault(owned, (payload, now + self._seconds))
        if known[0] != payload:
            raise HttpError(422, "this Idempotency-Key was sent before with another request")

    def newest(self, key: Key) -> PublishedEvent | None:
        """Return the newest event of a key that is in progress or was refused."""
        for question in reversed(self._by_key.get(key, ())):
            if question.taken.done():
                return question if question.expires >= monotonic() else None
        return None

    def unanswered(self, keys: Iterable[Key]) -> list[PublishedEvent]:
        """Return the events of these keys that may have become dead letters."""
        if not self._by_key:
            return []
        return [
            question
            for key in keys
            for question in self._by_key.get(key, ())[-_LOOKED_AFTER:]
            if question.place is not None
        ]

    def answered(self, key: Key) -> None:
        """Stop checking a key's events for dead letters: its prediction takes precedence."""
        for question in self._by_key.get(key, ()):
            question.place = None

    async def once(
        self,
        question: str,
        identity: str,
        key: Key,
        publish: Callable[[], Awaitable[EventPosition | None]],
    ) -> PublishedEvent:
        """Publish an event unless the same one is in progress or was refused; return that one.

        Concurrent callers wait for the same outcome. Raises what publishing raises.
        """
        self._prune()
        known = self._questions.get(question)
        if known is not None:
            # A refusal stays valid as long as a prediction would. The same model would refuse the
            # same inputs again, and an event that kills workers would kill as many again. A broker
            # that drops known ids would drop this event, which would then never get an outcome. To
            # force a retry, a client sends a new idempotency key.
            await asyncio.shield(known.taken)
            return known
        taken = asyncio.ensure_future(publish())
        new = PublishedEvent(identity, key, monotonic() + self._seconds, taken)
        self._questions[question] = new
        self._by_key.setdefault(key, []).append(new)
        taken.add_done_callback(lambda done: self._settle(question, new, done))
        # The client may disconnect meanwhile; the event is published all the same.
        await asyncio.shield(taken)
        return new

    def _prune(self) -> None:
        now = monotonic()
        while self._questions:
            question, oldest = next(iter(self._questions.items()))
            if oldest.expires >= now and len(self._questions) < self._most:
                return
            self._forget(question)

    def _settle(
        self, question: str, new: PublishedEvent, done: asyncio.Future[EventPosition | None]
    ) -> None:
        if done.cancelled() or done.exception() is not None:
            self._forget(question)
        else:
            new.place = done.result()

    def _forget(self, question: str) -> None:
        gone = self._questions.pop(question, None)
        if gone is None:
            return
        of_key = self._by_key[gone.key]
        of_key.remove(gone)
        if not of_key:
            del self._by_key[gone.key]
