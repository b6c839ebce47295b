"""Events as the gateway publishes them: a question without a stored answer.

An event is durable when ``publish`` returns, and the broker has said where it is. The broker's own
de-duplication is used where it has one: NATS takes the idempotency key (``ce-id``) as the message's
id.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from fourways_api import Paths, StreamSource
from fourways_api.modes import KafkaSource, NatsSource
from fourways_runtime.errors import BrokerUnavailable

from ..store.streams.stream import ID_HEADER, EventPosition

if TYPE_CHECKING:
    from confluent_kafka import Message, Producer
    from nats.aio.client import Client

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
        the same id; None where the broker did not say. Raises BrokerUnavailable or TopicNotFound,
        within about two seconds. The event may have been taken all the same then. Raises
        ConfigError where the Secret makes no sense.
        """
        ...

    async def close(self) -> None:
        """Let go of the connection."""
        ...


def open_publisher(source: StreamSource, paths: Paths) -> Publisher:
    """Return a publisher; it connects when it is first used."""
    if source.nats is not None:
        return NatsPublisher(source.nats, paths)
    assert source.kafka is not None, "the types allow one or the other"  # noqa: S101
    return KafkaPublisher(source.kafka, paths)


class KafkaPublisher:
    """Publishes to a topic, with acks from all replicas in sync."""

    def __init__(self, source: KafkaSource, paths: Paths) -> None:
        from .kafka_client import BrokerFailure

        self._source = source
        self._paths = paths
        self._broker_failure = BrokerFailure()
        self._opening = asyncio.Lock()
        self._producer: Producer | None = None
        self._stop = threading.Event()

    async def connect(self) -> None:
        """Connect now rather than when the first event comes."""
        await self._opened()

    async def publish(
        self, key: bytes, value: bytes, headers: Mapping[str, bytes]
    ) -> EventPosition | None:
        """Publish an event; it is durable on return."""
        from confluent_kafka import KafkaException

        from .kafka_client import unavailable

        producer = await self._opened()
        loop = asyncio.get_running_loop()
        delivered: asyncio.Future[EventPosition | None] = loop.create_future()

        def settle(error: Any, place: EventPosition | None) -> None:
            if delivered.done():
                return
            if error is None:
                delivered.set_result(place)
            else:
                delivered.set_exception(
                    unavailable(KafkaException(error), self._source, self._broker_failure)
                )

        def heard(error: Any, message: Message) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, error, _place(message))

        try:
            producer.produce(
                self._source.topic, value, key, on_delivery=heard, headers=list(headers.items())
            )
        except KafkaException as error:
            raise unavailable(error, self._source, self._broker_failure) from None
        except BufferError:
            raise BrokerUnavailable(
                f"Kafka at {self._source.bootstrap_servers} takes events too slowly"
            ) from None
        return await delivered

    async def close(self) -> None:
        """Let go of the connection."""
        self._stop.set()
        if self._producer is not None:
            await asyncio.to_thread(self._producer.flush, PUBLISH_SECONDS)
            self._producer = None

    async def _opened(self) -> Producer:
        async with self._opening:
            if self._producer is None:
                self._producer = await asyncio.to_thread(self._open)
                threading.Thread(target=self._poll, name="publisher", daemon=True).start()
            return self._producer

    def _open(self) -> Producer:
        from confluent_kafka import Producer

        from .kafka_client import look_up, settings

        told = settings(self._source, self._paths, self._broker_failure) | {
            "enable.idempotence": True,
            "linger.ms": 2,
            "message.timeout.ms": int(PUBLISH_SECONDS * 1000),
            "socket.timeout.ms": int(PUBLISH_SECONDS * 1000),
            # As other clients do it, so that a key's events are in one partition whoever wrote.
            "partitioner": "murmur2_random",
        }
        producer = Producer(told)
        look_up(producer, self._source, self._broker_failure, PUBLISH_SECONDS)
        return producer

    def _poll(self) -> None:
        while not self._stop.is_set():
            producer = self._producer
            if producer is not None:
                producer.poll(0.2)


class NatsPublisher:
    """Publishes to a JetStream stream, and awaits its acknowledgement."""

    def __init__(self, source: NatsSource, paths: Paths) -> None:
        from .nats_client import literal

        self._source = source
        self._paths = paths
        self._opening = asyncio.Lock()
        self._client: Client | None = None
        self._subject = literal(source.subject)

    async def connect(self) -> None:
        """Connect now rather than when the first event comes."""
        await self._opened()

    async def publish(
        self, key: bytes, value: bytes, headers: Mapping[str, bytes]
    ) -> EventPosition | None:
        """Publish an event; it is durable on return."""
        import nats.errors
        import nats.js.errors

        from .nats_client import KEY_HEADER, key_text, unavailable

        told = {name: text.decode("latin-1") for name, text in headers.items()}
        told[KEY_HEADER] = key_text(key)
        if ID_HEADER in told:
            told["Nats-Msg-Id"] = told[ID_HEADER]
        client = await self._opened()
        try:
            taken = await asyncio.wait_for(
                client.jetstream().publish(
                    self._subject,
                    value,
                    timeout=PUBLISH_SECONDS,
                    stream=self._source.stream,
                    headers=told,
                ),
                PUBLISH_SECONDS,
            )
        except (nats.errors.Error, TimeoutError, OSError) as error:
            if isinstance(error, nats.js.errors.NoStreamResponseError):
                await self._missing(client)
            raise unavailable(self._source, error) from None
        return EventPosition(0, taken.seq)

    async def close(self) -> None:
        """Let go of the connection."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _opened(self) -> Client:
        from .nats_client import connect, stream_info

        async with self._opening:
            if self._client is None or self._client.is_closed:
                client = await connect(self._source, self._paths, PUBLISH_SECONDS)
                try:
                    await stream_info(client, self._source, PUBLISH_SECONDS)
                except BaseException:
                    await client.close()
                    raise
                self._client = client
            return self._client

    async def _missing(self, client: Client) -> None:
        """Say that the stream is gone, where it is."""
        from .nats_client import stream_info

        await stream_info(client, self._source, PUBLISH_SECONDS)


def _place(message: Message) -> EventPosition | None:
    partition, offset = message.partition(), message.offset()
    if partition is None or offset is None or offset < 0:
        return None  # A retry found it written already: where, no broker says.
    return EventPosition(partition, offset)
