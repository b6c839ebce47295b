"""The brokers of chaos runs of a stream worker: killed, started again, made anew.

Each has one topic or stream, and takes every event once.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from fourways_cli.embedded.ports import free_port
from tools.servers.kafka import Kafka

NAME = "events"


class Stuck(Exception):
    """Something did not happen in time; the message says what."""


def wait(
    condition: Callable[[], Any],
    what: str | Callable[[], str],
    seconds: float,
    meanwhile: Callable[[], None] = lambda: None,
) -> Any:
    """Poll a condition and return what it returns. Raises Stuck after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(OSError):
            if found := condition():
                return found
        if time.monotonic() > deadline:
            raise Stuck(
                f"after {seconds:g} s still not: {what if isinstance(what, str) else what()}"
            )
        meanwhile()
        time.sleep(0.05)


class Broker(Protocol):
    """A broker with one topic or stream."""

    def source(self) -> dict[str, Any]:
        """Return it as a manifest's ``streaming.source``."""
        ...

    def send(self, events: Sequence[tuple[str, float]]) -> None:
        """Publish events by key; each is there once on return."""
        ...

    def restart(self) -> None:
        """Kill it and start it again."""
        ...

    def remake(self) -> None:
        """Delete topic or stream, and make it anew."""
        ...


class NatsBroker:
    """A NATS server with one stream."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._start()
        self._do(self._make)

    def source(self) -> dict[str, Any]:
        """Return the stream."""
        return {"nats": {"servers": self._url, "stream": "EVENTS", "subject": NAME}}

    def send(self, events: Sequence[tuple[str, float]]) -> None:
        """Publish events; the server drops what it has by its id."""

        async def work(jetstream: Any) -> None:
            for first in range(0, len(events), 200):
                await asyncio.gather(
                    *(
                        jetstream.publish(
                            NAME, _value(key, x), headers={"Nats-Msg-Id": key}, timeout=10
                        )
                        for key, x in events[first : first + 200]
                    )
                )

        self._do(work)

    def restart(self) -> None:
        """Kill the server and start it again."""
        self.stop()
        self._start()

    def remake(self) -> None:
        """Delete the stream and make it anew."""

        async def work(jetstream: Any) -> None:
            await jetstream.delete_stream("EVENTS")
            await self._make(jetstream)

        self._do(work)

    def stop(self) -> None:
        """Kill the server."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def _url(self) -> str:
        return f"nats://127.0.0.1:{self._port}"

    def _start(self) -> None:
        config = self._folder / "nats.conf"
        store = {"store_dir": str(self._folder / "jetstream"), "sync_interval": "always"}
        config.write_text(json.dumps({"listen": f"127.0.0.1:{self._port}", "jetstream": store}))
        program = Path(sys.executable).with_name("nats-server")
        self._process = subprocess.Popen(
            [program, "--config", config], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )

        def listens() -> bool:
            socket.create_connection(("127.0.0.1", self._port), timeout=5).close()
            return True

        wait(listens, "NATS listens", 30)

    async def _make(self, jetstream: Any) -> None:
        await jetstream.add_stream(name="EVENTS", subjects=[NAME])

    def _do(self, work: Callable[[Any], Any]) -> None:
        import nats

        async def run() -> None:
            client = await nats.connect(self._url)
            try:
                await work(client.jetstream())
            finally:
                await client.close()

        asyncio.run(run())


class KafkaBroker:
    """A Kafka broker with one topic of three partitions."""

    def __init__(self, server: Kafka) -> None:
        self._server = server
        server.make_topic(NAME, 3)

    def source(self) -> dict[str, Any]:
        """Return the topic."""
        return {"kafka": {"bootstrapServers": self._server.bootstrap, "topic": NAME}}

    def send(self, events: Sequence[tuple[str, float]]) -> None:
        """Publish events with an idempotent producer."""
        from confluent_kafka import Producer

        producer = Producer(
            {
                "bootstrap.servers": self._server.bootstrap,
                "enable.idempotence": True,
                "log_level": 0,
            }
        )
        for key, x in events:
            producer.produce(NAME, _value(key, x), key)
        if producer.flush(120):
            raise Stuck("Kafka did not take all events within 120 s")

    def restart(self) -> None:
        """Kill the broker and start it again."""
        self._server.kill()
        self._server.start()

    def remake(self) -> None:
        """Delete the topic and make it anew."""
        admin = self._server.admin()
        admin.delete_topics([NAME])[NAME].result(30)
        wait(lambda: NAME not in admin.list_topics(timeout=5).topics, "the topic is gone", 60)
        self._server.make_topic(NAME, 3)


def _value(key: str, x: float) -> bytes:
    return json.dumps({"id": key, "x": x}).encode()
