"""Events reach a real broker, or the publisher says in time why not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fourways_api import Paths, StreamSource
from fourways_cli.embedded.ports import free_port
from fourways_runtime.errors import BrokerUnavailable, ConfigError, EventTooLarge, TopicNotFound
from fourways_runtime.io.store.streams.stream import EventPosition
from fourways_runtime.workloads.streaming import open_publisher
from tests.kit.secret_files import secret_folder
from tests.kit.stream_rig import NatsServer, nats_server
from tests.kit.waiting import until_async

pytestmark = pytest.mark.embedded


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with nats_server(tmp_path_factory.mktemp("nats")) as started:
        started.make_stream("SENSORS", "sensors.>")
        yield started


def nats_source(url: str, stream: str = "SENSORS", subject: str = "sensors.>", **more: Any) -> Any:
    told = {"servers": url, "stream": stream, "subject": subject, **more}
    return StreamSource.model_validate({"nats": told})


async def test_an_event_with_one_id_is_there_once(server: NatsServer) -> None:
    publisher = open_publisher(nats_source(server.url), Paths())
    for _ in range(2):
        place = await publisher.publish("kä 1".encode(), b'{"x": 1}', {"ce-id": b"one"})
        assert place == EventPosition(0, 1)
    assert await publisher.publish(b"k2", b'{"x": 2}', {"ce-id": b"two"}) == EventPosition(0, 2)
    await publisher.close()

    import nats

    client = await nats.connect(server.url)
    jetstream = client.jetstream()
    info = await jetstream.stream_info("SENSORS")
    assert info.state.messages == 2
    first = await jetstream.get_msg("SENSORS", 1)
    assert (first.subject, first.data) == ("sensors.fourways", b'{"x": 1}')
    assert first.headers is not None
    assert (first.headers["fourways-key"], first.headers["ce-id"]) == ("k%C3%A4%201", "one")
    await client.close()


@pytest.mark.parametrize(("stream", "subject"), [("NONE", "sensors.a"), ("SENSORS", "elsewhere.a")])
async def test_a_stream_that_is_not_there_is_told(
    server: NatsServer, stream: str, subject: str
) -> None:
    publisher = open_publisher(nats_source(server.url, stream, subject), Paths())
    with pytest.raises(TopicNotFound, match=stream):
        await publisher.publish(b"k", b"{}", {})
    await publisher.close()


@pytest.mark.parametrize("broker", ["nats", "kafka"])
async def test_a_broker_that_is_away_is_told_within_seconds(broker: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    source = nats_source(f"nats://{address}")
    if broker == "kafka":
        told = {"bootstrapServers": address, "topic": "events"}
        source = StreamSource.model_validate({"kafka": told})
    publisher = open_publisher(source, Paths())
    async with asyncio.timeout(20):
        with pytest.raises(BrokerUnavailable, match=address):
            await publisher.publish(b"k", b"{}", {})
    await publisher.close()


async def test_a_publisher_outlives_a_broker_that_comes_back(tmp_path: Path) -> None:
    server = NatsServer(tmp_path)

    await asyncio.to_thread(server.start)
    await asyncio.to_thread(server.make_stream, "S", "s.a")
    publisher = open_publisher(nats_source(server.url, "S", "s.a"), Paths())
    await publisher.publish(b"k", b"{}", {})
    server.stop()
    with pytest.raises(BrokerUnavailable):
        await publisher.publish(b"k", b"{}", {})
    await asyncio.to_thread(server.start)

    async def published() -> bool:
        await publisher.publish(b"k", b"{}", {})
        return True

    await until_async(published, "the broker takes events", seconds=10, ignoring=BrokerUnavailable)
    await publisher.close()
    server.stop()


async def test_an_event_that_the_broker_does_not_take_is_refused_with_the_limit(
    server: NatsServer, broker: Any
) -> None:
    from nats.js.api import StreamConfig

    small = StreamConfig(name="SMALL", subjects=["small"], max_msg_size=1000)
    await asyncio.to_thread(server.do, lambda jetstream: jetstream.add_stream(small))
    await asyncio.to_thread(broker.make_topic, "large")
    kafka = {"kafka": {"bootstrapServers": broker.bootstrap, "topic": "large"}}
    for source, size, limit in (
        (nats_source(server.url), 2_000_000, "1048576"),
        (nats_source(server.url, "SMALL", "small"), 2_000, "1000"),
        (StreamSource.model_validate(kafka), 2_000_000, "1000000"),
    ):
        publisher = open_publisher(source, Paths())
        with pytest.raises(EventTooLarge, match=f"the event has {size} bytes.*{limit}"):
            await publisher.publish(b"k", b"x" * size, {})
        assert await publisher.publish(b"k", b"x" * 100, {}) is not None
        await publisher.close()


async def test_a_rotated_login_of_kafka_is_read_again_and_a_refused_one_is_named(
    broker: Any, topic: str, tmp_path: Path
) -> None:
    await asyncio.to_thread(broker.set_password, "gate", "first")
    secret = secret_folder(tmp_path / "broker")
    for name, text in {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "SCRAM-SHA-256",
        "sasl.username": "gate",
        "sasl.password": "first",
    }.items():
        (secret / name).write_text(text)
    told = {"bootstrapServers": broker.scram, "topic": topic}
    kafka = {**told, "credentials": {"secretName": "broker"}}
    publisher = open_publisher(
        StreamSource.model_validate({"kafka": kafka}), Paths(secrets_root=str(tmp_path))
    )

    async def published() -> bool:
        return await publisher.publish(b"k", b"{}", {}) is not None

    async def refused() -> bool:
        with suppress(BrokerUnavailable):
            return not await published()
        return True

    assert await published()
    await asyncio.to_thread(broker.set_password, "gate", "second")
    await until_async(refused, "the broker refuses the old login", seconds=60)
    with pytest.raises(BrokerUnavailable, match="refuses the login in the Secret broker"):
        await published()
    (secret / "sasl.password").write_text("second")
    await until_async(
        published, "the new login is accepted", seconds=30, ignoring=BrokerUnavailable
    )
    await publisher.close()


async def test_events_for_a_mirror_go_to_its_origin(server: NatsServer) -> None:
    from nats.js.api import StreamConfig
    from nats.js.api import StreamSource as Origin

    for config in (
        StreamConfig(name="O", subjects=["o"]),
        StreamConfig(name="M", mirror=Origin(name="O")),
        StreamConfig(name="G", sources=[Origin(name="O")]),
    ):
        await asyncio.to_thread(server.do, lambda jetstream, c=config: jetstream.add_stream(c))
    mirror = open_publisher(nats_source(server.url, "M", "o"), Paths())
    assert await mirror.publish(b"k", b"{}", {}) == EventPosition(0, 1)
    await mirror.close()
    gathered = open_publisher(nats_source(server.url, "G", "o"), Paths())
    assert await gathered.publish(b"k", b"{}", {}) is None  # Its number there is not known.
    await gathered.close()


async def test_a_secret_may_not_name_what_it_likes(tmp_path: Path) -> None:
    secret_folder(tmp_path / "broker", "*", "a")
    (tmp_path / "broker" / "plugin.library.paths").write_text("/tmp/evil.so")
    for told in (
        {"kafka": {"bootstrapServers": "a:1", "topic": "t"}},
        {"nats": {"servers": "nats://a:1", "stream": "S", "subject": "s"}},
    ):
        for settings in told.values():
            settings["credentials"] = {"secretName": "broker"}  # type: ignore[assignment]
        source = StreamSource.model_validate(told)
        publisher = open_publisher(source, Paths(secrets_root=str(tmp_path)))
        with pytest.raises(ConfigError, match=r"plugin\.library\.paths"):
            await publisher.publish(b"k", b"{}", {})
        await publisher.close()
