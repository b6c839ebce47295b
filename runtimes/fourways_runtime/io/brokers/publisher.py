"""Events as the gateway publishes them: a request without a stored answer.

An event is durable when ``publish`` returns, and the broker has said where it is. The broker's own
de-duplication is used where it has one: NATS takes the idempotency key (``ce-id``) as the message's
id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ..store.streams.stream import EventPosition

PUBLISH_SECONDS = 2.0
"""How long a broker has to take an event."""


class Publisher(Protocol):
    """Publishes events to one source (asyncio, one event loop)."""

    async def connect(self) -> None:
        """Connect now rather than when the first event comes. Raises as :meth:`publish`."""
        ...

    async def publish(
        self, key: bytes, value: bytes, headers: Mapping[str, bytes]
    ) -> EventPosition | None:
        """Publish an event; it is durable on return.

        Returns its place, or that of the one before it where the broker dropped it for having
        the same id; None where the broker did not say.

        Raises:
            BrokerUnavailable, TopicNotFound: within about two seconds. The event may have been
                taken all the same.
            EventTooLarge: the broker takes no event of this size; the message names the limit.
            ConfigError: the Secret makes no sense.

        """
        ...

    async def close(self) -> None:
        """Let go of the connection."""
        ...
