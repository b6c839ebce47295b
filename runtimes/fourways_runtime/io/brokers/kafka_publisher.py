"""Events published to a Kafka topic."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from fourways_api import Paths
from fourways_api.modes import KafkaSource
from fourways_runtime.errors import BrokerUnavailable, EventTooLarge, WorkloadError

from ..store.streams.stream import EventPosition
from .kafka_client import BrokerFailure, look_up, settings, unavailable
from .publisher import PUBLISH_SECONDS

MAX_EVENT_BYTES = 1_000_000
"""The client's limit (librdkafka's message.max.bytes); the brokers' default is about the same."""

_log = logging.getLogger("fourways.kafka")


class KafkaPublisher:
    """Publishes to a topic, with acks from all in-sync replicas."""

    def __init__(self, source: KafkaSource, paths: Paths) -> None:
        self._source = source
        self._paths = paths
        self._broker_failure = BrokerFailure()
        self._opening = asyncio.Lock()
        self._producer: Producer | None = None
        self._stop = threading.Event()

    async def connect(self) -> None:
        """Connect now rather than for the first event."""
        await self._opened()

    async def publish(
        self, key: bytes, value: bytes, headers: Mapping[str, bytes]
    ) -> EventPosition | None:
        """Publish an event; it is durable on return."""
        producer = await self._opened()
        loop = asyncio.get_running_loop()
        delivered: asyncio.Future[EventPosition | None] = loop.create_future()

        def settle(error: KafkaError | None, place: EventPosition | None) -> None:
            if delivered.done():
                return
            if error is None:
                delivered.set_result(place)
            else:
                delivered.set_exception(self._error(error, len(value)))

        def heard(error: KafkaError | None, message: Message) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, error, _place(message))

        try:
            producer.produce(
                self._source.topic, value, key, on_delivery=heard, headers=list(headers.items())
            )
        except KafkaException as error:
            raise self._error(error.args[0], len(value)) from None
        except BufferError:
            raise BrokerUnavailable(
                f"Kafka at {self._source.bootstrap_servers} accepts events too slowly"
            ) from None
        try:
            # Normally message.timeout.ms applies, unless the polling thread has ended.
            return await asyncio.wait_for(delivered, 2 * PUBLISH_SECONDS)
        except TimeoutError:
            self._discard(producer)
            raise BrokerUnavailable(
                f"Kafka at {self._source.bootstrap_servers} did not confirm the event"
            ) from None
        except BrokerUnavailable as error:
            if error.login_refused:
                self._discard(producer)  # The next producer reads the Secret again.
            raise

    async def close(self) -> None:
        """Close the connection."""
        self._stop.set()
        if self._producer is not None:
            await asyncio.to_thread(self._producer.flush, PUBLISH_SECONDS)
            self._producer = None

    def _error(self, error: KafkaError, size: int) -> WorkloadError:
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            return EventTooLarge(
                f"the event has {size} bytes; the Kafka topic {self._source.topic} takes at most "
                f"about {MAX_EVENT_BYTES} (message.max.bytes)"
            )
        return unavailable(KafkaException(error), self._source, self._broker_failure)

    def _discard(self, producer: Producer) -> None:
        if self._producer is producer:
            self._producer = None

    async def _opened(self) -> Producer:
        async with self._opening:
            if self._producer is None:
                self._producer = producer = await asyncio.to_thread(self._open)
                threading.Thread(
                    target=self._poll, args=(producer,), name="publisher", daemon=True
                ).start()
            return self._producer

    def _open(self) -> Producer:
        found = settings(self._source, self._paths, self._broker_failure) | {
            "enable.idempotence": True,
            "linger.ms": 2,
            "message.timeout.ms": int(PUBLISH_SECONDS * 1000),
            "socket.timeout.ms": int(PUBLISH_SECONDS * 1000),
            "message.max.bytes": MAX_EVENT_BYTES,
            # As in other clients, so that a key's events share a partition whoever writes them.
            "partitioner": "murmur2_random",
        }
        producer = Producer(found)
        look_up(producer, self._source, self._broker_failure, PUBLISH_SECONDS)
        return producer

    def _poll(self, producer: Producer) -> None:
        """Process confirmations. An error here must not leave the publisher without a poller."""
        try:
            while not self._stop.is_set() and (self._producer in (None, producer)):
                producer.poll(0.2)
        except Exception:  # noqa: BLE001  (logged; the publisher recovers)
            _log.exception("the publisher's thread failed; the next event starts another one")
            self._discard(producer)


def _place(message: Message) -> EventPosition | None:
    partition, offset = message.partition(), message.offset()
    if partition is None or offset is None or offset < 0:
        return None  # A retry found it already written; the broker does not report where.
    return EventPosition(partition, offset)
