"""Measure wakes from zero on this machine: `fourways up`, a small model, one request each.

After each answer the model server is ended, and the next request waits for it to start again.
Beside every tenth wake the same server is started alone, with the same configuration, and asked
until it answers: the price of a wake is the difference. Usage: python -m benchmarks.wake [WAKES].
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson

from benchmarks.figures import figure, percentile
from fourways_api.runtime_config import CONFIG_VARIABLE
from fourways_cli.embedded.control import HostNotRunning, ask
from fourways_cli.embedded.ports import free_port
from tools.kit.models import LINEAR, linear

WAKES = 1_000
BARE_EVERY = 10
GOAL_P50_SECONDS, GOAL_P99_SECONDS = 1.5, 2.5
PATIENCE_SECONDS = 60.0
PAUSE_SECONDS = 0.005
INFER = "/v2/models/m/infer"
BODY = orjson.dumps(
    {
        "inputs": [
            {"name": "age", "datatype": "INT32", "shape": [1], "data": [40]},
            {"name": "spend", "datatype": "FP32", "shape": [1], "data": [1.5]},
            {"name": "rate", "datatype": "FP32", "shape": [1], "data": [0.25]},
        ]
    }
)


def main() -> int:
    """Measure and print; return 1 if a goal is missed."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else WAKES
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "models").mkdir()
        (folder / "models" / "m.onnx").write_bytes(linear())
        with hosting(folder) as url, httpx.Client(timeout=120, trust_env=False) as client:
            wakes, bare, lost = measured(client, url, folder, count)
    print(f"{len(wakes)} wakes, {len(bare)} starts of the server alone")
    print(f"alone: p50 {percentile(bare, 0.5):.3f} s, p99 {percentile(bare, 0.99):.3f} s")
    met = [
        figure("wake_first_answer_p50_seconds", percentile(wakes, 0.5), GOAL_P50_SECONDS),
        figure("wake_first_answer_p99_seconds", percentile(wakes, 0.99), GOAL_P99_SECONDS),
        figure("wake_lost_requests", lost, 0),
    ]
    return 0 if all(met) else 1


def measured(
    client: httpx.Client, url: str, folder: Path, count: int
) -> tuple[list[float], list[float], int]:
    """Return the seconds of each wake, those of the server alone, and how many requests failed."""
    wakes, bare, lost = [], [], 0
    state = folder / "state"
    for number in range(count):
        await_sleep(state)
        began = time.perf_counter()
        answer = client.post(url + INFER, content=BODY)
        wakes.append(time.perf_counter() - began)
        lost += answer.status_code != 200
        if number % BARE_EVERY == 0:
            await_sleep(state)
            bare.append(alone(client, folder))
    return wakes, bare, lost


@contextmanager
def hosting(folder: Path) -> Iterator[str]:
    """Run the host; yields the gateway's address."""
    port = free_port()
    options = ["--state", str(folder / "state"), "--port", str(port)]
    volume = ["--volume", f"models={folder / 'models'}"]
    command = [sys.executable, "-m", "fourways_cli", "up", str(manifest(folder)), *options, *volume]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as host:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            host.terminate()


def manifest(folder: Path) -> Path:
    """Write a deployment that sleeps as soon as it has answered."""
    digest = hashlib.sha256(linear()).hexdigest()
    file = folder / "m.yaml"
    document = {
        "apiVersion": "fourways.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "m"},
        "spec": {
            "mode": "realtime",
            "model": {"uri": "pvc://models/m.onnx", "version": "1", "digest": f"sha256:{digest}"},
            "contract": LINEAR,
            "realtime": {"minReplicas": 0, "scaleToZeroAfter": "20ms", "wakeTimeout": "60s"},
        },
    }
    file.write_bytes(orjson.dumps(document))
    return file


def await_sleep(state: Path) -> None:
    """Wait until the deployment sleeps and its process has ended."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    log = state / "logs" / "default-m-realtime.log"
    while time.monotonic() < deadline:
        lines = log.read_text() if log.exists() else ""
        if reason(state) == "Asleep" and lines.count('"stopped"') == lines.count('"listening"'):
            return
        time.sleep(PAUSE_SECONDS)
    raise RuntimeError("the deployment does not go to sleep")


def reason(state: Path) -> str:
    """Return the reason of Ready; empty while the host starts."""
    try:
        (found,) = ask(state, {"do": "status"})["deployments"]
    except HostNotRunning:
        return ""
    conditions: list[dict[str, Any]] = found["status"]["conditions"]
    return next((c["reason"] for c in conditions if c["type"] == "Ready"), "")


def alone(client: httpx.Client, folder: Path) -> float:
    """Start the server without the host; return the seconds until its first answer."""
    port = free_port()
    state = folder / "state"
    config = {
        "namespace": "default",
        "name": "m",
        "model": {"uri": "pvc://models/m.onnx", "format": "onnx", "version": "1"},
        "contract": LINEAR,
        "host": "127.0.0.1",
        "port": port,
        "paths": {
            "volumesRoot": str(folder),
            "cacheDir": str(state / "alone"),
            "terminationLog": str(folder / "last-words"),
        },
    }
    environment = {**os.environ, CONFIG_VARIABLE: orjson.dumps(config).decode()}
    command = [sys.executable, "-P", "-m", "fourways_runtime", "serve"]
    quiet = subprocess.DEVNULL
    began = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet) as server:
        try:
            while time.perf_counter() - began < PATIENCE_SECONDS:
                try:
                    answer = client.post(f"http://127.0.0.1:{port}{INFER}", content=BODY)
                except httpx.TransportError:
                    pass
                else:
                    if answer.status_code == 200:
                        return time.perf_counter() - began
                time.sleep(PAUSE_SECONDS)
            raise RuntimeError("the server alone does not answer")
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    sys.exit(main())
