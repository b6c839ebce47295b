"""Questions that became events: which are under way, so that asking again is joined to them.

Bounded memory of this one gateway. What it forgets, or another gateway accepted, is published once
more: the worker's answer for a key replaces the one before, so that costs a scoring and no more.

An event is known again by its place in the stream and its id together. The id alone would not do:
a client may give one twice, long after the first event died. Nor would the place: a stream made
anew counts from the start.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from time import monotonic

from fourways_runtime.io.store.streams.stream import DeadLetterReason, EventPosition
from fourways_runtime.scoring.columns import Key

MAX_ACCEPTED = 65_536
_LOOKED_AFTER = 8
"""So many of the questions of one key, the newest, are looked after at once."""


class PublishedEvent:
    """A question that was published, and what is known of its event."""

    __slots__ = ("expires", "id", "key", "place", "refused", "taken")

    def __init__(
        self, identity: str, key: Key, expires: float, taken: asyncio.Future[EventPosition | None]
    ) -> None:
        self.id = identity
        self.key = key
        self.expires = expires
        self.taken = taken
        """Done when the broker has it."""

        self.place: EventPosition | None = None
        """Where the event is, as long as it may turn up among the dead letters."""

        self.refused: DeadLetterReason | None = None

    def look_in(self, letters: Mapping[EventPosition, DeadLetterReason]) -> None:
        """Take note where the event is one of these dead letters."""
        letter = letters.get(self.place) if self.place is not None else None
        if letter is not None and letter.id == self.id:
            self.refused, self.place = letter, None


class Accepted:
    """The questions of one deployment that were published and may not be answered yet."""

    def __init__(self, seconds: float, most: int = MAX_ACCEPTED) -> None:
        """``seconds``: so long a question counts as under way."""
        self._seconds = seconds
        self._most = most
        self._questions: OrderedDict[str, PublishedEvent] = OrderedDict()
        self._by_key: dict[Key, list[PublishedEvent]] = {}

    def __len__(self) -> int:
        return len(self._questions)

    def newest(self, key: Key) -> PublishedEvent | None:
        """Return the newest question of a key that is under way, or was refused."""
        for question in reversed(self._by_key.get(key, ())):
            if question.taken.done():
                return question if question.expires >= monotonic() else None
        return None

    def unanswered(self, keys: Iterable[Key]) -> list[PublishedEvent]:
        """Return the questions of these keys whose events may have become dead letters."""
        if not self._by_key:
            return []
        return [
            question
            for key in keys
            for question in self._by_key.get(key, ())[-_LOOKED_AFTER:]
            if question.place is not None
        ]

    def answered(self, key: Key) -> None:
        """Look after a key's questions no more: it has an answer, which counts."""
        for question in self._by_key.get(key, ()):
            question.place = None

    async def once(
        self,
        question: str,
        identity: str,
        key: Key,
        publish: Callable[[], Awaitable[EventPosition | None]],
    ) -> PublishedEvent:
        """Publish, unless the same question is under way or was refused; return that one.

        Who asks while it is being published waits for the same outcome. Raises what publishing
        raises.
        """
        self._prune()
        known = self._questions.get(question)
        if known is not None:
            # A refusal stands as long as an answer would. The same model would say the same of the
            # same inputs, and an event that kills workers would kill as many again; a broker that
            # drops what has a known id would drop this one, and nothing would ever come of it. Who
            # knows better asks under an idempotency key not used yet.
            await asyncio.shield(known.taken)
            return known
        taken = asyncio.ensure_future(publish())
        new = PublishedEvent(identity, key, monotonic() + self._seconds, taken)
        self._questions[question] = new
        self._by_key.setdefault(key, []).append(new)
        taken.add_done_callback(lambda done: self._settle(question, new, done))
        # Who asked may go away meanwhile; the event is published all the same.
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
