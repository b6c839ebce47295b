"""The setup for chaos runs of a stream worker: broker, store, worker, and a count of all writes.

A trigger in the database itself notes each answer that is written: a second one for an event shows,
and so does a missing one.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Protocol, Self

import psycopg

from fourways_api.runtime_config import CONFIG_VARIABLE
from fourways_cli.embedded.ports import free_port
from tools.servers.cut_line import CutLine
from tools.servers.kafka import Kafka
from tools.servers.kafka import running as running_kafka
from tools.servers.postgres import Server
from tools.servers.postgres import running as running_postgres

NAME = "events"
_MODEL = """
class Model:
    def load(self):
        return True

    def predict(self, payload, headers=None):
        return {"y": payload["x"] * 2 + 1}

    def get_input_types(self):
        return [{"name": "x", "datatype": "FP64", "shape": [-1]}]

    def get_output_types(self):
        return [{"name": "y", "datatype": "FP64", "shape": [-1]}]
"""
_CONTRACT = {
    "entityKey": {"name": "id"},
    "inputs": [{"name": "x", "type": "float64"}],
    "outputs": [{"name": "y", "type": "float64"}],
}
_COUNT = """
CREATE TABLE seen (id text, y double precision);
CREATE TABLE room (left_over boolean);
INSERT INTO room VALUES (true);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
IF NOT (SELECT left_over FROM room) THEN
    RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
END IF;
INSERT INTO seen VALUES (NEW.id, NEW.y); RETURN NEW; END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE ON fourways.{table}
FOR EACH ROW EXECUTE FUNCTION note();
"""


class Stuck(Exception):
    """Something did not happen in time; the message says what."""


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


class StreamRig:
    """A worker, its broker and its store, and what was sent."""

    def __init__(self, folder: Path, broker: str) -> None:
        self._folder = folder
        self._broker_name = broker
        self._stack = ExitStack()
        self._worker: subprocess.Popen[bytes] | None = None
        self.sent: dict[str, float] = {}
        self.starts = 0

    def __enter__(self) -> Self:
        try:
            self._set_up()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _set_up(self) -> None:
        self.postgres: Server = self._stack.enter_context(running_postgres())
        self.line = self._stack.enter_context(CutLine(self.postgres))
        self.store = self.postgres.database()
        self.broker: Broker
        if self._broker_name == "kafka":
            self.broker = KafkaBroker(self._stack.enter_context(running_kafka()))
        else:
            nats = NatsBroker(self._folder)
            self._stack.callback(nats.stop)
            self.broker = nats
        self._stack.callback(self.stop_worker)
        self.revive()
        found = self.until(
            lambda: self.ask("SELECT table_name FROM fourways.streams"), "the stream has a table"
        )
        with psycopg.connect(self.store, autocommit=True) as connection:
            connection.execute(_COUNT.format(table=found[0][0]).encode())

    # ---- events

    def send(self, count: int) -> None:
        """Publish new events."""
        start = len(self.sent)
        events = [(f"k{at}", float(at)) for at in range(start, start + count)]
        self.sent.update(events)
        self.broker.send(events)

    def settle(self) -> None:
        """Wait until every event sent has an answer."""

        count = "SELECT count(DISTINCT id) FROM seen"
        self.until(
            lambda: self.ask(count) == [(len(self.sent),)],
            lambda: f"all {len(self.sent)} events have answers, but {self.ask(count)}",
        )

    def check(self) -> list[str]:
        """Return what is lost, doubled, wrong or dead; nothing, if all is well."""
        found = self.ask("SELECT id, y FROM seen")
        answers = dict(found)
        wrong = [key for key, x in self.sent.items() if answers.get(key, x * 2 + 1) != x * 2 + 1]
        faults = {
            "lost": len(self.sent.keys() - answers.keys()),
            "doubled": len(found) - len(answers),
            "wrong": len(wrong),
            "dead letters": int(self.ask("SELECT count(*) FROM fourways.dead_letters")[0][0]),
        }
        return [f"{count} {what}" for what, count in faults.items() if count]

    # ---- processes

    def restart_store(self) -> None:
        """Stop PostgreSQL at once and start it again."""
        self.postgres.stop()
        self.postgres.start()

    def crash_store(self) -> None:
        """Crash PostgreSQL and start it again."""
        self.postgres.crash()
        self.postgres.start()

    def pause_store(self, seconds: float) -> None:
        """Stop all processes of PostgreSQL with SIGSTOP for a while."""
        pids = [int(pid) for (pid,) in self.ask("SELECT pid FROM pg_stat_activity")]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def fill_store(self, seconds: float) -> None:
        """Leave PostgreSQL no room for predictions for a while."""
        self._set_room(False)
        try:
            time.sleep(seconds)
        finally:
            self._set_room(True)

    def _set_room(self, left_over: bool) -> None:
        with psycopg.connect(self.store, autocommit=True) as connection:
            connection.execute("UPDATE room SET left_over = %s", (left_over,))

    def revive(self) -> None:
        """Start the worker if it has ended, as a kubelet does."""
        if self._worker is not None and self._worker.poll() is None:
            return
        self.starts += 1
        with (self._folder / "worker.log").open("ab") as log:
            self._worker = subprocess.Popen(
                [sys.executable, "-m", "fourways_runtime", "stream"],
                env={
                    **os.environ,
                    CONFIG_VARIABLE: json.dumps(self._config()),
                    "PYTHONPATH": str(self._folder),
                },
                stderr=log,
            )

    def stop_worker(self) -> None:
        """End the worker."""
        if self._worker is not None:
            self._worker.terminate()
            try:
                self._worker.wait(40)
            except subprocess.TimeoutExpired:
                self._worker.kill()
                self._worker.wait()

    def _config(self) -> dict[str, Any]:
        (self._folder / "torture_code.py").write_text(_MODEL)
        (self._folder / "model").write_text("none")
        (self._folder / "store-secret").mkdir(exist_ok=True)
        (self._folder / "store-secret" / "uri").write_text(self.line.uri(self.store))
        return {
            "namespace": "torture",
            "name": "stream",
            "model": {
                "uri": f"file://{self._folder}/model",
                "version": "v1",
                "format": "python",
                "pythonClass": "torture_code:Model",
            },
            "contract": _CONTRACT,
            "streaming": {
                "source": self.broker.source(),
                "microBatch": {"maxEvents": 64, "maxDelay": "5ms"},
            },
            "port": free_port(),
            "host": "127.0.0.1",
            "paths": {
                "storeUriFile": f"{self._folder}/store-secret/uri",
                "secretsRoot": f"{self._folder}/secrets",
                "cacheDir": f"{self._folder}/cache",
                "terminationLog": f"{self._folder}/last-words",
            },
        }

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """Query the store, past the line; nothing while there is none."""
        try:
            with psycopg.connect(self.store, connect_timeout=5) as connection:
                return connection.execute(query.encode()).fetchall()
        except (psycopg.OperationalError, psycopg.errors.UndefinedTable):
            return []

    def until(self, condition: Callable[[], Any], what: str | Callable[[], str]) -> Any:
        """Wait for a condition while the worker is kept running. Raises Stuck."""
        return wait(condition, what, 180, self.revive)


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


def _value(key: str, x: float) -> bytes:
    return json.dumps({"id": key, "x": x}).encode()
