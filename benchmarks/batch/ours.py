"""Our worker as the operator runs it: its process, its settings and its measurements.

It runs in the environment of the runtime's image with that image's variables. The image sets none
for memory or threads, so neither does this module.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.serving.work import CONTRACT
from fourways_api.runtime_config import CONFIG_VARIABLE, RUN_VARIABLE

from .others import OURS, image_python

IMAGE_VARIABLES = {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
"""As in ``runtimes/images/Dockerfile``, except for HOME, which is another folder here."""

_UNSET = ("MALLOC_ARENA_MAX", "OMP_NUM_THREADS", "ARROW_DEFAULT_MEMORY_POOL", "PYTHONPATH")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Seen:
    """Measurements of a process."""

    seconds: float
    """Seconds from when everything is loaded and open to the end of the work."""

    cpu: float
    """Processor time in the same interval."""

    whole: float = 0.0
    """Seconds from the start of the process to its end."""

    peak_mib: float = 0.0
    first_row: float = 0.0
    """Seconds from the start of the process until the first chunk was recorded."""

    first_row_cpu: float = 0.0
    """Processor time until all chunks were recorded."""


@dataclass(slots=True)
class Worker:
    """One worker process; its log is read as it arrives."""

    process: subprocess.Popen[bytes]
    started: float
    """Clock time, in seconds since 1970."""

    moments: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By log message: its time, and the processor time until then."""

    peak_mib: float = 0.0
    log: list[bytes] = field(default_factory=list)

    def read(self) -> None:
        """Read the log to its end."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            now, cpu = time.time(), cpu_seconds(self.process.pid)
            # Of this program alone: rusage also counts the parent that started it.
            self.peak_mib = peak_mib(self.process.pid) or self.peak_mib
            self.log.append(line)
            if line.startswith(b"{"):
                self.moments[json.loads(line)["message"]] = now, cpu


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def peak_mib(pid: int) -> float:
    """Return the peak memory of a process so far; 0 if it has ended."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "_ 0")
    return int(line.split()[1]) / 1024


class Runs:
    """Runs of our workers in one folder, on one store."""

    def __init__(self, folder: Path, model: Path, store: str) -> None:
        self._folder = folder
        self._model = model
        self._store = store
        folder.mkdir(parents=True)
        (folder / "store-secret").mkdir(exist_ok=True)
        (folder / "store-secret" / "uri").write_text(store)
        self._number = 0

    def run(self, table: Path, *, cores: tuple[int, ...] = (0,), **batch: Any) -> Seen:
        """Run once with a worker on each of ``cores``; return their combined measurements."""
        self._number += 1
        run = f"run-{self._number}"
        workers = [self._start(table, run, at, core, batch) for at, core in enumerate(cores)]
        readers = [threading.Thread(target=worker.read) for worker in workers]
        for reader in readers:
            reader.start()
        peak = 0.0
        for worker, reader in zip(workers, readers, strict=True):
            reader.join()
            if worker.process.wait():
                raise RuntimeError(b"".join(worker.log)[-3000:].decode())
            peak = max(peak, worker.peak_mib)
        begun = min(worker.moments["source opened"][0] for worker in workers)
        ended = min(worker.moments["published"][0] for worker in workers)
        cpu = sum(
            worker.moments["published"][1] - worker.moments["source opened"][1]
            for worker in workers
        )
        started = min(worker.started for worker in workers)
        whole = max(worker.moments["succeeded"][0] for worker in workers) - started
        scored = min(worker.moments["scored"][1] for worker in workers)
        return Seen(ended - begun, cpu, whole, peak, self._first(run) - started, scored)

    def _first(self, run: str) -> float:
        with psycopg.connect(self._store) as connection:
            found = connection.execute(
                "SELECT min(c.done_at) FROM fourways.chunks c JOIN fourways.runs r "
                "ON r.id = c.run_id WHERE r.name = %s",
                (run,),
            ).fetchone()
        assert found is not None
        return float(found[0])

    def _start(self, table: Path, run: str, index: int, core: int, batch: dict[str, Any]) -> Worker:
        told = {
            "namespace": "bench",
            "name": "forest",
            "contract": CONTRACT,
            "model": {"uri": self._model.as_uri(), "version": "v1"},
            "batch": {"schedule": "@daily", "source": {"uri": table.as_uri()}, **batch},
            "paths": {
                "storeUriFile": str(self._folder / "store-secret" / "uri"),
                "cacheDir": str(self._folder / f"cache-{run}-{index}"),
                "terminationLog": str(self._folder / f"words-{index}"),
            },
        }
        kept = {name: value for name, value in os.environ.items() if name not in _UNSET}
        started = time.time()
        process = subprocess.Popen(
            ["taskset", "-c", str(core), image_python(), "-m", "fourways_runtime", "batch"],
            env={
                **kept,
                **IMAGE_VARIABLES,
                CONFIG_VARIABLE: json.dumps(told),
                RUN_VARIABLE: run,
                "JOB_COMPLETION_INDEX": str(index),
                "PYTHONPATH": ":".join(map(str, OURS)),
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=self._folder,
        )
        return Worker(process, started)
