"""Reads what a Kafka topic holds since a time, without a consumer group."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from fourways_api import Paths
from fourways_api.modes import KafkaSource
from fourways_runtime.errors import BrokerUnavailable

from .kafka_client import BrokerFailure, look_up, settings, unavailable
from .topic import AT_ONCE, SECONDS, TopicEvent

_GATHER_SECONDS = 0.5
_NO_GROUP = "fourways-reads-without-a-group"


def read_topic(
    source: KafkaSource, paths: Paths, topic: str, since: float
) -> Iterator[list[TopicEvent]]:
    """Yield the events published since a time (s since 1970) and until now, partition by partition.

    Raises BrokerUnavailable, TopicNotFound, ConfigError.
    """
    failure = BrokerFailure()
    there = source.model_copy(update={"topic": topic})
    client = Consumer(
        settings(source, paths, failure)
        | {
            # Nothing is committed, so the broker never hears of the group.
            "group.id": _NO_GROUP,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        }
    )
    try:
        described, _ = look_up(client, there, failure, SECONDS)
        starts = client.offsets_for_times(
            [TopicPartition(topic, each, int(since * 1000)) for each in described.partitions],
            timeout=SECONDS,
        )
        ends = {
            place.partition: client.get_watermark_offsets(place, timeout=SECONDS)[1]
            for place in starts
        }
        # An offset below 0: nothing was published since.
        places = [place for place in starts if 0 <= place.offset < ends[place.partition]]
        left = {place.partition: ends[place.partition] for place in places}
        client.assign(places)
        heard = monotonic()
        while left:
            # A call waits until it has as many as it may return, or for its whole time-out.
            messages = client.consume(AT_ONCE, timeout=_GATHER_SECONDS)
            if not messages:
                if monotonic() - heard < SECONDS:
                    continue
                raise BrokerUnavailable(
                    f"Kafka at {source.bootstrap_servers} delivered nothing of {topic} for "
                    f"{SECONDS:g} s"
                )
            heard = monotonic()
            yield [
                TopicEvent(message.key(), message.value())
                for message in messages
                if _is_event(message, left)
            ]
    except KafkaException as error:
        raise unavailable(error, there, failure) from None
    finally:
        client.close()


def _is_event(message: Message, left: dict[int, int]) -> bool:
    """Tell whether a message is an event, and strike off partitions that are read to their end."""
    partition, offset = message.partition() or 0, message.offset() or 0
    error = message.error()
    if error is None:
        if offset + 1 >= left.get(partition, 0):
            left.pop(partition, None)
        return True
    if error.code() != KafkaError._PARTITION_EOF:
        raise KafkaException(error)
    left.pop(partition, None)
    return False
