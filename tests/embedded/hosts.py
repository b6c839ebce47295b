"""A `fourways up` of the test's own."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from fourways_cli.embedded.control import HostNotRunning, ask


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Up:
    def __init__(self, state: Path, volumes: dict[str, Path]) -> None:
        self.state = state
        self._volumes = volumes
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

    def start(self, *manifests: Path, port: int | None = None) -> None:
        port = port or free_port()
        self.url = f"http://127.0.0.1:{port}"
        volumes = [a for n, p in self._volumes.items() for a in ("--volume", f"{n}={p}")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fourways_cli", "up", *map(str, manifests),
             "--state", str(self.state), "--port", str(port), *volumes],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def stop(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=30)

    def children(self) -> list[int]:
        task = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in task.read_text().split()]

    def fourways(self, *args: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "fourways_cli", *args, "--state", str(self.state)],
            capture_output=True, text=True, timeout=60, env={**os.environ, "COLUMNS": "200"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout


def await_settled(state: Path, seconds: float = 60) -> dict[str, dict]:
    """Wait until each deployment is Ready or its run failed; return their conditions."""
    deadline = time.monotonic() + seconds
    said: dict[str, dict] = {}
    while time.monotonic() < deadline:
        try:
            documents = ask(state, {"do": "status"})["deployments"]
        except HostNotRunning:
            documents = []
        said = {d["metadata"]["name"]: conditions(d) for d in documents}
        if documents and all(settled(d) for d in documents):
            return said
        time.sleep(0.1)
    raise TimeoutError(str(said))


def settled(document: dict) -> bool:
    failed = (document["status"].get("lastRun") or {}).get("outcome") == "Failed"
    return failed or conditions(document)["Ready"]["status"] == "True"


def conditions(document: dict) -> dict[str, dict]:
    return {c["type"]: c for c in document["status"]["conditions"]}
