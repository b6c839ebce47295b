"""The setup for kills under load: one deployment a mode under ``fourways up``, and its answers.

The model returns its input, so every answer is known. The real-time deployment looks the input of
key ``kN``, which is N, up in a feature database; each request to a stream has an input of its own
and becomes an event. Store and feature database are databases of one PostgreSQL server. The logins
of both, of the host's NATS server and of a Kafka broker can be rotated, and so can the API key that
the requests carry.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from onnx import TensorProto, helper

from fourways_api.audience import DEPLOYMENTS_KEY, HOSTS_KEY
from fourways_api.runtime_config import CONFIG_VARIABLE
from fourways_cli.embedded.control import HostNotRunning, ask
from fourways_cli.embedded.ports import free_port
from tools.kit.models import onnx_bytes
from tools.servers import kafka, postgres

from .callers_rig import KeyFolder, NotServing
from .kills_host import STORE_VARIABLE
from .kills_servers import TOPIC, Database, KafkaLogin, child_named, crash, rotate_nats

KEYS = 500
START_SECONDS = 180.0
BATCH, REALTIME, STREAM, TAKEN = "nightly", "looked", "flow", "taken"
PROGRAMS = {"gateway": "gateway", REALTIME: "serve", STREAM: "stream"}
"""The program that serves, by the name of what is killed."""

_CALLER = "load"


class KillsRig:
    """The host, its processes, and the servers that they use."""

    def __init__(self, folder: Path, with_kafka: bool = False) -> None:
        """Start everything and wait until all is ready. Raises NotServing.

        ``with_kafka``: also start a Kafka broker, and a deployment that reads from it.
        """
        self.folder, self.state, self.port = folder, folder / "state", free_port()
        self._stack = ExitStack()
        try:
            self._start(with_kafka)
        except BaseException:
            self._stack.close()
            raise

    def _start(self, with_kafka: bool) -> None:
        self._keys = KeyFolder(self.folder / "keys")
        self.key = self._keys.add(_CALLER, "predict:*", "read:*")
        (self.folder / "m.onnx").write_bytes(
            onnx_bytes(
                [helper.make_node("Identity", ["x"], ["y"])],
                [("x", TensorProto.FLOAT, ["N"])],
                [("y", TensorProto.FLOAT, ["N"])],
            )
        )
        rows = "".join(f"k{n},{n}\n" for n in range(KEYS))
        (self.folder / "t.csv").write_text("id,x\n" + rows)
        self.postgres = self._stack.enter_context(postgres.running())
        self.store = Database(self.postgres, self.state / "store" / "uri")
        features = self._secret("db")
        self.features = Database(self.postgres, features / "uri")
        self.features.fill(KEYS)
        (features / "uri").write_text(self.features.uri)
        self.deployments: tuple[str, ...] = (BATCH, REALTIME, STREAM)
        secrets = [features]
        if with_kafka:
            self.deployments = (*self.deployments, TAKEN)
            self._broker = self._stack.enter_context(kafka.running())
            secrets.append(self._secret("broker"))
            self.kafka = KafkaLogin(self._broker, secrets[-1])
        self._start_host(secrets)
        self._await(lambda: all(map(self.ready, self.deployments)))
        if not self.store.tables():
            raise NotServing("the predictions are not in PostgreSQL")

    def _secret(self, name: str) -> Path:
        folder = self.folder / "secrets" / name
        folder.mkdir(parents=True)
        (folder / DEPLOYMENTS_KEY).write_text("*")
        (folder / HOSTS_KEY).write_text("127.0.0.1 localhost")
        return folder

    def _start_host(self, secrets: list[Path]) -> None:
        log = self._stack.enter_context((self.folder / "up.log").open("wb"))
        options = [f"--secret={folder.name}={folder}" for folder in secrets]
        # fmt: off
        self.host = subprocess.Popen(
            [
                sys.executable, "-m", "tools.torture.kills_host", "up",
                *map(str, self._manifests()), "--state", str(self.state),
                "--port", str(self.port), "--keys", str(self._keys.folder), *options,
            ],
            stdout=log, stderr=log, env={**os.environ, STORE_VARIABLE: self.store.uri},
        )
        # fmt: on
        self._stack.callback(self._stop_host)

    def _manifests(self) -> list[Path]:
        day = {"schedule": "0 3 1 1 *"}
        source = {"uri": (self.folder / "t.csv").as_uri(), "format": "CSV"}
        nats = {"servers": "nats://nats:4222", "stream": "FLOW", "subject": "flow.in"}
        features = {
            "database": {"secretName": "db"},
            "table": "t",
            "inputs": ["x"],
            "timeout": "1s",
        }
        blocks: dict[str, tuple[str, Any]] = {
            BATCH: ("batch", day | {"source": source}),
            REALTIME: ("realtime", {"timeout": "2s", "features": features}),
            STREAM: ("streaming", {"source": {"nats": nats}}),
        }
        if TAKEN in self.deployments:
            taken = {
                "bootstrapServers": self._broker.scram,
                "topic": TOPIC,
                "credentials": {"secretName": "broker"},
            }
            blocks[TAKEN] = ("streaming", {"source": {"kafka": taken}})
        files = []
        for name, (mode, block) in blocks.items():
            document = {
                "apiVersion": "fourways.dev/v1alpha1",
                "kind": "ModelDeployment",
                "metadata": {"name": name},
                "spec": {
                    "mode": mode,
                    "model": {"uri": (self.folder / "m.onnx").as_uri(), "version": "1"},
                    "contract": {
                        "entityKey": {"name": "id"},
                        "inputs": [{"name": "x", "type": "float32"}],
                        "outputs": [{"name": "y", "type": "float32"}],
                    },
                    mode: block,
                },
            }
            files.append(self.folder / f"{name}.yaml")
            files[-1].write_text(json.dumps(document))
        return files

    def crash_postgres(self) -> None:
        """Crash the server of store and feature database; it starts again at once."""
        crash(self.postgres)

    def rotate_nats(self) -> None:
        """Change the login of the host's own NATS server."""
        rotate_nats(self.state / "nats", child_named(self.host.pid, b"nats-server"))

    def rotate_key(self) -> None:
        """Give the caller another API key, which the requests use from the next on."""
        self.key = self._keys.add(_CALLER, "predict:*", "read:*")

    def conditions(self, name: str) -> dict[str, dict[str, str]]:
        """Return the conditions of a deployment by type; empty if the host does not say."""
        try:
            documents = ask(self.state, {"do": "status"})["deployments"]
        except (HostNotRunning, KeyError):
            return {}
        found = [d for d in documents if d["metadata"]["name"] == name]
        status: dict[str, Any] = (found[0].get("status") or {}) if found else {}
        return {c["type"]: c for c in status.get("conditions", ())}

    def ready(self, name: str) -> bool:
        """Tell whether a deployment is ready."""
        return self.conditions(name).get("Ready", {}).get("status") == "True"

    def pid_of(self, what: str) -> int:
        """Return the process that serves a deployment, or the gateway. Raises NotServing."""
        children = Path(f"/proc/{self.host.pid}/task/{self.host.pid}/children").read_text()
        for pid in map(int, children.split()):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if PROGRAMS[what].encode() not in words:
                continue
            told = dict(one.split(b"=", 1) for one in variables if b"=" in one)
            config = json.loads(told.get(CONFIG_VARIABLE.encode(), b"{}"))
            if what == "gateway" or config.get("name") == what:
                return pid
        raise NotServing(f"the host has no process of {what}")

    def kill(self, what: str) -> None:
        """Kill a process at once."""
        os.kill(self.pid_of(what), signal.SIGKILL)

    def _await(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if time.monotonic() > deadline or self.host.poll() is not None:
                said = (self.folder / "up.log").read_text(errors="replace")[-2000:]
                raise NotServing(f"the deployments did not become ready: {said}")
            time.sleep(0.2)

    def _stop_host(self) -> None:
        self.host.terminate()
        try:
            self.host.wait(30)
        except subprocess.TimeoutExpired:
            self.host.kill()
            self.host.wait()

    def close(self) -> None:
        """Stop the host and the servers."""
        self._stack.close()
        shutil.rmtree(self.state, ignore_errors=True)
