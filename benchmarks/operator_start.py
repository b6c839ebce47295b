"""Measure how long a new process takes to import the operator, its memory then, and the images.

Each import is that of a new process, with byte code and with the files in the page cache. Processor
time is beside the clock, which includes other load on the machine. Sizes are those of the image
archives that ``make cluster`` and ``make test`` keep in their cache: all layers, uncompressed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from benchmarks.figures import figure, percentile
from tools.cluster.config import cache_root

ROUNDS = 15
GOAL_SECONDS, GOAL_MIB = 1.5, 120.0
IMAGES = ("operator", "runtime", "ray")
STATEMENT = "import aiohttp, fourways_operator.main, kopf, kubernetes.client, kubernetes.dynamic"
"""With what the operator imports only once it runs."""

PROGRAM = [sys.executable, "-P", "-c", STATEMENT]


def main() -> int:
    """Measure and print; return 1 if a goal is missed."""
    _import()  # writes the byte code
    rounds = [_import() for _ in range(ROUNDS)]
    clock, processor, memory = (percentile(list(kind), 0.5) for kind in zip(*rounds, strict=True))
    print(f"{ROUNDS} imports, processor time {processor:.2f} s")
    met = [
        figure("operator_import_seconds", clock, GOAL_SECONDS),
        figure("operator_imported_mib", memory, GOAL_MIB),
    ]
    for name in IMAGES:
        archives = sorted(
            (cache_root() / "images").glob(f"fourways-{name}_*.tar"), key=os.path.getmtime
        )
        if archives:
            print(f"image of {name}: {archives[-1].stat().st_size / 1e6:.0f} MB")
    return 0 if all(met) else 1


def _import() -> tuple[float, float, float]:
    """Return seconds by the clock, seconds of processor time, and the peak of memory in MiB."""
    begun = time.perf_counter()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(PROGRAM, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(PROGRAM)} ended with {process.returncode}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
