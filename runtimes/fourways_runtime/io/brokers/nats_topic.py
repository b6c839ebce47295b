"""Reads what a NATS subject holds since a time, with a consumer that leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.client import JetStreamContext

from fourways_api import Paths
from fourways_api.modes import NatsSource
from fourways_runtime.errors import TopicNotFound

from .nats_client import FAILURES, KEY_HEADER, connect, key_bytes, stream_info, unavailable
from .topic import AT_ONCE, SECONDS, TopicEvent


def read_topic(
    source: NatsSource, paths: Paths, subject: str, since: float
) -> Iterator[list[TopicEvent]]:
    """Yield the events published to a subject since a time (s since 1970) and until now.

    The subject may belong to the source's stream or to another one. Raises BrokerUnavailable,
    TopicNotFound, ConfigError.
    """
    loop = asyncio.new_event_loop()
    try:
        reading = _read(source.model_copy(update={"subject": subject}), paths, since)
        while True:
            try:
                yield loop.run_until_complete(anext(reading))
            except StopAsyncIteration:
                return
            except FAILURES as error:
                raise unavailable(source, error) from None
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _read(source: NatsSource, paths: Paths, since: float):  # type: ignore[no-untyped-def]
    client = await connect(source, paths, SECONDS)
    try:
        jetstream = client.jetstream(timeout=SECONDS)
        stream = await _stream_of(client, jetstream, source)
        made = await jetstream.add_consumer(
            stream,
            ConsumerConfig(
                deliver_policy=DeliverPolicy.BY_START_TIME,
                opt_start_time=datetime.fromtimestamp(since, UTC),
                ack_policy=AckPolicy.NONE,
                filter_subject=source.subject,
                inactive_threshold=30.0,
                mem_storage=True,
                num_replicas=1,
            ),
        )
        try:
            left = made.num_pending or 0
            subscription = await jetstream.pull_subscribe_bind(consumer=made.name, stream=stream)
            while left > 0:
                messages = await subscription.fetch(min(AT_ONCE, left), SECONDS)
                left -= len(messages)
                yield [
                    TopicEvent(key_bytes((each.headers or {}).get(KEY_HEADER)), each.data)
                    for each in messages
                ]
        finally:
            with suppress(*FAILURES):  # Otherwise the server removes it by itself, but later.
                await jetstream.delete_consumer(stream, made.name)
    finally:
        with suppress(*FAILURES):
            await asyncio.wait_for(client.close(), SECONDS)


async def _stream_of(client: Client, jetstream: JetStreamContext, source: NatsSource) -> str:
    """Return the stream that holds the subject: the source's, or one that the server finds."""
    try:
        await stream_info(client, source, SECONDS)
    except TopicNotFound:
        try:
            return str(await jetstream.find_stream_name_by_subject(source.subject))
        except nats.js.errors.NotFoundError:
            raise TopicNotFound(
                f"NATS at {source.servers} has no stream with the subject {source.subject}"
            ) from None
    return source.stream
