"""Which source a configuration names. Each broker's client is imported only where it is used."""

from __future__ import annotations

from fourways_api.runtime_config import StreamConfig

from .source import EventSource


def new_source(config: StreamConfig) -> EventSource:
    """Return the source of a configuration, not connected yet."""
    source = config.streaming.source
    if source.nats is not None:
        from .nats_source import NatsEvents

        return NatsEvents(source.nats, config.paths)
    assert source.kafka is not None, "the types allow one or the other"  # noqa: S101
    from .kafka_source import KafkaEvents

    group = source.kafka.consumer_group or f"fourways-{config.namespace}-{config.name}"
    return KafkaEvents(source.kafka, config.paths, group)
