"""All brokers that streams can be read from, each registered once.

A broker consists of a block of the manifest's ``streaming.source`` (a field of
:class:`fourways_api.modes.StreamSource`), and the functions here that open it. Each broker's client
is imported only when it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fourways_api import FetchPolicy, Paths, StreamSource
from fourways_api.modes.streaming import default_group
from fourways_api.runtime_config import StreamConfig

from ..fetch.location import check_host
from .publisher import Publisher
from .source import EventSource
from .topic import TopicEvent


@dataclass(frozen=True, slots=True)
class BrokerKind:
    """A kind of broker, such as Kafka."""

    name: str
    """The field of StreamSource that holds its settings."""

    open_source: Callable[[Any, StreamConfig], EventSource]
    """Make a source from the broker's settings and a worker's configuration, not connected yet."""

    open_publisher: Callable[[Any, Paths], Publisher]
    """Make a publisher from the broker's settings; it connects when it is first used."""

    read_topic: Callable[[Any, Paths, str, float], Iterator[list[TopicEvent]]]
    """Read what a topic of the broker holds since a time (s since 1970), once."""


EVERY_HOST = FetchPolicy()


def check_servers(servers: Iterable[str], policy: FetchPolicy) -> None:
    """Check that a policy allows every broker of a list. Raises FetchRefused."""
    for server in servers:
        host = urlsplit(server if "://" in server else f"//{server}").hostname or server
        check_host(host, policy)


BROKERS: dict[str, BrokerKind] = {}


def register(broker: BrokerKind) -> None:
    """Register a kind of broker."""
    BROKERS[broker.name] = broker


def new_source(config: StreamConfig) -> EventSource:
    """Return the source for a configuration, not connected yet.

    Raises:
        FetchRefused: the policy does not allow one of the brokers.

    """
    source = config.streaming.source
    check_servers(source.broker().addresses(), config.fetch)
    return BROKERS[source.broker_name()].open_source(source.broker(), config)


def open_publisher(
    source: StreamSource, paths: Paths, policy: FetchPolicy = EVERY_HOST
) -> Publisher:
    """Return a publisher; it connects when it is first used.

    Raises:
        FetchRefused: the policy does not allow one of the brokers.

    """
    check_servers(source.broker().addresses(), policy)
    return BROKERS[source.broker_name()].open_publisher(source.broker(), paths)


def read_topic(config: StreamConfig, topic: str, since: float) -> Iterator[list[TopicEvent]]:
    """Yield the events of a topic on a stream's broker since a time (s since 1970), until now.

    Raises:
        FetchRefused: the policy does not allow one of the brokers.
        BrokerUnavailable, TopicNotFound, ConfigError: see the brokers' modules.

    """
    source = config.streaming.source
    check_servers(source.broker().addresses(), config.fetch)
    return BROKERS[source.broker_name()].read_topic(source.broker(), config.paths, topic, since)


def _kafka_source(settings: Any, config: StreamConfig) -> EventSource:
    from .kafka_client import member_id
    from .kafka_source import KafkaEvents

    group = settings.consumer_group or default_group(config.namespace, config.name)
    # Workers of one embedded host share the cache, but not the port.
    name = f"{config.namespace}-{config.name}-{config.port}"
    member = member_id(Path(config.paths.cache_dir) / "members", name)
    return KafkaEvents(settings, config.paths, group, member)


def _kafka_publisher(settings: Any, paths: Paths) -> Publisher:
    from .kafka_publisher import KafkaPublisher

    return KafkaPublisher(settings, paths)


def _nats_source(settings: Any, config: StreamConfig) -> EventSource:
    from .nats_source import NatsEvents

    return NatsEvents(settings, config.paths)


def _nats_publisher(settings: Any, paths: Paths) -> Publisher:
    from .nats_publisher import NatsPublisher

    return NatsPublisher(settings, paths)


def _kafka_topic(
    settings: Any, paths: Paths, topic: str, since: float
) -> Iterator[list[TopicEvent]]:
    from .kafka_topic import read_topic as read

    return read(settings, paths, topic, since)


def _nats_topic(
    settings: Any, paths: Paths, topic: str, since: float
) -> Iterator[list[TopicEvent]]:
    from .nats_topic import read_topic as read

    return read(settings, paths, topic, since)


register(BrokerKind("kafka", _kafka_source, _kafka_publisher, _kafka_topic))
register(BrokerKind("nats", _nats_source, _nats_publisher, _nats_topic))
