"""Settings of the streaming mode: brokers, and how events are scored together."""

from __future__ import annotations

from typing import Annotated, ClassVar, Protocol

from pydantic import Field

from ..addresses import KafkaServers, NatsServers
from ..base import ApiModel, Rule, longer_than_zero
from ..model import SecretReference
from ..values import Duration


class BrokerSettings(Protocol):
    """What the settings of every broker say, to the network policy, the mounts and the runtime."""

    DEFAULT_PORT: ClassVar[int | None]
    """The port of an address that names none; None: every address names its port."""

    credentials: SecretReference | None

    def addresses(self) -> list[str]:
        """Return the addresses of the broker's servers."""
        ...


GROUP_PREFIX = "fourways-"
"""Beginning of the names of consumer groups that deployments have by default."""


def default_group(namespace: str, name: str) -> str:
    """Return the consumer group of a deployment whose spec names none."""
    return f"{GROUP_PREFIX}{namespace}-{name}"


class KafkaSource(ApiModel):
    """Events from a Kafka topic."""

    DEFAULT_PORT: ClassVar[int | None] = None

    bootstrap_servers: KafkaServers
    """Brokers as HOST:PORT, separated by commas."""

    topic: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=249)]
    """Name of the topic."""

    consumer_group: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=249)] | None = (
        None
    )
    """Name of the consumer group. Default: fourways-NAMESPACE-NAME; other names that begin with
    fourways- are refused."""

    credentials: SecretReference | None = None
    """Secret with client settings (SASL, TLS)."""

    def addresses(self) -> list[str]:
        """Return HOST:PORT of each server."""
        return self.bootstrap_servers.split(",")


class NatsSource(ApiModel):
    """Events from a NATS JetStream stream."""

    DEFAULT_PORT: ClassVar[int | None] = 4222

    servers: NatsServers
    """Servers as nats://HOST:PORT, separated by commas."""

    stream: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=255)]
    """Name of the stream."""

    subject: Annotated[str, Field(pattern=r"^[^\x00-\x20\x7f]+$", max_length=255)]
    """Subject to read. Wildcards are allowed."""

    credentials: SecretReference | None = None
    """Secret with the credentials for NATS."""

    def addresses(self) -> list[str]:
        """Return the URL of each server."""
        return self.servers.split(",")


class StreamSource(ApiModel):
    """Broker that delivers the events."""

    kafka: KafkaSource | None = None
    """Events from a Kafka topic."""

    nats: NatsSource | None = None
    """Events from a NATS JetStream stream."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.kafka) != has(self.nats)",
            "events come either from Kafka or from NATS",
            "set exactly one of kafka and nats",
        ),
    )

    def broker_name(self) -> str:
        """Return the name of the one field that is set: the kind of broker."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)

    def broker(self) -> BrokerSettings:
        """Return the settings of the one broker that is set."""
        settings: BrokerSettings = getattr(self, self.broker_name())
        return settings


class MicroBatch(ApiModel):
    """How events are grouped for scoring."""

    max_events: Annotated[int, Field(ge=1, le=65_536)] = 256
    """Maximum number of events in a group."""

    max_delay: Duration = "10ms"
    """Maximum time that an event waits for its group."""


class Streaming(ApiModel):
    """Score events as they arrive."""

    source: StreamSource
    """Broker that delivers the events."""

    micro_batch: MicroBatch = MicroBatch()
    """How events are grouped for scoring."""

    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """Number of attempts before an event becomes a dead letter."""

    freshness: Duration = "5m"
    """Maximum age of a stored answer. An older answer is treated as missing."""

    max_lag: Duration = "5m"
    """Maximum time that an event waits for its prediction. While an older event has none, Degraded
    is True with StreamLags."""

    min_replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """Number of consumers. One is kept even with 0: scaling to zero is not available yet."""

    max_replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    """Maximum number of consumers. Consumers are not scaled by lag yet, so it must not exceed
    minReplicas (or 1)."""

    rules: ClassVar[tuple[Rule, ...]] = (
        longer_than_zero("freshness"),
        longer_than_zero("maxLag"),
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "minReplicas is above maxReplicas",
            "set maxReplicas to the same number: consumers are not scaled by lag yet",
            ".maxReplicas",
        ),
        Rule(
            "self.maxReplicas <= self.minReplicas || self.maxReplicas == 1",
            "maxReplicas is above minReplicas, but consumers are not scaled by lag yet",
            "set both to the number of consumers you want",
            ".maxReplicas",
        ),
    )
