"""A source of events, as the worker sees it, whichever broker is behind.

A source gives events in order within a partition, from the positions it is told. It acknowledges
nothing: the store knows what was done.

What is known of a broker's object (that it is there, which one it is, how it keeps its events) is
looked at again while the worker runs, by :meth:`EventSource.check`: topics and streams are deleted
and made anew, and their settings are changed, without a word to their readers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ..store.streams.stream import DeadLetter

Headers = tuple[tuple[str, bytes], ...]

OUTAGE_SECONDS = 60.0
"""How long a running worker waits for a broker or a store that is unavailable."""

ABSENT_SECONDS = 10.0
"""How long a running worker waits for a topic or stream that is gone: it may be made anew."""


class SourceReplaced(Exception):
    """The topic or stream was deleted and made anew: the positions are of another one."""


class PositionsOutOfRange(Exception):
    """The log does not reach to where the worker reads: it was cut off, or restored."""


class LogBounds(NamedTuple):
    """Which positions a partition's log holds."""

    oldest: int
    end: int
    """One past the newest."""


@dataclass(frozen=True, slots=True)
class Events:
    """Events in the order they came, in columns."""

    partitions: Sequence[int]
    positions: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    """None: the event is a tombstone, and the answer for its key is to be deleted."""

    headers: Callable[[int], Headers]
    """Headers of the event at an index, read when they are needed: of dead letters only."""

    time: Callable[[int], float | None] = lambda at: None
    """When the event at an index was published (s since 1970), if the broker says so."""

    def __len__(self) -> int:
        return len(self.values)

    def chosen(self, indices: Sequence[int]) -> Events:
        """Return some of the events."""
        return Events(
            [self.partitions[at] for at in indices],
            [self.positions[at] for at in indices],
            [self.keys[at] for at in indices],
            [self.values[at] for at in indices],
            lambda at: self.headers(indices[at]),
            lambda at: self.time(indices[at]),
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


class PartitionListener(Protocol):
    """Who works on a source's partitions. Called from within :meth:`EventSource.poll`."""

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """Take partitions; return the positions to start from."""
        ...

    def revoked(self, partitions: Sequence[int]) -> None:
        """Give partitions up: on return nothing of them is in flight."""
        ...

    def leads(self) -> bool:
        """Tell whether this worker leads the stream, of a source that does not assign."""
        ...


class EventSource(Protocol):
    """A broker's topic or stream.

    ``open`` comes first; ``newest``, ``check`` and ``problem`` may be called from any thread, and
    all else from one.
    """

    identity: str
    """What the positions are of: a topic made anew is another one. Known once it is open."""

    def open(self, seconds: float) -> None:
        """Connect and look the topic up.

        Raises:
            BrokerUnavailable: no broker answers, or it refuses the login.
            TopicNotFound: there is no such topic.
            RetentionLosesEvents: its events do not stay until they are scored.
            ConfigError: the Secret is missing or makes no sense.

        """
        ...

    def start(self, listener: PartitionListener) -> None:
        """Ask for partitions; they are given to the listener while polling."""
        ...

    def bounds(self, partition: int) -> LogBounds:
        """Ask the broker which positions there are. Raises BrokerUnavailable and SourceReplaced."""
        ...

    def poll(self, most: int, wait: float, gather: float) -> Events | None:
        """Wait for events: ``wait`` seconds for the first, ``gather`` for the ``most`` - 1 others.

        Raises:
            BrokerUnavailable: the broker has been away for too long.
            TopicNotFound: the topic is gone and was not made anew.
            RetentionLosesEvents: its settings were changed to ones that lose events.
            SourceReplaced: the topic was made anew.
            PositionsOutOfRange: seek to positions within the bounds.

        """
        ...

    def idle(self, seconds: float) -> None:
        """Let time pass without taking events, alive in the broker's eyes."""
        ...

    def held(self) -> Sequence[int]:
        """Return the partitions this worker has."""
        ...

    def seek(self, positions: Mapping[int, int]) -> None:
        """Go on from these positions."""
        ...

    def passed(self, positions: Mapping[int, int]) -> None:
        """Tell the broker how far the store is, for those who watch it there."""
        ...

    def newest(self) -> Mapping[int, int]:
        """Ask the broker for the newest positions, one past the last event, by partition held.

        Raises BrokerUnavailable within seconds.
        """
        ...

    def check(self) -> None:
        """Ask the broker whether topic and settings are what they were; :meth:`poll` raises.

        Raises BrokerUnavailable within seconds.
        """
        ...

    def problem(self) -> str:
        """Return why no events can be read now, as far as is known, or nothing."""
        ...

    def close(self) -> None:
        """Give the partitions back and let go of the connection."""
        ...
