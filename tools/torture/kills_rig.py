"""The setup for kills under load: one deployment a mode under ``fourways up``, and its answers.

Each key ``kN`` has the input N, and the model returns its input: so every answer is known. The
real-time deployment looks N up in a feature database whose Secret can be rotated; requests carry an
API key that can be rotated.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from onnx import TensorProto, helper

from fourways_api.audience import DEPLOYMENTS_KEY
from fourways_api.runtime_config import CONFIG_VARIABLE
from fourways_cli.embedded.control import HostNotRunning, ask
from fourways_cli.embedded.ports import free_port
from tools.kit.models import onnx_bytes

from .callers_rig import KeyFolder, NotServing

KEYS = 500
START_SECONDS = 180.0
BATCH, REALTIME, STREAM = "nightly", "looked", "flow"
PROGRAMS = {"gateway": "gateway", REALTIME: "serve", STREAM: "stream"}
"""The program that serves, by the name of what is killed."""

_CALLER = "load"


class KillsRig:
    """The host and its processes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state, self.port = folder, folder / "state", free_port()
        self._keys = KeyFolder(folder / "keys")
        self.key = self._keys.add(_CALLER, "predict:*", "read:*")
        (folder / "m.onnx").write_bytes(
            onnx_bytes(
                [helper.make_node("Identity", ["x"], ["y"])],
                [("x", TensorProto.FLOAT, ["N"])],
                [("y", TensorProto.FLOAT, ["N"])],
            )
        )
        rows = "".join(f"k{n},{n}\n" for n in range(KEYS))
        (folder / "t.csv").write_text("id,x\n" + rows)
        self._secret = folder / "db"
        self._secret.mkdir()
        (self._secret / DEPLOYMENTS_KEY).write_text("*")
        self._rotations = 0
        self.rotate_features()
        self._log = (folder / "up.log").open("wb")
        # fmt: off
        self.host = subprocess.Popen(
            [
                sys.executable, "-m", "fourways_cli", "up", *map(str, self._manifests()),
                "--state", str(self.state), "--port", str(self.port),
                "--keys", str(self._keys.folder), "--secret", f"db={self._secret}",
            ],
            stdout=self._log, stderr=self._log,
        )
        # fmt: on
        self._await(lambda: all(self.ready(name) for name in (BATCH, REALTIME, STREAM)))

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

    def rotate_features(self) -> None:
        """Move the feature database elsewhere, and let its Secret say so; the old one is gone."""
        self._rotations += 1
        database = self.folder / f"features-{self._rotations}.db"
        with sqlite3.connect(database) as connection:
            connection.execute("CREATE TABLE t (id TEXT PRIMARY KEY, x REAL)")
            rows = [(f"k{n}", float(n)) for n in range(KEYS)]
            connection.executemany("INSERT INTO t VALUES (?, ?)", rows)
        connection.close()
        part = self.folder / ".uri"
        part.write_text(f"sqlite:///{database}")
        part.rename(self._secret / "uri")
        old = self.folder / f"features-{self._rotations - 1}.db"
        if old.exists():
            time.sleep(3.0)  # as in a rotation that is done well: both hold for a moment
            old.unlink()

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
                self.close()
                raise NotServing(f"the deployments did not become ready: {said}")
            time.sleep(0.2)

    def close(self) -> None:
        """Stop the host and what it started."""
        self.host.terminate()
        try:
            self.host.wait(30)
        except subprocess.TimeoutExpired:
            self.host.kill()
            self.host.wait()
        self._log.close()
        shutil.rmtree(self.state, ignore_errors=True)
