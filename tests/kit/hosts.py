"""A `fourways up` of the test's own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from fourways_cli.embedded.control import HostNotRunning, ask
from fourways_cli.embedded.ports import free_port
from tests.kit.waiting import until


def patiently(ask: Callable[[], httpx.Response], seconds: float = 30) -> httpx.Response:
    """Ask as a backend does: again, where a 503 says so, or nobody listens yet.

    A busy machine makes a store slow, and a gateway later than a run that fails at once.
    """
    deadline = time.monotonic() + seconds
    while True:
        wait = 0.1
        try:
            answer = ask()
            if answer.status_code != 503 or time.monotonic() > deadline:
                return answer
            wait = float(answer.headers["retry-after"])
        except httpx.ConnectError:
            if time.monotonic() > deadline:
                raise
        time.sleep(wait)


class Up:
    def __init__(
        self, state: Path, volumes: dict[str, Path], secrets: dict[str, Path] | None = None
    ) -> None:
        self.state = state
        self._volumes = volumes
        self._secrets = secrets or {}
        self.process: subprocess.Popen[str]
        self.url = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.url:
            self.stop()

    def start(
        self,
        *manifests: Path,
        port: int | None = None,
        broker: str | None = None,
        keys: Path | None = None,
        grpc_port: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        port = port or free_port()
        self.url = f"http://127.0.0.1:{port}"
        volumes = [a for n, p in self._volumes.items() for a in ("--volume", f"{n}={p}")]
        secrets = [a for n, p in self._secrets.items() for a in ("--secret", f"{n}={p}")]
        brokers = ["--broker", broker] if broker else []
        callers = ["--keys", str(keys)] if keys else []
        grpc = ["--grpc-port", str(grpc_port)] if grpc_port else []
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "fourways_cli",
                "up",
                *map(str, manifests),
                "--state",
                str(self.state),
                "--port",
                str(port),
                *volumes,
                *secrets,
                *brokers,
                *callers,
                *grpc,
            ],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )

    def stop(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=30)

    def children(self) -> list[int]:
        task = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in task.read_text().split()]

    def fourways(self, *args: str) -> str:
        done = self._command(*args)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, *args: str) -> str:
        """Run a command that cannot be done; return what it says."""
        done = self._command(*args)
        assert done.returncode == 1, done.stdout
        return done.stderr

    def _command(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "fourways_cli", *args, "--state", str(self.state)],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "COLUMNS": "200"},
        )


def await_settled(state: Path, seconds: float = 60) -> dict[str, dict]:
    """Wait until each deployment is Ready or says what is wrong; return their conditions."""
    said: dict[str, dict] = {}

    def all_settled() -> bool:
        documents = ask(state, {"do": "status"})["deployments"]
        said.clear()
        said.update({d["metadata"]["name"]: conditions(d) for d in documents})
        return bool(documents) and all(settled(d) for d in documents)

    until(
        all_settled,
        lambda: f"each deployment is Ready or says what is wrong: {said}",
        seconds=seconds,
        interval=0.1,
        ignoring=HostNotRunning,
    )
    return said


def settled(document: dict) -> bool:
    said = conditions(document)
    if said["Ready"]["status"] == "True":
        return True
    if document["status"]["mode"] == "batch":
        return (document["status"].get("lastRun") or {}).get("outcome") == "Failed"
    return said["Degraded"]["status"] == "True"


def conditions(document: dict) -> dict[str, dict]:
    return {c["type"]: c for c in document["status"]["conditions"]}
