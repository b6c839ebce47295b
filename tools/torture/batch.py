"""Kill batch workers at random moments, again and again, and compare what they publish.

``python -m tools.torture.batch [--store URI] [--kills N] [--workers N] [--rows N] [--seed N]``

A table with good rows, bad ones and repeated keys is scored once in peace. Then workers score it
under new names, each killed (SIGKILL) at a random moment and started anew, until the kills are
spent. Each run must come out equal to the first to the last bit, and no chunk that was recorded
may be scored again. Exits 1, naming what differs, when it does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from fourways_api.runtime_config import CONFIG_VARIABLE, RUN_VARIABLE
from fourways_runtime.errors import StoreUnavailable
from fourways_runtime.store import Writer, open_writer

from .material import CONTRACT, model, table
from .witness import Broken, Outcome, Witness, check_equal

NAMESPACE, DEPLOYMENT = "torture", "churn"
CHUNK_ROWS = 4096
_MEMORY = CHUNK_ROWS * 8 * (8 * 3 + 64)
_WAIT_SECONDS = 120.0


@dataclass
class Torture:
    """A table, a model, and a store that workers publish to while they are killed."""

    folder: Path
    store_uri: str
    rows: int
    workers: int
    chance: random.Random
    kills: int = 0

    def __post_init__(self) -> None:
        data = self.folder / "volumes" / "data"
        data.mkdir(parents=True, exist_ok=True)
        (self.folder / "uri").write_text(self.store_uri)
        (data / "model.onnx").write_bytes(model())
        pq.write_table(table(self.rows), data / "table.parquet", row_group_size=CHUNK_ROWS)
        # As in the image, which has no pandas: pyarrow would spend a second on importing it.
        (self.folder / "pandas.py").write_text("raise ImportError")
        self.store: Writer = open_writer(self.store_uri)
        self.witness = Witness(self.store.database, NAMESPACE, DEPLOYMENT)

    def undisturbed(self) -> Outcome:
        """Score the table in peace; return its predictions and rejects."""
        worker = self._start("calm", 0)
        if worker.wait(_WAIT_SECONDS) != 0:
            raise Broken(f"the undisturbed run failed: {self._last_words(0)}")
        return self.witness.outcome("calm")

    def disturbed(self, run: str, kills: int) -> Outcome:
        """Score the table with workers that are killed, up to ``kills`` times."""
        self.witness.begin()
        processes = [self._start(run, index) for index in range(self.workers)]
        deadline = time.monotonic() + _WAIT_SECONDS
        left = kills
        try:
            while time.monotonic() < deadline:
                victim = self.chance.randrange(self.workers)
                try:
                    code = processes[victim].wait(self.chance.uniform(0.0, 2.5))
                except subprocess.TimeoutExpired:
                    code = None
                self.witness.compare(run)
                if code is None and left:
                    processes[victim].kill()
                    processes[victim].wait()
                    left -= 1
                    self.kills += 1
                    processes[victim] = self._start(run, victim)
                elif code not in (None, 0):
                    raise Broken(f"a worker ended with {code}: {self._last_words(victim)}")
                elif all(process.poll() == 0 for process in processes):
                    self.witness.compare(run)
                    return self.witness.outcome(run)
            raise Broken(f"run {run} did not end in {_WAIT_SECONDS:g} s")
        finally:
            for process in processes:
                process.kill()
                process.wait()

    def _start(self, run: str, index: int) -> subprocess.Popen[bytes]:
        told = {
            "namespace": NAMESPACE,
            "name": DEPLOYMENT,
            "model": {"uri": "pvc://data/model.onnx", "version": "v1"},
            "contract": CONTRACT,
            "batch": {
                "schedule": "@daily",
                "source": {"uri": "pvc://data/table.parquet"},
                "maxRejects": "10%",
                "keepRuns": 100,
            },
            "memoryBytes": _MEMORY,
            "paths": {
                "storeUriFile": str(self.folder / "uri"),
                "volumesRoot": str(self.folder / "volumes"),
                "cacheDir": str(self.folder / f"cache-{index}"),
                "terminationLog": str(self.folder / f"last-words-{index}"),
            },
        }
        return subprocess.Popen(
            [sys.executable, "-m", "fourways_runtime", "batch"],
            env={
                **os.environ, CONFIG_VARIABLE: json.dumps(told), RUN_VARIABLE: run,
                "PYTHONPATH": str(self.folder),
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def _last_words(self, index: int) -> str:
        try:
            return (self.folder / f"last-words-{index}").read_text()[:500]
        except OSError:
            return "no last words"


def torture(folder: Path, store_uri: str, *, kills: int, workers: int, rows: int, seed: int) -> str:
    """Kill ``kills`` workers in as many runs as it takes; return what was done, in a line.

    Raises:
        Broken: what must hold does not.

    """
    torture = Torture(folder, store_uri, rows, workers, random.Random(seed))  # noqa: S311
    calm = torture.undisturbed()
    if not (calm[0] and calm[1]):
        raise Broken("the table gives no predictions or no rejects")
    runs = 0
    while torture.kills < kills:
        runs += 1
        wild = torture.disturbed(f"wild-{seed}-{runs}", kills - torture.kills)
        check_equal(calm, wild)
    torture.store.close()
    return (
        f"{torture.kills} kills in {runs} runs of {len(calm[0])} predictions and "
        f"{len(calm[1])} rejects: each equal to the undisturbed run, no recorded chunk touched"
    )


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Kill batch workers and compare what they publish")
    parser.add_argument("--store", default="", help="URI; a SQLite file of its own unless given")
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fourways-torture-") as name:
        uri = given.store or f"sqlite:///{name}/store.db"
        try:
            print(
                torture(
                    Path(name), uri, kills=given.kills, workers=given.workers, rows=given.rows,
                    seed=given.seed,
                )
            )  # fmt: skip
        except (Broken, StoreUnavailable) as error:
            print(f"BROKEN (seed {given.seed}): {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
