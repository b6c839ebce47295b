"""``python -m benchmarks.batch [--quick] [--rows N] …``: all workers, side by side, one run.

Workers run on core 0; PostgreSQL and this program on core 1. Each round runs every worker once, so
that a slow minute of the machine affects all workers. Two times are reported: clock time, and the
worker's own processor time, on which other load has little effect.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving.work import forest
from benchmarks.streaming import Durable

from .others import BARE, PEERS, Peer
from .ours import Runs, Seen
from .report import judged, summary, write
from .work import write_table

CORE = 0
SLOW = ("ray", "pandas-store")
"""Measured only in the first round: many times slower than the others."""

Found = dict[str, Any]


def main() -> int:
    """Measure, print, write; return 1 if a full run misses a goal."""
    asked = argparse.ArgumentParser(prog="python -m benchmarks.batch")
    asked.add_argument("--quick", action="store_true", help="a fifth of the rows, one round")
    asked.add_argument("--rows", type=int, default=1_000_000)
    asked.add_argument("--rounds", type=int, default=5)
    asked.add_argument(
        "--most", type=int, default=5_000_000, help="rows for the memory measurement"
    )
    asked.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    asked.add_argument("--only", nargs="*", help="only these peers")
    options = asked.parse_args()
    if options.quick:
        options.rows, options.rounds, options.most = 200_000, 1, 1_000_000
    os.sched_setaffinity(0, {1})
    # So that PostgreSQL ends with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    found: Found = {"rows": options.rows, "runs": {}, "load": {}}
    with (
        tempfile.TemporaryDirectory(prefix="fourways-bench-") as folder,
        Bench(Path(folder), options, found) as bench,
    ):
        for part in options.parts:
            PARTS[part](bench)
            bench.note(part)
    print(summary(found))
    return 0 if bench.partial or judged(write(found)) else 1


class Bench:
    """A model, a table, a PostgreSQL, and the results."""

    def __init__(self, folder: Path, options: argparse.Namespace, found: Found) -> None:
        self.folder = folder
        self.options = options
        self.found = found
        self.model = folder / "model.onnx"
        self.model.write_bytes(forest())
        self.table = folder / "table.parquet"
        write_table(self.table, options.rows)
        self.postgres = Durable()
        self.partial = options.quick or options.only is not None
        self._count = 0

    def __enter__(self) -> Bench:
        self.postgres.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.postgres.remove()

    def runs(self) -> Runs:
        """Return the runs of our workers, on their own store."""
        self._count += 1
        folder = self.folder / f"ours-{self._count}"
        return Runs(folder, self.model, self.postgres.database())

    def sink(self) -> dict[str, Any]:
        """Return the settings of a batch that writes Parquet."""
        self._count += 1
        return {"files": {"uri": (self.folder / f"sink-{self._count}").as_uri()}}

    def peer(self, peer: Peer) -> Seen:
        """Run a peer once."""
        self._count += 1
        out = self.folder / f"out-{self._count}.parquet"
        to = self.postgres.database() if peer.to == "store" else str(out)
        began = time.perf_counter()
        done = subprocess.run(
            ["taskset", "-c", str(CORE), *peer.command, str(self.model), str(self.table), to],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        told = json.loads(done.stdout.strip().splitlines()[-1])
        if out.is_dir():
            shutil.rmtree(out)
        else:
            out.unlink(missing_ok=True)
        return Seen(told["seconds"], told["cpu"], time.perf_counter() - began, told["peak_mib"])

    def note(self, part: str) -> None:
        """Record the machine's load, and write the results so far in case a later step fails."""
        self.found["load"][part] = os.getloadavg()[1]
        if not self.partial:
            write(self.found)

    def keep(self, name: str, seen: Seen, rows: int) -> None:
        """Record the results of one worker."""
        self.found["runs"].setdefault(name, []).append({**asdict(seen), "rows": rows})
        print(
            f"{name:16} {rows / seen.seconds:9,.0f} rows/s  {rows / seen.cpu:9,.0f} a second of "
            f"processor  {seen.peak_mib:5.0f} MiB",
            file=sys.stderr,
            flush=True,
        )


def side_by_side(bench: Bench) -> None:
    """Run all workers on one core, and two of ours on two cores."""
    rows = bench.options.rows
    chosen = bench.options.only
    for number in range(bench.options.rounds):
        bench.keep("bare", bench.peer(BARE), rows)
        bench.keep("ours-store", bench.runs().run(bench.table), rows)
        bench.keep("ours-parquet", bench.runs().run(bench.table, sink=bench.sink()), rows)
        two = bench.runs().run(bench.table, cores=(0, 1), workers=2)
        bench.keep("two-store", two, rows)
        two = bench.runs().run(bench.table, cores=(0, 1), workers=2, sink=bench.sink())
        bench.keep("two-parquet", two, rows)
        for peer in PEERS:
            if (chosen is None or peer.name in chosen) and (number == 0 or peer.name not in SLOW):
                bench.keep(peer.name, bench.peer(peer), rows)
        bench.found |= {"rounds": number + 1}
        bench.note("workers")


def first_row(bench: Bench) -> None:
    """Measure the time from the start of a process until its first row is recorded."""
    small = bench.folder / "small.parquet"
    write_table(small, 1000)
    runs = bench.runs()
    runs.run(small)  # creates the tables
    for _ in range(2 * bench.options.rounds + 1):
        seen = runs.run(small)
        bench.keep("first-row", seen, 1000)
        bench.found.setdefault("first_row", []).append(seen.first_row)
        bench.found.setdefault("first_row_cpu", []).append(seen.first_row_cpu)


def incremental(bench: Bench) -> None:
    """Measure runs in which 1 % of the rows changed, and the full run for comparison."""
    rows = bench.options.rows
    some = np.random.default_rng(1).choice(rows, rows // 100, replace=False)
    last = np.arange(rows - rows // 100, rows)
    ways = {
        "hash-scattered": ({"rowHash": True}, some),
        "hash-together": ({"rowHash": True}, last),
        "watermark-scattered": ({"watermark": "seen_at"}, some),
        "watermark-together": ({"watermark": "seen_at"}, last),
    }
    table = bench.folder / "changing.parquet"
    for name, (_, changed) in ways.items():
        write_table(bench.folder / name, rows, changed)
    for _ in range(bench.options.rounds):
        for name, (spec, _) in ways.items():
            runs = bench.runs()
            shutil.copyfile(bench.table, table)
            bench.keep(f"{name}-full", runs.run(table, incremental=spec), rows)
            shutil.copyfile(bench.folder / name, table)
            bench.keep(name, runs.run(table, incremental=spec), rows)


def memory(bench: Bench) -> None:
    """Measure the memory of a worker as its table grows."""
    large = bench.folder / "large.parquet"
    write_table(large, bench.options.most)
    for rows, table in ((bench.options.rows, bench.table), (bench.options.most, large)):
        bench.keep(f"store-{rows}", bench.runs().run(table), rows)
        bench.keep(f"parquet-{rows}", bench.runs().run(table, sink=bench.sink()), rows)
    bench.found["most"] = bench.options.most
    large.unlink()


PARTS = {
    "workers": side_by_side,
    "first-row": first_row,
    "incremental": incremental,
    "memory": memory,
}


if __name__ == "__main__":
    sys.exit(main())
