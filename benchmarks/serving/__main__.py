"""``python -m benchmarks.serving [--short] [--only NAME …]``: all servers, side by side, one run.

Servers run on core 0, the load generator on core 1. Each short round measures every server at every
point, so that a slow minute of the machine affects all servers. The results are medians of the
rounds and of the ratios within each round. Before the measurement, each server's predictions are
compared with the model's.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
import onnxruntime

from benchmarks.figures import figure
from fourways_cli.embedded.ports import free_port
from tools.cluster.debian import have

from . import work
from .grpc_load import load_grpc
from .load import load
from .report import NAMES, table, times, write
from .servers import CORE, ROOT, Running, commands, running

PATH = "/v2/models/model/infer"
POINTS = ((1, 1), (1, 16), (1, 64), (32, 1), (32, 16), (32, 64))
"""Rows per request, connections."""


def main() -> int:
    """Measure, print, write; return 1 if a full run misses a goal."""
    asked = argparse.ArgumentParser(prog="python -m benchmarks.serving")
    asked.add_argument("--short", action="store_true", help="one round of 2 s, nothing written")
    asked.add_argument("--only", nargs="*", default=list(NAMES), choices=list(NAMES))
    options = asked.parse_args()
    have({"wrk": "wrk", "taskset": "util-linux"})
    rounds, seconds = (1, 2.0) if options.short else (9, 2.0)
    with tempfile.TemporaryDirectory(prefix="fourways-bench-") as folder:
        found = _measured(Path(folder), set(options.only), rounds, seconds)
    print(table(found))
    if options.short or set(options.only) != set(NAMES):
        return 0
    write(found)
    return 0 if _judged(found) else 1


def _measured(scratch: Path, names: set[str], rounds: int, seconds: float) -> dict[str, Any]:
    model = scratch / "model.onnx"
    model.write_bytes(work.forest())
    bodies = {}
    for rows in work.BODIES:
        for kind in ("json", "binary"):
            made = work.questions(rows, binary=kind == "binary")
            bodies[rows, kind] = scratch / f"{rows}-{kind}"
            work.write_bodies(bodies[rows, kind], made)
    rates: dict[str, dict[str, list[float]]] = {}
    cpu: dict[str, dict[str, list[float]]] = {}
    details: dict[str, Any] = {}
    grpc_port = free_port()
    with ExitStack() as stack:
        up: dict[str, Running] = {}
        for name, (command, environment, port) in commands(model, scratch, grpc_port).items():
            if name in names:
                log = scratch / f"{name}.log"
                up[name] = stack.enter_context(running(command, environment, port, log))
                if name != "empty":
                    _compare(model, up[name].url, name)
        for number in range(rounds):
            for rows, connections in POINTS:
                point = f"{rows} rows, c{connections}"
                if "raw" in names and connections == 1:
                    rate, used = _raw(model, rows, seconds)
                    _note(rates, "raw", f"{rows} rows", rate)
                    _note(cpu, "raw", f"{rows} rows", used * 1e6)
                for name, server in up.items():
                    for kind in ("json", "binary") if name == "fourways" else ("json",):
                        label = "binary" if kind == "binary" else name
                        before = server.cpu_seconds
                        if name == "grpc":
                            got = load_grpc(f"127.0.0.1:{grpc_port}", rows, connections, seconds)
                        else:
                            got = load(server.url, PATH, bodies[rows, kind], connections, seconds)
                        each = (server.cpu_seconds - before) / got.requests * 1e6
                        _note(rates, label, point, got.rate)
                        _note(cpu, label, point, each)
                        one = asdict(got) | {"server_us": each}
                        details.setdefault(label, {}).setdefault(point, []).append(one)
                        _say(number, label, point, one)
        memory = {name: server.memory for name, server in up.items()}
        ready = {name: server.ready_seconds for name, server in up.items()}
    return {
        "rates": {n: {p: median(v) for p, v in points.items()} for n, points in rates.items()},
        "each_round": rates,
        "cpu_us": {n: {p: median(v) for p, v in points.items()} for n, points in cpu.items()},
        "details": details,
        "memory_mb": memory,
        "ready_seconds": ready,
        "rounds": rounds,
        "seconds": seconds,
        "machine": f"{platform.processor() or platform.machine()}, {platform.system()}",
        "python": platform.python_version(),
    }


def _note(rates: dict[str, dict[str, list[float]]], name: str, point: str, rate: float) -> None:
    rates.setdefault(name, {}).setdefault(point, []).append(rate)


def _say(number: int, name: str, point: str, one: dict[str, Any]) -> None:
    busy = one["rate"] * one["server_us"] / 1e6
    print(
        f"round {number + 1}  {name:10} {point:12} {one['rate']:9.0f}/s  "
        f"p50 {one['p50_ms']:7.3f} ms  p99 {one['p99_ms']:7.3f} ms  "
        f"server {one['server_us']:6.1f} us, {busy:4.0%}  generator {one['generator']:4.0%}",
        file=sys.stderr,
    )


def _raw(model: Path, rows: int, seconds: float) -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.serving.raw", str(model), str(rows), str(seconds)]
    done = subprocess.run(
        ["taskset", "-c", str(CORE), *command], cwd=ROOT, check=True, capture_output=True, text=True
    )
    rate, used = map(float, done.stdout.split())
    return rate, used


def _compare(model: Path, url: str, name: str) -> None:
    """Check that a server's predictions equal the model's."""
    session = onnxruntime.InferenceSession(model.read_bytes())
    with httpx.Client(timeout=30) as client:
        for rows in work.BODIES:
            for question in work.questions(rows)[:8]:
                headers = {"content-type": "application/json"}
                answer = client.post(url + PATH, content=question.body, headers=headers)
                answer.raise_for_status()
                got = answer.json()["outputs"][0]["data"]
                meant = session.run(None, {"input": question.values})[0].reshape(-1)
                np.testing.assert_allclose(got, meant, rtol=1e-5, atol=1e-6, err_msg=name)


def _judged(found: dict[str, Any]) -> bool:
    one, many = "1 rows, c16", "32 rows, c16"
    goals = (
        ("1 row, c16, of the bare model", times(found, one, "raw", "1 rows"), 0.35),
        ("32 rows, c16, of the bare model", times(found, many, "raw", "32 rows"), 0.70),
        ("1 row, c16, times FastAPI", times(found, one, "fastapi"), 8),
        ("1 row, c16, times KServe SDK", times(found, one, "kserve"), 20),
        ("1 row, c16, times MLServer", times(found, one, "mlserver"), 20),
    )
    met = [figure(name, value, goal, at_most=False) for name, value, goal in goals]
    return all(met)


if __name__ == "__main__":
    sys.exit(main())
