"""The interface of a source of events for the worker, whatever the broker.

A source delivers events in order within a partition, from the positions it is given. It
acknowledges nothing: the store records what was done.

The state of a broker's topic or stream (whether it exists, its identity, how it keeps its events)
is checked again while the worker runs, by :meth:`EventSource.check`: topics and streams are deleted
and recreated, and their settings change, without notice to their readers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ..store.streams.stream import QUESTION_HEADER, DeadLetter

Headers = tuple[tuple[str, bytes], ...]

QUESTION_DIGITS = 32
"""Number of hexadecimal digits of a request's digest; a header of another length is none."""

OUTAGE_SECONDS = 90.0
"""Seconds that a running worker waits for a broker or a store that is unavailable.

More than the minute that a restart or failover of a database takes: an exit costs more than a wait,
because Kubernetes restarts a container later each time.
"""

ABSENT_SECONDS = 10.0
"""Seconds that a running worker waits for a topic or stream that is gone: it may be recreated."""


class SourceEnded(Exception):
    """This source cannot be read any more; the worker must open a new one at the same positions."""


class SourceReplaced(SourceEnded):
    """The topic or stream was deleted and recreated: the positions belong to the old one."""


class PositionsOutOfRange(Exception):
    """The log does not contain the worker's position: it was truncated or restored."""


class LogBounds(NamedTuple):
    """The positions that a partition's log contains."""

    oldest: int
    end: int
    """The position after the newest."""


@dataclass(frozen=True, slots=True)
class Events:
    """Events in order of arrival, in columns."""

    partitions: Sequence[int]
    positions: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    """None: the event is a tombstone, and the stored prediction of its key must be deleted."""

    headers: Callable[[int], Headers]
    """The headers of the event at an index, read on demand: only dead letters need them."""

    time: Callable[[int], float | None] = lambda at: None
    """When the event at an index was published (s since 1970), if the broker reports it."""

    asked: Callable[[], Mapping[int, bytes]] = dict
    """The digests of the requests that gateways published events for, by index."""

    def __len__(self) -> int:
        return len(self.values)

    def chosen(self, indices: Sequence[int]) -> Events:
        """Return some of the events."""
        asked = self.asked()
        digests = {new: asked[old] for new, old in enumerate(indices) if old in asked}
        return Events(
            [self.partitions[at] for at in indices],
            [self.positions[at] for at in indices],
            [self.keys[at] for at in indices],
            [self.values[at] for at in indices],
            lambda at: self.headers(indices[at]),
            lambda at: self.time(indices[at]),
            lambda: digests,
        )

    def dead(self, at: int, reason: str, attempts: int) -> DeadLetter:
        """Return an event as a dead letter."""
        return DeadLetter(
            self.partitions[at],
            self.positions[at],
            self.keys[at],
            self.values[at],
            self.headers(at),
            attempts,
            reason,
        )


def question_in(headers: Headers) -> bytes | None:
    """Return the digest of the request that a gateway published an event for, if it is one."""
    for name, value in headers:
        if name == QUESTION_HEADER and value is not None and len(value) == QUESTION_DIGITS:
            try:
                return bytes.fromhex(value.decode("ascii"))
            except ValueError:
                return None
    return None


class PartitionListener(Protocol):
    """The user of a source's partitions. Called from within :meth:`EventSource.poll`."""

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """Take over partitions; return the positions to start from."""
        ...

    def revoked(self, partitions: Sequence[int]) -> None:
        """Give partitions up: on return none of their events is in flight."""
        ...

    def leads(self) -> bool:
        """Tell whether this worker leads the stream, for a source without partition assignment."""
        ...


class EventSource(Protocol):
    """A broker's topic or stream.

    ``open`` comes first; ``newest``, ``check`` and ``problem`` may be called from any thread, and
    everything else from a single thread.
    """

    identity: str
    """What the positions belong to: a recreated topic has another identity. Known after open."""

    def open(self, seconds: float) -> None:
        """Connect and look up the topic.

        Raises:
            BrokerUnavailable: no broker responds, or it refuses the login.
            TopicNotFound: the topic does not exist.
            RetentionLosesEvents: its events are not kept until they are scored.
            ConfigError: the Secret is missing or invalid.

        """
        ...

    def start(self, listener: PartitionListener) -> None:
        """Request partitions; the listener receives them during polls."""
        ...

    def bounds(self, partition: int) -> LogBounds:
        """Request the range of positions. Raises BrokerUnavailable and SourceReplaced."""
        ...

    def poll(self, most: int, wait: float, gather: float) -> Events | None:
        """Wait for events: ``wait`` seconds for the first, ``gather`` for the ``most`` - 1 others.

        Raises:
            BrokerUnavailable: the broker has been unavailable for too long.
            TopicNotFound: the topic is gone and was not recreated.
            RetentionLosesEvents: its settings were changed to ones that lose events.
            SourceReplaced: the topic was recreated.
            SourceEnded: the broker does not accept this client any more, or its Secret changed.
            PositionsOutOfRange: seek to positions within the bounds.

        """
        ...

    def read_up_to(self) -> Mapping[int, int]:
        """Return, by partition, positions that were read up to since the last call.

        All events before were returned by :meth:`poll`. The position can be above that of the last
        event: some hold no event of ours (markers of transactions, events of other subjects).
        """
        ...

    def idle(self, seconds: float) -> None:
        """Wait without taking events, but stay alive for the broker."""
        ...

    def held(self) -> Sequence[int]:
        """Return the partitions of this worker."""
        ...

    def seek(self, positions: Mapping[int, int]) -> None:
        """Continue from these positions."""
        ...

    def passed(self, positions: Mapping[int, int]) -> None:
        """Report the store's positions to the broker, for monitoring there."""
        ...

    def newest(self) -> Mapping[int, int]:
        """Request the newest positions from the broker, one past the last event, by partition held.

        Raises BrokerUnavailable within seconds.
        """
        ...

    def check(self) -> None:
        """Check that the topic and its settings are unchanged; :meth:`poll` raises if they are not.

        Raises BrokerUnavailable within seconds.
        """
        ...

    def problem(self) -> str:
        """Return the known reason why no events can be read now, or an empty text."""
        ...

    def close(self) -> None:
        """Give the partitions back and close the connection."""
        ...
