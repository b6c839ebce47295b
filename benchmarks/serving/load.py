"""The load generator: wrk on its own core, so that its work is not measured."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

SCRIPT = Path(__file__).with_name("load.lua")
CORE = 1


@dataclass(frozen=True, slots=True)
class Measured:
    """The result of one measurement of a server."""

    requests: int
    rate: float
    """Requests per second."""

    p50_ms: float
    p99_ms: float
    generator: float
    """Share of its core that the generator used; near 1, the generator is the bottleneck."""


def load(url: str, path: str, bodies: Path, connections: int, seconds: float) -> Measured:
    """Send requests for a time. Raises RuntimeError if a request failed."""
    before, began = os.times(), perf_counter()
    done = subprocess.run(
        [
            "taskset",
            "-c",
            str(CORE),
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds:g}s",
            "--timeout=10s",  # a slow peer's answers count, and fail no run
            "-s",
            str(SCRIPT),
            url,
        ],
        env={**os.environ, "BODIES": str(bodies), "ASKED": path},
        capture_output=True,
        text=True,
        check=False,
    )
    took, after = perf_counter() - began, os.times()
    lines = done.stderr.strip().splitlines()
    if done.returncode or not lines or not lines[-1].startswith("{"):
        raise RuntimeError(f"wrk failed: {done.stderr[-400:]}{done.stdout[-400:]}")
    told = json.loads(lines[-1])
    if told["bad"] or not told["requests"]:
        raise RuntimeError(f"{told['bad']} of {told['requests']} requests to {url} failed")
    used = after.children_user + after.children_system
    used -= before.children_user + before.children_system
    rate = told["requests"] / told["seconds"]
    return Measured(told["requests"], rate, told["p50_ms"], told["p99_ms"], used / took)
