"""Events from a Kafka topic.

Owns librdkafka's traps: partitions are started at the store's positions from within the rebalance
callback; the poll loop never stops, partitions are paused instead; offsets go to the broker only
for those who watch a group's lag there.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import starmap
from time import monotonic

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from fourways_api import Paths
from fourways_api.modes import KafkaSource
from fourways_runtime.errors import BrokerUnavailable

from .kafka_client import BrokerFailure, headers_of, look_up, missing, settings, unavailable
from .source import OUTAGE_SECONDS, Events, Headers, PartitionListener

_TELL_SECONDS = 5.0
"""Between two commits of offsets to the broker, and two looks at what is newest."""

_log = logging.getLogger("fourways.kafka")


class KafkaEvents:
    """A topic, as a member of a consumer group; see :class:`.source.EventSource`."""

    identity = ""

    def __init__(self, source: KafkaSource, paths: Paths, group: str) -> None:
        self._source = source
        self._broker_failure = BrokerFailure()
        self._settings = settings(source, paths, self._broker_failure)
        self._group = group
        self._held: set[int] = set()
        self._newest: dict[int, int] = {}
        self._passed: dict[int, int] = {}
        self._told = monotonic()
        self._paused = False
        self._failure: BaseException | None = None

    def open(self, seconds: float) -> None:
        """Connect and look the topic up."""
        self._consumer = Consumer(
            self._settings
            | {
                "group.id": self._group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "partition.assignment.strategy": "cooperative-sticky",
                # A worker that died keeps its partitions this long.
                "session.timeout.ms": 6000,
                "heartbeat.interval.ms": 1500,
                # The default of a second starves a fast worker.
                "fetch.queue.backoff.ms": 5,
                "fetch.wait.max.ms": 100,
                "queued.min.messages": 20_000,
                "queued.max.messages.kbytes": 32 * 1024,
                "topic.metadata.refresh.interval.ms": 10_000,
            }
        )
        _, cluster = look_up(self._consumer, self._source, self._broker_failure, seconds)
        topic = self._source.topic
        try:
            admin = AdminClient(self._settings)
            described = admin.describe_topics(
                TopicCollection([topic]), request_timeout=max(seconds, 1.0)
            )
            number = described[topic].result(max(seconds, 1.0) + 1).topic_id
        except KafkaException as error:
            raise unavailable(error, self._source, self._broker_failure) from None
        self.identity = f"kafka/{cluster}/{topic}/{number}"

    def start(self, listener: PartitionListener) -> None:
        """Join the group."""

        def assigned(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            try:
                starts = listener.assigned([found.partition for found in partitions])
            except BaseException as error:  # noqa: BLE001  (it must not pass through librdkafka)
                self._failure = error
                consumer.incremental_assign(partitions)
                consumer.pause(partitions)
                return
            self._held |= starts.keys()
            consumer.incremental_assign(self._places(starts))

        def revoked(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            gone = [found.partition for found in partitions]
            try:
                listener.revoked(gone)
            except BaseException as error:  # noqa: BLE001  (as above)
                self._failure = error
            self._held -= set(gone)
            for partition in gone:
                self._newest.pop(partition, None)
                self._passed.pop(partition, None)

        self._consumer.subscribe(
            [self._source.topic], on_assign=assigned, on_revoke=revoked, on_lost=revoked
        )

    def first(self, partition: int) -> int:
        """Return the oldest position there is."""
        place = TopicPartition(self._source.topic, partition)
        try:
            low, _ = self._consumer.get_watermark_offsets(place, timeout=5.0)
        except KafkaException as error:
            raise unavailable(error, self._source, self._broker_failure) from None
        return int(low)

    def poll(self, most: int, wait: float, gather: float) -> Events | None:
        """Wait for events."""
        messages = self._consumed(1, wait) if wait else []
        if wait and not messages:
            self._look()
            return None
        messages += self._consumed(max(1, most - len(messages)), gather)
        self._look()
        if not messages:
            return None
        return Events(
            [message.partition() or 0 for message in messages],
            [message.offset() or 0 for message in messages],
            [message.key() for message in messages],
            [message.value() for message in messages],
            lambda at: _headers(messages[at]),
        )

    def idle(self, seconds: float) -> None:
        """Let time pass with all partitions paused."""
        places = self._consumer.assignment()
        self._consumer.pause(places)
        try:
            late = self._consumed(1, seconds)
            if late:  # BatchRead just before the pause: it is to come again.
                self.seek({m.partition() or 0: m.offset() or 0 for m in late[::-1]})
        finally:
            self._consumer.resume(self._consumer.assignment())

    def held(self) -> Sequence[int]:
        """Return the partitions this worker has."""
        return sorted(self._held)

    def seek(self, positions: Mapping[int, int]) -> None:
        """Go on from these positions."""
        places = self._places({p: at for p, at in positions.items() if p in self._held})
        # Unlike a seek, this cannot come too early, and drops what was fetched ahead.
        self._consumer.incremental_unassign(places)
        self._consumer.incremental_assign(places)

    def passed(self, positions: Mapping[int, int]) -> None:
        """Take note; the broker is told every few seconds."""
        self._passed.update(positions)

    def lag(self) -> Mapping[int, int]:
        """Return the newest positions known."""
        return dict(self._newest)

    def available(self) -> bool:
        """Tell whether a broker answers."""
        return self._broker_failure.since is None

    def close(self) -> None:
        """Leave the group."""
        self._tell()
        self._consumer.close()

    def _consumed(self, most: int, seconds: float) -> list[Message]:
        found = self._consumer.consume(most, seconds)
        if self._failure is not None:
            raise self._failure
        good = [message for message in found if message.error() is None]
        if len(good) < len(found):
            for message in found:
                self._judge(message.error())
        return good

    def _judge(self, error: KafkaError | None) -> None:
        if error is None:
            return
        if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
            raise missing(self._source)
        _log.warning("Kafka: %s", error.str())

    def _look(self) -> None:
        """Do what is to be done now and then."""
        now = monotonic()
        if now - self._told < _TELL_SECONDS:
            return
        self._told = now
        self._tell()
        for partition in self._held:
            place = TopicPartition(self._source.topic, partition)
            _, high = self._consumer.get_watermark_offsets(place, cached=True)
            if high >= 0:
                self._newest[partition] = high
        if self._broker_failure.since is not None:
            try:
                look_up(self._consumer, self._source, self._broker_failure, 2.0)
            except BrokerUnavailable:
                if (
                    self._broker_failure.since is not None
                    and now - self._broker_failure.since > OUTAGE_SECONDS
                ):
                    raise

    def _tell(self) -> None:
        if self._passed:
            try:
                self._consumer.commit(offsets=self._places(self._passed), asynchronous=True)
            except KafkaException as error:
                _log.info("offsets were not told to the broker: %s", error)
            self._passed = {}

    def _places(self, positions: Mapping[int, int]) -> list[TopicPartition]:
        topic = self._source.topic
        return list(starmap(lambda p, at: TopicPartition(topic, p, at), positions.items()))


def _headers(message: Message) -> Headers:
    return headers_of(message.headers())
