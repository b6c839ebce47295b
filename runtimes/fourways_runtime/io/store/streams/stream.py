"""The prediction store's interface for stream workers and for readers of their predictions.

A stream's predictions are in one table per deployment: one row per entity key, replaced by the next
prediction for it. The store also keeps, for each partition of the source, the position of the next
event to score. Both change in one statement, so an event's prediction is there exactly when the
position has passed it. The store's position takes precedence over the broker's, at every start and
every rebalance.

A position is moved only from where the worker believes it to be. A worker that has lost its
partition to another moves nothing and writes nothing; its call raises :class:`Fenced`.

An event that a gateway published for a request has the digest of the request's key and inputs, its
*question*. The prediction is also kept by question, for as long as it is fresh: requests with
inputs are answered from there, so none gets the prediction for other inputs.

``attempts`` counts how often scoring was started from a partition's current position (the column is
``tries``). A worker at full speed leaves 1 behind with each commit, for the batch that it has
already started; an orderly stop takes it back. So an attempt found there means that a worker died
while it scored the next events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from fourways_api import Contract
from fourways_runtime.scoring.columns import Key, Predictions

from ..past import Compared

ID_HEADER = "ce-id"
"""Name of the header with an event's id, as in CloudEvents."""

QUESTION_HEADER = "fourways-question"
"""Name of the header with the digest of the key and inputs that a gateway was asked with, in
hexadecimal digits."""

AnswerKey = Key | bytes
"""What is looked up: an entity key, for its newest prediction, or the digest of a question."""

MODEL = "model: "
"""Prefix of a dead letter's reason if no value of the event is at fault."""

DIED = f"{MODEL}the worker died over it"
"""Prefix of the reason if the event crashed its workers."""


class Fenced(Exception):
    """Another worker has moved a partition: nothing was written. Read the positions again."""


@dataclass(frozen=True, slots=True)
class StreamDeclaration:
    """A deployment's stream, as a worker declares it when it starts."""

    namespace: str
    deployment: str
    version: str
    digest: str
    contract: Contract
    source: str
    """The broker and its topic or stream that the positions refer to: a new one starts over."""

    freshness_seconds: float = 300.0
    """How long predictions are kept by question."""

    compared: Compared | None = None
    """What is compared with labels later: these predictions are also kept as past ones, with the
    statement that writes them (:mod:`..past`). None: past predictions are deleted."""


class EventPosition(NamedTuple):
    """The position of an event in its stream; no two events share one."""

    partition: int
    position: int


@dataclass(frozen=True, slots=True)
class Position:
    """A partition's position: the next event to score, and the attempts counted there."""

    next: int
    attempts: int


@dataclass(frozen=True, slots=True)
class Move:
    """A partition's move, from the held position to the one after the last completed event."""

    partition: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that will not be scored, kept completely, with the reason."""

    partition: int
    position: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    attempts: int
    reason: str


@dataclass(frozen=True, slots=True)
class QuestionAnswer:
    """A prediction for the key and inputs of one request."""

    question: bytes
    """The digest of the key and inputs."""

    key: str
    outputs: str
    """A JSON object: the outputs by name, arrays as nested lists."""


class StreamWriter(Protocol):
    """The store as a stream worker sees it (blocking, one call at a time).

    Every call may raise StoreUnavailable. If a connection breaks before the answer, it is unknown
    whether the commit took effect: the next call reconnects, and :meth:`positions` returns the
    actual positions.
    """

    def positions(self, partitions: Mapping[int, int]) -> dict[int, Position]:
        """Return the positions of partitions, without counting an attempt.

        ``partitions`` gives, for each, the position to start from if the store has none.
        """
        ...

    def begin(self, held: Mapping[int, int]) -> dict[int, int]:
        """Durably count an attempt at the held positions; return the attempts by partition.

        Called before the first event of a partition is scored, and before each event while events
        are scored individually. Raises Fenced, and counts nothing, if one of the partitions is at
        another position.
        """
        ...

    def send(
        self,
        moves: Sequence[Move],
        predictions: Predictions,
        dead: Sequence[DeadLetter] = (),
        deleted: Sequence[Key] = (),
        answered: Sequence[QuestionAnswer] = (),
        *,
        attempts: int = 1,
    ) -> None:
        """Start writing predictions and dead letters and moving the positions, all or nothing.

        The predictions of the keys ``deleted`` are deleted; none of them may be in ``predictions``.
        ``answered`` are those of the predictions that are kept by question as well, one each.

        The write is complete once :meth:`receive` returns; call it once for each ``send`` that
        returned. Of two predictions for one key, the one with the higher ``rows`` counts. The new
        positions have ``attempts`` attempts: 1 if the events that follow are already in flight.
        Raises what ``receive`` raises, if that is already known.
        """
        ...

    def receive(self) -> None:
        """Wait until the oldest write sent is complete. Raises Fenced if it was refused."""
        ...

    def move(self, move: Move) -> None:
        """Move one position without events, back or forth. Raises Fenced if it has changed."""
        ...

    def ping(self) -> None:
        """Send an empty query, so that a broken connection is noticed."""
        ...

    def release(self, held: Mapping[int, int]) -> None:
        """Take back an attempt counted at these positions over which no worker died."""
        ...

    def lead(self) -> bool:
        """Acquire or keep the leadership of this stream; False while another worker has it.

        For sources that do not assign partitions themselves. The leadership ends with the
        connection.
        """
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


@dataclass(frozen=True, slots=True)
class LiveAnswer:
    """A stored prediction of a stream."""

    outputs: Mapping[str, Any]
    """Outputs by name, as plain Python values (lists for arrays)."""

    computed_at: datetime
    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class DeadLetterReason:
    """What a dead letter records about its event."""

    id: str | None
    """The event's own id, if it has one."""

    reason: str
    attempts: int


@dataclass(frozen=True, slots=True)
class LiveLookup:
    """The result of a lookup: the stream's contract, and a prediction per key or question found."""

    contract: Contract
    answers: Mapping[AnswerKey, LiveAnswer]
    refused: Mapping[EventPosition, DeadLetterReason] = field(default_factory=dict)
    """Those of the requested events that are dead letters of the stream's current source."""
