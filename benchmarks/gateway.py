"""Measure the gateway's overhead: requests per second to a model server, with and without it.

    python -m benchmarks.gateway [SECONDS]

Needs ``wrk``. Prints each server's processor time per request. It shows how many requests per
second one core could forward, whatever else runs on this machine.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import orjson

from fourways_api import GatewayConfig, Paths, Route
from fourways_api.runtime_config import CONFIG_VARIABLE, ServerConfig
from fourways_cli.embedded.ports import free_port
from tools.kit.models import LINEAR, linear

_TICKS = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def running(mode: str, config: str, url: str, core: int | None = None) -> Iterator[int]:
    """Run a workload until it is ready, on one core if it is given; yield its process id."""
    environment = {**os.environ, CONFIG_VARIABLE: config}
    command = [*pinned(core), sys.executable, "-m", "fourways_runtime", mode]
    process = subprocess.Popen(command, env=environment)
    try:
        for _ in range(200):
            assert process.poll() is None, f"{mode} ended"
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/v2/health/ready").is_success:
                    break
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def pinned(core: int | None) -> list[str]:
    """Return the beginning of a command that keeps a process on a core."""
    return [] if core is None else ["taskset", "-c", str(core)]


def load(
    url: str, script: Path, connections: int, seconds: int, core: int | None = None
) -> tuple[float, str, int]:
    """Return requests per second, latencies as wrk reports them, and the number of requests."""
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}",
        "--latency",
        "-s",
        str(script),
        url,
    ]
    told = subprocess.run(
        [*pinned(core), *command], capture_output=True, text=True, check=True
    ).stdout
    assert "Non-2xx" not in told, told
    rate = float(re.findall(r"Requests/sec:\s+([\d.]+)", told)[0])
    median, tail = (re.findall(rf"{q}%\s+(\S+)", told)[0] for q in (50, 99))
    return rate, f"p50 {median} p99 {tail}", int(re.findall(r"(\d+) requests in", told)[0])


def main() -> None:
    """Measure and print."""
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "model.onnx")
        model.write_bytes(linear())
        ports = free_port(), free_port()
        direct, through = (f"http://127.0.0.1:{port}" for port in ports)
        paths = Paths(
            store_uri_file=f"{folder}/store-secret/uri",
            cache_dir=f"{folder}/cache",
            termination_log=f"{folder}/log",
        )
        server = ServerConfig.model_validate(
            {
                "namespace": "shop",
                "name": "score",
                "model": {"uri": model.as_uri(), "format": "onnx", "version": "1"},
                "contract": LINEAR,
                "host": "127.0.0.1",
                "port": ports[0],
                "paths": paths.to_json(),
            }
        )
        gateway = GatewayConfig(
            namespace="shop",
            host="127.0.0.1",
            port=ports[1],
            paths=paths,
            routes=(Route(deployment="score", mode="realtime", version="1", url=direct),),
        )
        row = [
            {"name": "age", "datatype": "INT32", "shape": [1], "data": [40]},
            {"name": "spend", "datatype": "FP32", "shape": [1], "data": [1.5]},
            {"name": "rate", "datatype": "FP32", "shape": [1], "data": [0.25]},
        ]
        script = Path(folder, "post.lua")
        body = orjson.dumps({"inputs": row}).decode()
        script.write_text(f"wrk.method = 'POST'\nwrk.body = [[{body}]]\n")
        told = [config.model_dump_json(by_alias=True) for config in (server, gateway)]
        with (
            running("serve", told[0], direct) as model_pid,
            running("gateway", told[1], through) as gateway_pid,
        ):
            for connections in (1, 16, 64):
                for name, url, pid in (
                    ("direct", direct, model_pid),
                    ("gateway", through, gateway_pid),
                ):
                    path = f"{url}/v2/models/score/infer"
                    load(path, script, connections, 1)
                    before = cpu_seconds(pid)
                    rate, latency, count = load(path, script, connections, seconds)
                    spent = (cpu_seconds(pid) - before) / count * 1e6
                    print(
                        f"{name:8} c{connections:<3} {rate:9.0f}/s {latency:28}"
                        f" {spent:6.1f} µs of processor a request = {1e6 / spent:7.0f}/s a core"
                    )


if __name__ == "__main__":
    main()
