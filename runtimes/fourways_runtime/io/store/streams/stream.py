"""The prediction store, as a stream worker and the readers of its answers see it.

A stream's answers live in one table a deployment: a row an entity key, replaced by the next answer
for it. Beside it the store keeps, for each partition of the source, the position of the next event
to score; both move in one statement, so an event's answer is there exactly when its position has
passed. The store's position wins over the broker's: on a start and on every rebalance.

A position is moved only from where the worker believes it to be. A worker that lost its partition
to another moves nothing and writes nothing: it is told so by :class:`Fenced`.

``attempts`` counts how often scoring was begun from a partition's present position (the column is
``tries``). A worker at full speed leaves 1 behind with each commit, for the batch it has begun
already; an orderly stop takes it back. So an attempt found there means that a worker died while it
scored the events that come next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from fourways_api import Contract
from fourways_runtime.scoring.columns import Key, Predictions

ID_HEADER = "ce-id"
"""Header with an event's id, as CloudEvents names it."""

MODEL = "model: "
"""How the reason of a dead letter begins where it is no fault of a value."""

DIED = f"{MODEL}the worker died over it"
"""How it begins where the event took its workers with it."""


class Fenced(Exception):
    """Another worker has moved a partition on: nothing was written. Ask where it stands."""


@dataclass(frozen=True, slots=True)
class StreamDeclaration:
    """A deployment's stream, as a worker declares it when it starts."""

    namespace: str
    deployment: str
    version: str
    digest: str
    contract: Contract
    source: str
    """Which topic or stream of which broker the positions are of: another one starts anew."""


class EventPosition(NamedTuple):
    """Where an event is in its stream; no other event ever is there."""

    partition: int
    position: int


@dataclass(frozen=True, slots=True)
class Position:
    """Where a partition stands: the next event to score, and how often that was begun."""

    next: int
    attempts: int


@dataclass(frozen=True, slots=True)
class Move:
    """A partition's step, from the position held to the one after the last event done."""

    partition: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that will not be scored, kept whole, with the reason."""

    partition: int
    position: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    attempts: int
    reason: str


class StreamWriter(Protocol):
    """The store as a stream worker sees it (blocking, one call at a time).

    Every call may raise StoreUnavailable. Where a connection breaks before the answer nobody knows
    which side of the commit it broke on: the next call connects anew, and :meth:`positions` says
    where the partitions stand.
    """

    def positions(self, partitions: Mapping[int, int]) -> dict[int, Position]:
        """Say where partitions stand, without counting an attempt.

        ``partitions`` gives, for each, the position to start from where the store knows none.
        """
        ...

    def begin(self, held: Mapping[int, int]) -> dict[int, int]:
        """Count an attempt at partitions at the positions held, durably; return their attempts.

        Called before the first event of a partition is scored, and before each event while events
        are scored individually. Raises Fenced, and counts nothing, where one of them stands
        elsewhere.
        """
        ...

    def send(
        self,
        moves: Sequence[Move],
        predictions: Predictions,
        dead: Sequence[DeadLetter] = (),
        deleted: Sequence[Key] = (),
        *,
        attempts: int = 1,
    ) -> None:
        """Begin to write answers and dead letters and move the positions, all of it or nothing.

        The answers of the keys ``deleted`` are deleted; none of them may be in ``predictions``.

        It is done once :meth:`receive` says so, which is called once for each call of this that
        came back. Of two answers for one key the one with the higher ``rows`` counts. Positions
        moved have ``attempts`` attempts from then on: 1 where the events that follow are in flight
        already. Raises what ``receive`` does, where that is known already.
        """
        ...

    def receive(self) -> None:
        """Wait until the oldest of what was sent is done. Raises Fenced where it was refused."""
        ...

    def move(self, move: Move) -> None:
        """Move one position without events, back or forth. Raises Fenced where it is elsewhere."""
        ...

    def ping(self) -> None:
        """Ask the store for nothing, so that a connection that broke is noticed."""
        ...

    def release(self, held: Mapping[int, int]) -> None:
        """Take back an attempt counted at these positions that ended no worker."""
        ...

    def lead(self) -> bool:
        """Take or keep the lead of this stream; False while another worker has it.

        For sources that do not share out partitions themselves. The lead ends with the connection.
        """
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


@dataclass(frozen=True, slots=True)
class LiveAnswer:
    """A stored answer of a stream."""

    outputs: Mapping[str, Any]
    """Outputs by name, as plain Python values (lists for arrays)."""

    computed_at: datetime
    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class DeadLetterReason:
    """What a dead letter says of its event."""

    id: str | None
    """The event's own, where it came with one."""

    reason: str
    attempts: int


@dataclass(frozen=True, slots=True)
class LiveLookup:
    """The answer to a question by keys: the stream's contract, and an answer for each key found."""

    contract: Contract
    answers: Mapping[Key, LiveAnswer]
    refused: Mapping[EventPosition, DeadLetterReason] = field(default_factory=dict)
    """Of the events asked for, those that are dead letters of the stream's present source."""
