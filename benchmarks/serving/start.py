"""``python -m benchmarks.serving.start``: from the start of a process to its first answer.

Servers are started in turns, one at a time, so that a slow minute of the machine affects all of
them. CPU time is that of the process until its first answer, and other load on the machine affects
it least; the clock also counts the waits. Memory is the process's share (PSS) after the first
answer, and after more requests of one and of 32 rows.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from statistics import median
from time import monotonic, sleep
from urllib.parse import urlsplit

from benchmarks.figures import figure

from . import work
from .report import NAMES
from .servers import commands, running

PATH = "/v2/models/model/infer"
MEASURED = ("fourways", "fastapi")
GOAL_SECONDS, GOAL_MB = 0.5, 90.0
_MORE = 200
_PAUSE = 0.005


@dataclass(frozen=True, slots=True)
class Started:
    """One start: seconds by the clock and of CPU, and memory in MB."""

    seconds: float
    cpu_seconds: float
    memory: float
    memory_later: float


def main() -> int:
    """Measure and print; return 1 if a goal is missed."""
    asked = argparse.ArgumentParser(prog="python -m benchmarks.serving.start")
    asked.add_argument("--rounds", type=int, default=9)
    asked.add_argument("--only", nargs="*", default=list(MEASURED), choices=list(NAMES))
    options = asked.parse_args()
    found: dict[str, list[Started]] = {name: [] for name in options.only}
    with tempfile.TemporaryDirectory(prefix="fourways-start-") as folder:
        scratch = Path(folder)
        model = scratch / "model.onnx"
        model.write_bytes(work.forest())
        for number in range(options.rounds + 1):
            for name in options.only:
                started = _start(name, model, scratch)
                if number:  # the first start fills the caches of the disk
                    found[name].append(started)
    print("| first answer after | seconds | CPU seconds | MB | MB, 400 requests later |")
    print("|---|---|---|---|---|")
    for name, starts in found.items():
        clock, cpu = _spread(starts, "seconds"), _spread(starts, "cpu_seconds")
        first, later = _spread(starts, "memory", 0), _spread(starts, "memory_later", 0)
        print(f"| {NAMES[name]} | {clock} | {cpu} | {first} | {later} |")
    if "fourways" not in found:
        return 0
    ours = found["fourways"]
    met = [
        figure("first answer, s", median(s.seconds for s in ours), GOAL_SECONDS, at_most=True),
        figure("memory, MB", median(s.memory_later for s in ours), GOAL_MB, at_most=True),
    ]
    return 0 if all(met) else 1


def _start(name: str, model: Path, scratch: Path) -> Started:
    command, environment, port = commands(model, scratch)[name]
    bodies = [question.body for rows in work.BODIES for question in work.questions(rows)[:_MORE]]
    began = monotonic()
    with running(command, environment, port, scratch / f"{name}.log", ready=False) as server:
        connection = HTTPConnection("127.0.0.1", urlsplit(server.url).port, timeout=10)
        while not _answers(connection, bodies[0]):
            if monotonic() - began > 60:
                raise RuntimeError(f"{name} does not answer")
            sleep(_PAUSE)
        seconds, cpu, memory = monotonic() - began, server.cpu_seconds, server.memory
        for body in bodies:
            if not _answers(connection, body):
                raise RuntimeError(f"{name} refused a request")
        connection.close()
        return Started(seconds, cpu, memory, server.memory)


def _answers(connection: HTTPConnection, body: bytes) -> bool:
    try:
        connection.request("POST", PATH, body, {"content-type": "application/json"})
        response = connection.getresponse()
        response.read()
    except (OSError, HTTPException):
        connection.close()
        return False
    return response.status == 200


def _spread(starts: list[Started], what: str, digits: int = 2) -> str:
    values = sorted(getattr(start, what) for start in starts)
    return f"{median(values):.{digits}f} ({values[0]:.{digits}f} to {values[-1]:.{digits}f})"


if __name__ == "__main__":
    sys.exit(main())
