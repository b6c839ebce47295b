"""What the tests of the streaming mode run against: brokers, workers as processes, a checker.

The model's answer is a function of the event, so that the store can be held against what was sent.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import psycopg

from fourways_api import RunReport
from fourways_api.base import SKIP_RULES
from fourways_api.runtime_config import StreamConfig
from fourways_cli.embedded.ports import free_port
from fourways_runtime.io.store import open_reader
from tests.kit.runtime_process import command, import_path
from tests.kit.serving_plane import NO_TLS
from tests.kit.waiting import until

PATIENCE = 6
"""A machine with other things to do takes so many times as long."""

PARTITIONS = 3
"""Of each topic that the fixture `topic` makes."""

NATS = Path(sys.executable).with_name("nats-server")


class NatsServer:
    """A server with JetStream that syncs each message to disk; it may be stopped and started."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.password = ""
        """Of the user "fourways", from the next start on; nobody has to log in if it is empty."""

    def start(self) -> None:
        config = self._folder / "nats.conf"
        store = {"store_dir": str(self._folder / "jetstream"), "sync_interval": "always"}
        settings: dict[str, Any] = {"listen": f"127.0.0.1:{self.port}", "jetstream": store}
        if self.password:
            settings["authorization"] = {"user": "fourways", "password": self.password}
        config.write_text(json.dumps(settings))
        self._process = subprocess.Popen(
            [NATS, "--config", config], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        until(self._listens, "NATS listens", ignoring=OSError)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _listens(self) -> bool:
        socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        return True

    def do(self, work: Any) -> Any:
        """Run ``work(jetstream)`` on a connection of its own."""
        import nats

        async def run() -> Any:
            login = {"user": "fourways", "password": self.password} if self.password else {}
            client = await nats.connect(self.url, **login)
            try:
                return await work(client.jetstream())
            finally:
                await client.close()

        return asyncio.run(run())

    def publish(self, messages: Iterable[tuple[str, bytes, dict[str, str] | None]]) -> None:
        """Publish messages in order (subject, body, headers), some hundred at a time."""
        left = iter(messages)

        async def work(jetstream: Any) -> None:
            while some := list(islice(left, 256)):
                await asyncio.gather(
                    *(jetstream.publish(at, body, headers=headers) for at, body, headers in some)
                )

        self.do(work)

    def make_stream(self, name: str, *subjects: str) -> None:
        self.do(lambda jetstream: jetstream.add_stream(name=name, subjects=list(subjects)))


@contextmanager
def nats_server(folder: Path) -> Iterator[NatsServer]:
    server = NatsServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


# ---------------------------------------------------------------- workers

MODEL = """
import os
import time

class Model:
    def load(self):
        return True

    def predict(self, payload, headers=None):
        x = payload["x"]
        if (x == 13).any():
            raise ValueError("thirteen")
        if (x == 666).any():
            os._exit(9)
        if (x == 777).any():
            time.sleep(3600)
        if (x == 5000).any():
            return {"y": x[:0]}
        return {"y": x * 2 + 1}

    def get_input_types(self):
        return [{"name": "x", "datatype": "FP64", "shape": [-1]}]

    def get_output_types(self):
        return [{"name": "y", "datatype": "FP64", "shape": [-1]}]
"""

CONTRACT = {
    "entityKey": {"name": "id"},
    "inputs": [{"name": "x", "type": "float64", "range": {"min": 0}}],
    "outputs": [{"name": "y", "type": "float64"}],
}


def configure(root: Path, store: str, source: dict[str, Any], **streaming: Any) -> StreamConfig:
    """Return a worker's configuration, its model and its Secret written to ``root``."""
    (root / "users_code.py").write_text(MODEL)
    (root / "model").write_text("none")
    # A model is not read from the folder of the store's address.
    (root / "store-secret").mkdir(exist_ok=True)
    (root / "store-secret" / "uri").write_text(store)
    document = {
        "namespace": "n",
        "name": "anomaly",
        "model": {
            "uri": f"file://{root}/model",
            "version": "v1",
            "format": "python",
            "pythonClass": "users_code:Model",
        },
        "contract": CONTRACT,
        "streaming": {
            "source": source,
            "microBatch": {"maxEvents": 64, "maxDelay": "5ms"},
            **streaming,
        },
        "port": free_port(),
        "host": "127.0.0.1",
        "paths": {
            "storeUriFile": f"{root}/store-secret/uri",
            "secretsRoot": f"{root}/secrets",
            "cacheDir": f"{root}/cache",
            "terminationLog": f"{root}/last-words",
        },
    }
    return StreamConfig.model_validate(document, context=SKIP_RULES)


class WorkerProcess:
    """A stream worker as a process, started anew as often as is asked."""

    def __init__(
        self, root: Path, config: StreamConfig, periods: Mapping[str, float] | None = None
    ) -> None:
        """``periods``: seconds of constants, as `tests.kit.runtime_process.command` takes them."""
        self.root = root
        self._periods = periods
        self.config = config.model_copy(update={"port": free_port()})
        self.url = f"http://127.0.0.1:{self.config.port}"
        self.log = root / f"worker-{self.config.port}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command("stream", self._periods),
                env={
                    **os.environ,
                    "FOURWAYS_CONFIG": json.dumps(self.config.to_json()),
                    "PYTHONPATH": import_path(self.root, self.root),
                },
                stderr=log,
            )

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """End it as a kubelet does; return its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.ended(30)

    def ended(self, seconds: float) -> int:
        """Wait for its end; return its exit code. ``seconds``: with the machine to itself."""
        assert self.process is not None
        return self.process.wait(seconds * PATIENCE)

    def revive(self) -> bool:
        """Start it where it has died, as a kubelet does."""
        assert self.process is not None
        if self.process.poll() is None:
            return False
        self.start()
        return True

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/v2/health/ready", verify=NO_TLS).status_code == 200
        except httpx.HTTPError:
            return False

    def readiness(self) -> str:
        """Return what it says of its readiness, or why it is not ready."""
        return httpx.get(f"{self.url}/v2/health/ready", verify=NO_TLS).text

    def faults(self) -> list[dict[str, str]]:
        """Return the faults that it lists."""
        found: list[dict[str, str]] = httpx.get(f"{self.url}/faults", verify=NO_TLS).json()[
            "faults"
        ]
        return found

    def metric(self, name: str) -> float:
        """Return the sum of a metric's samples."""
        lines = [line for line in self.metrics().splitlines() if line.startswith(name)]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def metrics(self) -> str:
        return httpx.get(f"{self.url}/metrics", verify=NO_TLS).text

    def last_words(self) -> RunReport:
        return RunReport.model_validate_json((self.root / "last-words").read_text())


# ---------------------------------------------------------------- the store


def ask(store: str, query: str) -> list[tuple[Any, ...]]:
    """Ask a store with SQL of both databases; none where there are no tables yet."""
    try:
        if store.startswith("sqlite"):
            path = store.removeprefix("sqlite:///")
            if not os.path.exists(path):
                return []
            connection = sqlite3.connect(path, timeout=30)
            try:
                return connection.execute(query.replace("fourways.", "")).fetchall()
            finally:
                connection.close()
        with psycopg.connect(store) as line:
            return line.execute(query.encode()).fetchall()
    except (sqlite3.OperationalError, psycopg.errors.UndefinedTable):
        return []


def stands(store: str) -> dict[int, int]:
    return dict(ask(store, "SELECT partition, next FROM fourways.positions"))


def answers(store: str, keys: list[str]) -> dict[Any, float]:
    """Return what readers get, by key."""

    async def look() -> dict[Any, float]:
        reader = open_reader(store, 30.0)
        try:
            found = await reader.live("n", "anomaly", list(keys))
            assert found is not None
            return {key: answer.outputs["y"] for key, answer in found.answers.items()}
        finally:
            await reader.close()

    return asyncio.run(look())


def dead_letters(store: str) -> list[tuple[Any, ...]]:
    """Return key, attempts and reason of each."""
    rows = ask(store, "SELECT key, attempts, reason FROM fourways.dead_letters ORDER BY key")
    return [(bytes(key).decode(), attempts, reason) for key, attempts, reason in rows]


# ---------------------------------------------------------------- waiting


def answered(store: str, *keys: str) -> None:
    """Wait until these keys have their answers."""
    expected = {key: len(key) * 2.0 + 1 for key in keys}
    until(
        lambda: (
            bool(ask(store, "SELECT 1 FROM fourways.streams"))
            and answers(store, list(keys)) == expected
        ),
        lambda: f"{keys[:5]} are answered; the positions are {stands(store)}",
        seconds=20 * PATIENCE,
    )


def ready(worker: WorkerProcess) -> None:
    """Wait until a worker is ready."""
    until(worker.ready, "the worker is ready", seconds=30 * PATIENCE)
