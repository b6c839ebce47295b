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
from fourways_runtime.io.store.streams.stream import AnswerKey, DeadLetterReason, EventPosition
from fourways_runtime.scoring.columns import Key

MAX_ACCEPTED = 65_536
_LOOKED_AFTER = 8
"""Maximum events of one key, newest first, that are checked for dead letters at once."""


class PublishedEvent:
    """A request that was published, and what is known of its event."""

    __slots__ = ("expires", "id", "key", "place", "question", "refused", "taken")

    def __init__(
        self,
        identity: str,
        key: Key,
        question: bytes,
        expires: float,
        taken: asyncio.Future[EventPosition | None],
    ) -> None:
        self.id = identity
        self.key = key
        self.question = question
        """The digest of the key and inputs."""

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
        self._known: OrderedDict[str, PublishedEvent] = OrderedDict()
        self._by: dict[AnswerKey, list[PublishedEvent]] = {}
        """The events of each key and of each question, oldest first."""

        self._bound: OrderedDict[tuple[str, bytes], tuple[bytes, float]] = OrderedDict()
        """The payload's digest of each idempotency key, and when the key may be reused."""

    def __len__(self) -> int:
        return len(self._known)

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

    def newest(self, key: AnswerKey) -> PublishedEvent | None:
        """Return the newest event of a key or question that is in progress or was refused."""
        for event in reversed(self._by.get(key, ())):
            if event.taken.done():
                return event if event.expires >= monotonic() else None
        return None

    def unanswered(self, keys: Iterable[AnswerKey]) -> list[PublishedEvent]:
        """Return the events of these keys and questions that may have become dead letters."""
        if not self._by:
            return []
        return [
            event
            for each in keys
            for event in self._by.get(each, ())[-_LOOKED_AFTER:]
            if event.place is not None
        ]

    def answered(self, key: AnswerKey) -> None:
        """Stop checking a question's events for dead letters: its prediction takes precedence.

        The prediction of a key may be that for other inputs, so it says nothing of an event.
        """
        if isinstance(key, bytes):
            for event in self._by.get(key, ()):
                event.place = None

    async def once(
        self,
        same: str,
        identity: str,
        key: Key,
        question: bytes,
        publish: Callable[[], Awaitable[EventPosition | None]],
    ) -> PublishedEvent:
        """Publish an event unless the same one is in progress or was refused; return that one.

        Events are the same if their ``same`` is. Concurrent callers wait for the same outcome.
        Raises what publishing raises.
        """
        self._prune()
        known = self._known.get(same)
        if known is not None:
            # A refusal stays valid as long as a prediction would. The same model would refuse the
            # same inputs again, and an event that kills workers would kill as many again. A broker
            # that drops known ids would drop this event, which would then never get an outcome. To
            # force a retry, a client sends a new idempotency key.
            await asyncio.shield(known.taken)
            return known
        taken = asyncio.ensure_future(publish())
        new = PublishedEvent(identity, key, question, monotonic() + self._seconds, taken)
        self._known[same] = new
        for asked in (key, question):
            self._by.setdefault(asked, []).append(new)
        taken.add_done_callback(lambda done: self._settle(same, new, done))
        # The client may disconnect meanwhile; the event is published all the same.
        await asyncio.shield(taken)
        return new

    def _prune(self) -> None:
        now = monotonic()
        while self._known:
            same, oldest = next(iter(self._known.items()))
            if oldest.expires >= now and len(self._known) < self._most:
                return
            self._forget(same)

    def _settle(
        self, same: str, new: PublishedEvent, done: asyncio.Future[EventPosition | None]
    ) -> None:
        if done.cancelled() or done.exception() is not None:
            self._forget(same)
        else:
            new.place = done.result()

    def _forget(self, same: str) -> None:
        gone = self._known.pop(same, None)
        if gone is None:
            return
        for asked in (gone.key, gone.question):
            events = self._by[asked]
            events.remove(gone)
            if not events:
                del self._by[asked]
