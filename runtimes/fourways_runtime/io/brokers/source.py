"""A source of events, as the worker sees it, whichever broker is behind.

A source gives events in order within a partition, from the positions it is told. It acknowledges
nothing: the store knows what was done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..store.streams.stream import DeadLetter

Headers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Events:
    """Events in the order they came, in columns."""

    partitions: Sequence[int]
    positions: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Callable[[int], Headers]
    """Headers of the event at an index, read when they are needed: of dead letters only."""

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
        """Tell whether this worker leads the stream, of a source that shares out nothing."""
        ...


class EventSource(Protocol):
    """A broker's topic or stream. All but ``open`` and ``lag`` are called from one thread."""

    identity: str
    """What the positions are of: a topic made anew is another one. Known once it is open."""

    def open(self, seconds: float) -> None:
        """Connect and look the topic up. Raises BrokerUnavailable, TopicNotFound, ConfigError."""
        ...

    def start(self, listener: PartitionListener) -> None:
        """Ask for partitions; they are given to the listener while polling."""
        ...

    def first(self, partition: int) -> int:
        """Return the oldest position there is."""
        ...

    def poll(self, most: int, wait: float, gather: float) -> Events | None:
        """Wait for events: ``wait`` seconds for the first, ``gather`` for the ``most`` - 1 others.

        Raises BrokerUnavailable where the broker is away for good, TopicNotFound where the topic
        is gone.
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

    def lag(self) -> Mapping[int, int]:
        """Return the newest positions known, one past the last event, by partition."""
        ...

    def available(self) -> bool:
        """Tell whether the broker answers, as far as is known."""
        ...

    def close(self) -> None:
        """Give the partitions back and let go of the connection."""
        ...


OUTAGE_SECONDS = 60.0
"""How long a running worker waits for a broker or a store that went away."""
