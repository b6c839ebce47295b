"""The setup for chaos runs of a stream worker: broker, store, worker, and a count of all writes.

A trigger in the database itself notes each answer that is written: a second one for an event shows,
and so does a missing one.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import psycopg

from fourways_api.runtime_config import CONFIG_VARIABLE
from fourways_cli.embedded.ports import free_port
from tools.servers.cut_line import CutLine
from tools.servers.kafka import running as running_kafka
from tools.servers.postgres import Server
from tools.servers.postgres import running as running_postgres

from .stream_brokers import Broker, KafkaBroker, NatsBroker, wait

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


class StreamRig:
    """A worker, its broker and its store, and what was sent."""

    def __init__(self, folder: Path, broker: str) -> None:
        self._folder = folder
        self._port = free_port()
        self._url = f"http://127.0.0.1:{self._port}"
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

        self.until(
            lambda: self.answered() == len(self.sent),
            lambda: f"all {len(self.sent)} events have answers, but {self.answered()}",
        )

    def answered(self) -> int:
        """Return how many events have answers; none while there is no store."""
        found = self.ask("SELECT count(DISTINCT id) FROM seen")
        return int(found[0][0]) if found else 0

    def until_told(self, *, ready: bool, waiting: Callable[[int], bool]) -> int:
        """Wait until the worker says whether it is ready, and how many events wait; return it."""

        def told() -> tuple[bool, bool, int] | None:
            try:
                text = httpx.get(f"{self._url}/metrics").text
                answer = httpx.get(f"{self._url}/v2/health/ready")
            except httpx.TransportError:
                return None
            lags = re.findall(r"^fourways_stream_lag{.*} (\S+)$", text, re.MULTILINE)
            metric = "\nfourways_stream_ready 1.0\n" in text
            return answer.is_success, metric, round(sum(map(float, lags)))

        last: list[tuple[bool, bool, int] | None] = []

        def true() -> list[int]:
            found = told()
            last[:] = [found] if found or not last else last
            fits = found is not None and found[:2] == (ready, ready) and waiting(found[2])
            return [found[2]] if found is not None and fits else []

        (count,) = wait(true, lambda: f"the worker told its state: {last}", 30, self.revive)
        return int(count)

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

    @contextmanager
    def full_store(self) -> Iterator[None]:
        """Leave PostgreSQL no room for predictions for as long as the context lasts."""
        self._set_room(False)
        try:
            yield
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

    def worker_story(self) -> str:
        """Tell how often the worker was started, and the end of its log."""
        log = (self._folder / "worker.log").read_text("utf-8", "replace")[-2000:]
        return f"{self.starts} starts of the worker, whose log ends with:\n{log}"

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
            "port": self._port,
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
