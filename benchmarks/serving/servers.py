"""The measured servers, each a process on its own core, and the environments of the peers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from time import monotonic, sleep

from fourways_cli.embedded.ports import free_port
from tools.cluster.config import cache_root
from tools.compiled import overlay
from tools.venvs import python_of

from .work import CONTRACT

CORE = 0
_BYTECODE = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(cache_root() / "bytecode")}
"""Where our processes find bytecode, as in the image and in the environments of the peers."""

START_SECONDS = 60.0
PEERS = Path(__file__).with_name("peers")
ROOT = Path(__file__).parents[2]
_COMMON = (
    "onnxruntime==1.31.1",
    "numpy==2.4.6",
    "orjson==3.13.0",
    "uvloop==0.23.0",
    "httptools==0.9.0",
)


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer: its name and its packages."""

    name: str
    title: str
    packages: tuple[str, ...]

    @property
    def python(self) -> Path:
        """The Python of its environment, created if it is missing."""
        return python_of(self.name, (*self.packages, *_COMMON))


PEERS_MEASURED = (
    Peer("fastapi", "FastAPI + uvicorn", ("fastapi==0.165.0", "uvicorn==0.54.0")),
    Peer("kserve", "KServe SDK, logs off", ("kserve==0.21.0",)),
    Peer("mlserver", "MLServer, in-process", ("mlserver==1.7.1",)),
    Peer("bentoml", "BentoML, in-process", ("bentoml==1.4.40",)),
)


def commands(
    model: Path, scratch: Path, grpc_port: int | None = None
) -> dict[str, tuple[list[str], dict[str, str], int]]:
    """Return each server's command, environment and port, by name.

    ``grpc_port``: also one of ours that listens for gRPC there, as ``grpc``.
    """
    found: dict[str, tuple[list[str], dict[str, str], int]] = {}
    port = free_port()
    ours = {
        "namespace": "bench",
        "name": "model",
        "host": "127.0.0.1",
        "port": port,
        "model": {"uri": model.as_uri(), "version": "v1"},
        "contract": CONTRACT,
        "paths": {"cacheDir": str(scratch / "cache"), "terminationLog": str(scratch / "words")},
    }
    # As in the image, with the hot path and all bytecode compiled.
    config = {"FOURWAYS_CONFIG": json.dumps(ours), "PYTHONPATH": str(overlay()), **_BYTECODE}
    found["fourways"] = [sys.executable, "-m", "fourways_runtime", "serve"], config, port
    if grpc_port is not None:
        port = free_port()
        ours |= {"port": port, "grpcPort": grpc_port}
        found["grpc"] = found["fourways"][0], config | {"FOURWAYS_CONFIG": json.dumps(ours)}, port
    port = free_port()
    path = {"PYTHONPATH": os.pathsep.join((str(overlay()), str(ROOT))), **_BYTECODE}
    found["empty"] = [sys.executable, "-m", "benchmarks.serving.empty", str(port)], path, port
    for peer in PEERS_MEASURED:
        port = free_port()
        script = str(PEERS / f"{peer.name}_server.py")
        found[peer.name] = [str(peer.python), script, str(model), str(port)], {}, port
    return found


@dataclass(slots=True)
class Running:
    """A running server."""

    url: str
    process: int
    ready_seconds: float

    @property
    def cpu_seconds(self) -> float:
        """CPU time used so far."""
        fields = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def memory(self) -> float:
        """Its share of memory (PSS), in MB."""
        return _memory(self.process)


@contextmanager
def running(
    command: list[str], environment: dict[str, str], port: int, log: Path, *, ready: bool = True
) -> Iterator[Running]:
    """Run a server on its core; yield it once it is ready, or at once if not ``ready``."""
    began = monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "-c", str(CORE), *command],
            cwd=ROOT,
            env={**os.environ, **environment, "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=output,
        )
    try:
        while ready and not _answers(port):
            if process.poll() is not None or monotonic() - began > START_SECONDS:
                raise RuntimeError(f"{command[:3]} does not answer: {log.read_text()[-800:]}")
            sleep(0.01)
        yield Running(f"http://127.0.0.1:{port}", process.pid, monotonic() - began)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _memory(process: int) -> float:
    """Return a process's share of memory (PSS), in MB."""
    rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
    line = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
    return int(line.split()[1]) / 1000
