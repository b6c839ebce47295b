"""``make demo``: the examples on the embedded host. No cluster, no Docker, no root."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fourways_cli.embedded.control import HostNotRunning, ask

from .questions import ARTIFACTS, CLAIM, EXAMPLES, ROOT, console, example_path, manifests, show

STATE = ROOT / ".fourways" / "demo"
PATIENCE_SECONDS = 100.0


def main() -> int:
    """Run the demo; 1 where a deployment did not become ready."""
    started = time.monotonic()
    subprocess.run([sys.executable, EXAMPLES / "prepare.py"], check=True)
    shutil.rmtree(STATE, ignore_errors=True)
    port = _free_port()
    files = [str(m.relative_to(ROOT)) for m in manifests()]
    console.print(f"$ fourways up {' '.join(files)} --volume {CLAIM}={ARTIFACTS.relative_to(ROOT)}")
    with _host(files, port) as url:
        if url is None:
            return 1
        show(url)
        console.print(f"$ curl {url}{example_path()}")
    console.print(f"done in {time.monotonic() - started:.0f} s")
    return 0


@contextmanager
def _host(files: list[str], port: int) -> Iterator[str | None]:
    command = [sys.executable, "-m", "fourways_cli", "up", *files, "--state", str(STATE),
               "--volume", f"{CLAIM}={ARTIFACTS}", "--port", str(port)]  # fmt: skip
    host = subprocess.Popen(command, cwd=ROOT)
    try:
        yield f"http://127.0.0.1:{port}" if _await_ready(host) else None
    finally:
        host.terminate()
        host.wait(timeout=30)


def _await_ready(host: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and host.poll() is None:
        try:
            documents = ask(STATE, {"do": "status"})["deployments"]
        except HostNotRunning:
            documents = []
        verdicts = [_verdict(d) for d in documents]
        if "failed" in verdicts:
            break
        if verdicts and all(v == "ready" for v in verdicts):
            return True
        time.sleep(0.2)
    console.print(f"not ready; the logs are in {Path(STATE, 'logs')}")
    return False


def _verdict(document: dict) -> str:  # type: ignore[type-arg]
    conditions = {c["type"]: c["status"] for c in document["status"]["conditions"]}
    if conditions["Ready"] == "True":
        return "ready"
    failed = (document["status"].get("lastRun") or {}).get("outcome") == "Failed"
    return "failed" if failed else "waiting"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
