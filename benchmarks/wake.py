"""Measure wakes from zero on this machine: `fourways up`, a small model, one request each.

After each answer the model server is ended, and the next request waits for it to start again.
Beside every tenth wake the same server is started alone, with the same configuration, and asked
until it answers: the price of a wake is the difference. Then another deployment, which had a batch
run before its mode was changed, answers by `fallback: stored` while its replica starts. The wakes
end after ten minutes, however many there were. Usage: python -m benchmarks.wake [WAKES].
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pyarrow as pa
from pyarrow import parquet

from benchmarks.figures import figure, percentile
from fourways_api.runtime_config import CONFIG_VARIABLE
from fourways_cli.embedded.control import HostNotRunning, ask
from fourways_cli.embedded.ports import free_port
from tools.kit.models import LINEAR, linear

WAKES = 1_000
BARE_EVERY = 10
LONGEST_SECONDS = 600.0
STORED = 50
GOAL_P50_SECONDS, GOAL_P99_SECONDS, GOAL_STORED_SECONDS = 1.5, 2.5, 0.005
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
        with httpx.Client(timeout=120, trust_env=False) as client:
            with hosting(folder, manifest(folder)) as url:
                wakes, bare, lost = measured(client, url, folder, count)
            with hosting(folder, batch(folder)) as url:
                stored = answered_by_store(client, url, folder)
    print(f"{len(wakes)} wakes, {len(bare)} starts of the server alone")
    print(f"alone: p50 {percentile(bare, 0.5):.3f} s, p99 {percentile(bare, 0.99):.3f} s")
    met = [
        figure("wake_first_answer_p50_seconds", percentile(wakes, 0.5), GOAL_P50_SECONDS),
        figure("wake_first_answer_p99_seconds", percentile(wakes, 0.99), GOAL_P99_SECONDS),
        figure("wake_lost_requests", lost, 0),
        figure("wake_stored_answer_p50_seconds", percentile(stored, 0.5), GOAL_STORED_SECONDS),
    ]
    return 0 if all(met) else 1


def measured(
    client: httpx.Client, url: str, folder: Path, count: int
) -> tuple[list[float], list[float], int]:
    """Return the seconds of each wake, those of the server alone, and how many requests failed."""
    wakes, bare, lost = [], [], 0
    state = folder / "state"
    ends = time.monotonic() + LONGEST_SECONDS
    for number in range(count):
        if time.monotonic() > ends:
            break
        await_sleep(state)
        began = time.perf_counter()
        answer = client.post(url + INFER, content=BODY)
        wakes.append(time.perf_counter() - began)
        lost += answer.status_code != 200
        if number % BARE_EVERY == 0:
            await_sleep(state)
            bare.append(alone(client, folder))
    return wakes, bare, lost


def answered_by_store(client: httpx.Client, url: str, folder: Path) -> list[float]:
    """Run a batch deployment, make it real-time, and return the seconds of answers by the store."""
    state = folder / "state"
    _until(lambda: reason(state, "s") != "", "the batch deployment is known")
    command = [sys.executable, "-m", "fourways_cli", "start-run", "s", "--watch", "--state"]
    subprocess.run([*command, str(state)], check=True, stdout=subprocess.DEVNULL)
    sleeper(folder, "s", fallback="stored")
    seconds = []
    for _ in range(STORED):
        await_sleep(state, "s")
        began = time.perf_counter()
        answer = client.get(f"{url}/predictions/s/k1")
        seconds.append(time.perf_counter() - began)
        if answer.status_code != 200 or "age" not in answer.headers:
            raise RuntimeError(f"not answered by the store: {answer.status_code} {answer.text}")
    return seconds


@contextmanager
def hosting(folder: Path, file: Path) -> Iterator[str]:
    """Run the host with a manifest; yields the gateway's address."""
    port = free_port()
    options = ["--state", str(folder / "state"), "--port", str(port)]
    volume = ["--volume", f"models={folder / 'models'}"]
    command = [sys.executable, "-m", "fourways_cli", "up", str(file), *options, *volume]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as host:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            host.terminate()


def manifest(folder: Path) -> Path:
    """Write a deployment that sleeps as soon as it has answered."""
    return sleeper(folder, "m")


def sleeper(folder: Path, name: str, **more: str) -> Path:
    """Write a real-time deployment that scales to zero."""
    settings = {"minReplicas": 0, "scaleToZeroAfter": "20ms", "wakeTimeout": "60s", **more}
    return written(folder, name, {"mode": "realtime", "realtime": settings})


def batch(folder: Path) -> Path:
    """Write a batch deployment and its table of one row."""
    row = {"id": ["k1"], "age": [40], "spend": [1.5], "rate": [0.25]}
    parquet.write_table(pa.table(row), folder / "models" / "rows.parquet")
    source = {"uri": "pvc://models/rows.parquet"}
    return written(
        folder, "s", {"mode": "batch", "batch": {"schedule": "0 3 1 1 *", "source": source}}
    )


def written(folder: Path, name: str, spec: dict[str, Any]) -> Path:
    """Write a deployment of the small model."""
    digest = hashlib.sha256(linear()).hexdigest()
    file = folder / f"{name}.yaml"
    model = {"uri": "pvc://models/m.onnx", "version": "1", "digest": f"sha256:{digest}"}
    document = {
        "apiVersion": "fourways.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {"model": model, "contract": LINEAR, **spec},
    }
    file.write_bytes(orjson.dumps(document))
    return file


def await_sleep(state: Path, name: str = "m") -> None:
    """Wait until the deployment sleeps and its process has ended."""
    log = state / "logs" / f"default-{name}-realtime.log"

    def asleep() -> bool:
        lines = log.read_text() if log.exists() else ""
        ended = lines.count('"stopped"') == lines.count('"listening"')
        return ended and reason(state, name) == "Asleep"

    _until(asleep, "the deployment sleeps")


def _until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise RuntimeError(f"after {PATIENCE_SECONDS:g} s still not: {what}")
        time.sleep(PAUSE_SECONDS)


def reason(state: Path, name: str = "m") -> str:
    """Return the reason of Ready; empty while the host starts."""
    try:
        found = ask(state, {"do": "status"})["deployments"]
    except HostNotRunning:
        return ""
    status: dict[str, Any] = next((d["status"] for d in found if d["metadata"]["name"] == name), {})
    conditions: list[dict[str, Any]] = status.get("conditions", [])
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
