"""The publisher of the gateway's events: requests without a stored answer.

An event is durable when ``publish`` returns, and the broker has reported its position. The broker's
own deduplication is used if it has one: for NATS, the idempotency key (``ce-id``) is the message's
id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ..store.streams.stream import EventPosition

PUBLISH_SECONDS = 2.0
"""Maximum time in seconds for a broker to accept an event."""


class Publisher(Protocol):
    """Publishes events to one source (asyncio, one event loop)."""

    async def connect(self) -> None:
        """Connect now rather than for the first event. Raises as :meth:`publish`."""
        ...

    async def publish(
        self, key: bytes, value: bytes, headers: Mapping[str, bytes]
    ) -> EventPosition | None:
        """Publish an event; it is durable on return.

        Returns its position, or that of the earlier event if the broker dropped this one as a
        duplicate id; None if the broker did not report it.

        Raises:
            BrokerUnavailable, TopicNotFound: within about two seconds. The event may have been
                accepted nevertheless.
            EventTooLarge: the broker does not accept an event of this size; the message names the
                limit.
            ConfigError: the Secret is invalid.

        """
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...
