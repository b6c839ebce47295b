"""Events from a Kafka topic.

This module avoids the pitfalls of librdkafka: partitions start at the store's positions, set within
the rebalance callback; the poll loop never stops, and partitions are paused instead; offsets are
committed to the broker only so that a group's lag can be monitored there; and a position that the
log does not contain is an error to be investigated, never a silent jump to another one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import starmap
from time import monotonic

from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from fourways_api import Paths
from fourways_api.modes import KafkaSource
from fourways_runtime.errors import BrokerUnavailable, TopicNotFound
from fourways_runtime.retry import Outage

from ..mounted_secret import MountedSecret
from .kafka_client import (
    PROPERTIES,
    BrokerFailure,
    headers_of,
    is_absent,
    look_up,
    missing,
    read_secret,
    settings,
    unavailable,
)
from .source import (
    ABSENT_SECONDS,
    OUTAGE_SECONDS,
    Events,
    Headers,
    LogBounds,
    PartitionListener,
    PositionsOutOfRange,
    SourceEnded,
    SourceReplaced,
    question_in,
)

_REPORT_SECONDS = 5.0
"""Seconds between two commits of offsets to the broker."""

_RECONNECT_SECONDS = 1.0
"""Seconds between two attempts to reach a broker that is unavailable."""

_ASK_SECONDS = 2.0
_LEAVE_SECONDS = 2.0

_OUT_OF_RANGE = (
    KafkaError._AUTO_OFFSET_RESET,
    KafkaError.OFFSET_OUT_OF_RANGE,
)

_FENCED = (KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID)

_log = logging.getLogger("fourways.kafka")


class KafkaEvents:
    """A topic, as a member of a consumer group; see :class:`.source.EventSource`."""

    identity = ""

    def __init__(self, source: KafkaSource, paths: Paths, group: str, member: str) -> None:
        """``member``: unique among the group's workers, and the same after a restart."""
        self._source = source
        self._member = member
        self._paths = paths
        self._broker_failure = BrokerFailure()
        self._settings = settings(source, paths, self._broker_failure)
        self._group = group
        self._held: set[int] = set()
        self._passed: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        """The ends of logs that were reached since :meth:`read_up_to` was called."""

        self._reported_at = self._looked = monotonic()
        self._failure: BaseException | None = None
        self._replaced = False
        self._rejoins = False
        self._absent = Outage(ABSENT_SECONDS)
        self._gone: TopicNotFound | None = None

    def open(self, seconds: float) -> None:
        """Connect and look up the topic."""
        self._consumer = Consumer(
            self._settings
            | {
                "group.id": self._group,
                # A static member is taken back at once after an outage of the broker or a restart
                # of the container; otherwise the group waits for the session of its predecessor.
                "group.instance.id": self._member,
                "enable.auto.commit": False,
                # A position that is not in the log must be investigated, not replaced.
                "auto.offset.reset": "error",
                # The positions behind the last event may be markers of transactions.
                "enable.partition.eof": True,
                "partition.assignment.strategy": "cooperative-sticky",
                # A dead worker keeps its partitions for this long.
                "session.timeout.ms": 6000,
                "heartbeat.interval.ms": 1500,
                # The default of one second starves a fast worker.
                "fetch.queue.backoff.ms": 5,
                "fetch.wait.max.ms": 100,
                "queued.min.messages": 20_000,
                "queued.max.messages.kbytes": 32 * 1024,
                "topic.metadata.refresh.interval.ms": 10_000,
            }
        )
        _, cluster = look_up(self._consumer, self._source, self._broker_failure, seconds)
        self._admin = AdminClient(self._settings)
        try:
            number = self._topic_id(max(seconds, 1.0))
        except KafkaException as error:
            raise unavailable(error, self._source, self._broker_failure) from None
        self.identity = f"kafka/{cluster}/{self._source.topic}/{number}"

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
                self._passed.pop(partition, None)
                self._ends.pop(partition, None)

        self._consumer.subscribe(
            [self._source.topic], on_assign=assigned, on_revoke=revoked, on_lost=revoked
        )

    def bounds(self, partition: int) -> LogBounds:
        """Request the range of positions from the broker."""
        place = TopicPartition(self._source.topic, partition)
        try:
            return LogBounds(*self._consumer.get_watermark_offsets(place, timeout=5.0))
        except KafkaException as error:
            raise self._unavailable(error) from None

    def poll(self, most: int, wait: float, gather: float) -> Events | None:
        """Wait for events."""
        self._raise_findings()
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
            lambda at: _time(messages[at]),
            lambda: _asked(messages),
        )

    def read_up_to(self) -> Mapping[int, int]:
        """Return the ends of logs that were reached since the last call."""
        ends, self._ends = self._ends, {}
        return ends

    def idle(self, seconds: float) -> None:
        """Wait with all partitions paused."""
        places = self._consumer.assignment()
        self._consumer.pause(places)
        try:
            late = self._consumed(1, seconds)
            if late:  # Delivered just before the pause: it must be delivered again.
                self.seek({m.partition() or 0: m.offset() or 0 for m in late[::-1]})
        finally:
            self._consumer.resume(self._consumer.assignment())

    def held(self) -> Sequence[int]:
        """Return the partitions of this worker."""
        return sorted(self._held)

    def seek(self, positions: Mapping[int, int]) -> None:
        """Continue from these positions."""
        places = self._places({p: at for p, at in positions.items() if p in self._held})
        for partition in positions:
            self._ends.pop(partition, None)
        # Unlike a seek, this cannot come too early, and it drops prefetched events.
        self._consumer.incremental_unassign(places)
        self._consumer.incremental_assign(places)

    def passed(self, positions: Mapping[int, int]) -> None:
        """Record positions; they are committed to the broker every few seconds."""
        self._passed.update(positions)

    def newest(self) -> Mapping[int, int]:
        """Request the newest positions from the broker."""
        # Not the consumer's own figures: those do not advance while its partitions are paused.
        places = [TopicPartition(self._source.topic, partition) for partition in list(self._held)]
        if not places:
            return {}
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        asked = self._admin.list_offsets(
            dict.fromkeys(places, latest),
            # Events of a transaction that is still open cannot be read yet.
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=_ASK_SECONDS,
        )
        try:
            return {
                place.partition: int(found.result(_ASK_SECONDS + 1).offset)
                for place, found in asked.items()
            }
        except KafkaException as error:
            raise self._unavailable(error) from None
        except TimeoutError:
            raise BrokerUnavailable(self._silent()) from None

    def check(self) -> None:
        """Check with the broker that the topic is still the same one."""
        try:
            number = self._topic_id(_ASK_SECONDS)
        except KafkaException as error:
            found = unavailable(error, self._source, self._broker_failure)
            if isinstance(found, BrokerUnavailable):
                raise found from None
            self._note_absence(found)
            return
        except TimeoutError:
            raise BrokerUnavailable(self._silent()) from None
        self._absent.ended()
        self._replaced = not self.identity.endswith(f"/{number}")

    def problem(self) -> str:
        """Return the known reason why no events can be read now."""
        if self._absent.since is not None:
            return str(missing(self._source))
        if self._broker_failure.since is None:
            return ""
        error = KafkaException(KafkaError(KafkaError._ALL_BROKERS_DOWN))
        return str(unavailable(error, self._source, self._broker_failure))

    def close(self) -> None:
        """Leave the group, unless this worker joins it again at once."""
        if not (self._replaced or self._rejoins):
            self._tell()
            # A static member leaves only when it unsubscribes.
            self._consumer.unsubscribe()
            deadline = monotonic() + _LEAVE_SECONDS
            while self._consumer.assignment() and monotonic() < deadline:
                self._consumer.poll(0.05)
        self._consumer.close()

    def _topic_id(self, seconds: float) -> object:
        topic = self._source.topic
        described = self._admin.describe_topics(TopicCollection([topic]), request_timeout=seconds)
        return described[topic].result(seconds + 1).topic_id

    def _note_absence(self, found: TopicNotFound) -> None:
        """Record that the topic is gone, but allow time for it to be recreated."""
        now = monotonic()
        if self._absent.since is None:
            self._absent.since = now
            _log.warning("%s", found)
        if now - self._absent.since > ABSENT_SECONDS:
            self._gone = found

    def _raise_findings(self) -> None:
        if self._replaced:
            topic = self._source.topic
            raise SourceReplaced(f"the Kafka topic {topic} was deleted and recreated")
        if self._gone is not None:
            raise self._gone

    def _consumed(self, most: int, seconds: float) -> list[Message]:
        found = self._consumer.consume(most, seconds)
        if self._failure is not None:
            raise self._failure
        good = [message for message in found if message.error() is None]
        if len(good) < len(found):
            for message in found:
                self._judge(message, message.error())
        return good

    def _judge(self, message: Message, error: KafkaError | None) -> None:
        if error is None:
            return
        if error.code() == KafkaError._PARTITION_EOF:
            self._ends[message.partition() or 0] = message.offset() or 0
            return
        if error.fatal() or error.code() in _FENCED:
            # Such as a commit that waited through an outage and came after the member's return.
            self._rejoins = True
            raise SourceEnded(f"Kafka ended this member of the group: {error.str()}")
        if error.code() in _OUT_OF_RANGE:
            with suppress(BrokerUnavailable):  # The bounds are requested next, with retries.
                self.check()
            self._raise_findings()
            raise PositionsOutOfRange(f"partition {message.partition()}: {error.str()}")
        if is_absent(error):
            self._note_absence(missing(self._source))
        else:
            _log.warning("Kafka: %s", error.str())

    def _look(self) -> None:
        """Do the periodic work: commit offsets and reconnect."""
        now = monotonic()
        if now - self._reported_at > _REPORT_SECONDS and self._broker_failure.since is None:
            self._reported_at = now
            self._tell()
        failure = self._broker_failure
        away = failure.since is not None or failure.login_refused
        if away and now - self._looked > _RECONNECT_SECONDS:
            self._looked = now
            self._reach(now)

    def _reach(self, now: float) -> None:
        """Try to reach a broker that is unavailable, with the Secret's current login."""
        self._read_login()
        try:
            look_up(self._consumer, self._source, self._broker_failure, _ASK_SECONDS)
        except TopicNotFound as error:
            self._note_absence(error)
        except BrokerUnavailable:
            since = self._broker_failure.since
            if since is not None and now - since > OUTAGE_SECONDS:
                raise

    def _read_login(self) -> None:
        """Read the Secret again. Raises SourceEnded if more than user and password has changed."""
        secret = self._source.credentials
        if secret is None:
            return
        found = read_secret(MountedSecret.of(secret, self._paths), self._source)
        names = (found.keys() | self._settings.keys()) & PROPERTIES
        changed = {name for name in names if found.get(name) != self._settings.get(name)}
        if not changed:
            return
        _log.warning("the login in the Secret %s has changed", secret.secret_name)
        user, password = found.get("sasl.username"), found.get("sasl.password")
        if user is None or password is None or changed - {"sasl.username", "sasl.password"}:
            self._rejoins = True
            raise SourceEnded(f"the Secret {secret.secret_name} has changed")
        for client in (self._consumer, self._admin):
            client.set_sasl_credentials(user, password)
        self._settings |= {"sasl.username": user, "sasl.password": password}

    def _unavailable(self, error: KafkaException) -> BrokerUnavailable:
        found = unavailable(error, self._source, self._broker_failure)
        if isinstance(found, BrokerUnavailable):
            return found
        self._note_absence(found)
        return BrokerUnavailable(str(found))

    def _silent(self) -> str:
        return f"Kafka at {self._source.bootstrap_servers} does not answer within {_ASK_SECONDS} s"

    def _tell(self) -> None:
        if self._passed:
            try:
                self._consumer.commit(offsets=self._places(self._passed), asynchronous=True)
            except KafkaException as error:
                _log.info("offsets were not committed to the broker: %s", error)
            self._passed = {}

    def _places(self, positions: Mapping[int, int]) -> list[TopicPartition]:
        topic = self._source.topic
        return list(starmap(lambda p, at: TopicPartition(topic, p, at), positions.items()))


def _headers(message: Message) -> Headers:
    return headers_of(message.headers())


def _asked(messages: Sequence[Message]) -> dict[int, bytes]:
    found = {}
    for at, message in enumerate(messages):
        headers = message.headers()
        if headers and (digest := question_in(headers_of(headers))) is not None:
            found[at] = digest
    return found


def _time(message: Message) -> float | None:
    kind, milliseconds = message.timestamp()
    return None if kind == TIMESTAMP_NOT_AVAILABLE else milliseconds / 1000
