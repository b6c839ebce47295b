"""Events published to a NATS JetStream stream."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import nats.errors
import nats.js.errors
from nats.aio.client import Client

from fourways_api import Paths
from fourways_api.modes import NatsSource
from fourways_runtime.errors import EventTooLarge

from ..store.streams.stream import ID_HEADER, EventPosition
from .nats_client import KEY_HEADER, connect, key_text, literal, stream_info, unavailable
from .publisher import PUBLISH_SECONDS

_MESSAGE_TOO_LARGE = 10054
"""JetStream's error code for a message above the stream's max_msg_size."""


class NatsPublisher:
    """Publishes to a JetStream stream, and awaits its acknowledgement."""

    def __init__(self, source: NatsSource, paths: Paths) -> None:
        self._source = source
        self._paths = paths
        self._opening = asyncio.Lock()
        self._client: Client | None = None
        self._subject = literal(source.subject)
        self._stream: str | None = source.stream
        """The stream that accepts our events, if known; for a mirror it is the mirror's origin."""

        self._numbered = True
        """Whether the acknowledged position is one in our stream."""

    async def connect(self) -> None:
        """Connect now rather than for the first event."""
        await self._opened()

    async def publish(
        self, key: bytes, value: bytes, headers: Mapping[str, bytes]
    ) -> EventPosition | None:
        """Publish an event; it is durable on return."""
        sent = {name: text.decode("latin-1") for name, text in headers.items()}
        sent[KEY_HEADER] = key_text(key)
        if ID_HEADER in sent:
            sent["Nats-Msg-Id"] = sent[ID_HEADER]
        client = await self._opened()
        try:
            taken = await asyncio.wait_for(
                client.jetstream().publish(
                    self._subject,
                    value,
                    timeout=PUBLISH_SECONDS,
                    stream=self._stream,
                    headers=sent,
                ),
                PUBLISH_SECONDS,
            )
        except nats.errors.MaxPayloadError:
            raise _too_large(len(value), client.max_payload, "the NATS server") from None
        except (nats.errors.Error, TimeoutError, OSError) as error:
            if isinstance(error, nats.js.errors.APIError) and error.err_code == _MESSAGE_TOO_LARGE:
                limit = (await stream_info(client, self._source, PUBLISH_SECONDS)).config
                whom = f"the NATS stream {self._source.stream}"
                raise _too_large(len(value), limit.max_msg_size, whom) from None
            if isinstance(error, nats.js.errors.NoStreamResponseError):
                await self._missing(client)
            raise unavailable(self._source, error) from None
        return EventPosition(0, taken.seq) if self._numbered else None

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _opened(self) -> Client:
        async with self._opening:
            if self._client is None or not self._client.is_connected:
                if self._client is not None:  # It would reconnect with its old login.
                    await self._client.close()
                    self._client = None
                client = await connect(self._source, self._paths, PUBLISH_SECONDS)
                try:
                    config = (await stream_info(client, self._source, PUBLISH_SECONDS)).config
                except BaseException:
                    await client.close()
                    raise
                if config.mirror is not None:  # A mirror keeps the sequence numbers of its origin.
                    self._stream = config.mirror.name
                elif config.sources:
                    self._stream, self._numbered = None, False
                self._client = client
            return self._client

    async def _missing(self, client: Client) -> None:
        """Raise TopicNotFound if the stream is gone."""
        await stream_info(client, self._source, PUBLISH_SECONDS)


def _too_large(size: int, limit: int | None, who: str) -> EventTooLarge:
    return EventTooLarge(f"the event has {size} bytes; {who} takes at most {limit}")
