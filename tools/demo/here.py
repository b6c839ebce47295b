"""``make demo``: the examples on the embedded host. No cluster, no Docker, no root."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fourways_cli.embedded.control import HostNotRunning, ask
from fourways_cli.embedded.ports import free_port

from .device import Device
from .questions import (
    ARTIFACTS,
    CLAIM,
    EXAMPLES,
    ROOT,
    SHOP_SECRET,
    Json,
    ask_batch,
    ask_realtime,
    ask_stream,
    console,
    show,
    shown,
)

STATE = ROOT / ".fourways" / "demo"
SECRETS = EXAMPLES / "secrets"
SIGNING_KEY = STATE / "keys" / "device-signing"
PATIENCE_SECONDS = 100.0


def main() -> int:
    """Run the demo; return 1 if a deployment did not become ready."""
    started = time.monotonic()
    subprocess.run([sys.executable, EXAMPLES / "prepare.py"], check=True)
    shutil.rmtree(STATE, ignore_errors=True)
    device = Device(STATE / "device", SIGNING_KEY / "public-key.pem")
    with _host(free_port()) as url:
        if url is None:
            return 1
        answers = [ask_batch(url), ask_realtime(url), ask_stream(url)]
        device.fetch(url)
    # The host has ended: from here on, only the device can serve predictions.
    answers.append(device.ask())
    show(answers)
    console.print(f"done in {time.monotonic() - started:.0f} s")
    return 0


@contextmanager
def _host(port: int) -> Iterator[str | None]:
    command = ["up", *(str(m.relative_to(ROOT)) for m in shown())]
    command += ["--volume", f"{CLAIM}={ARTIFACTS.relative_to(ROOT)}"]
    command += ["--secret", f"{SHOP_SECRET}={(SECRETS / SHOP_SECRET).relative_to(ROOT)}"]
    console.print(f"$ fourways {' '.join(command)}")
    options = ["--state", str(STATE), "--port", str(port)]
    host = subprocess.Popen([sys.executable, "-m", "fourways_cli", *command, *options], cwd=ROOT)
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
        conditions = [_conditions(d) for d in documents]
        if conditions and all(c["Ready"]["status"] == "True" for c in conditions):
            return True
        if any(_is_final(c) for c in conditions):
            break
        time.sleep(0.1)
    console.print(f"not ready; the logs are in {Path(STATE, 'logs')}")
    return False


def _conditions(document: Json) -> Json:
    return {c["type"]: c for c in document["status"]["conditions"]}


def _is_final(conditions: Json) -> bool:
    """Return whether waiting longer is pointless, because a permanent failure occurred."""
    return bool(
        conditions["Degraded"]["status"] == "True"
        and conditions["Degraded"]["reason"] not in ("WaitingForGateway", "StoreUnavailable")
    )


if __name__ == "__main__":
    sys.exit(main())
