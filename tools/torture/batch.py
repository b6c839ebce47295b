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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper

from fourways_api.runtime_config import CONFIG_VARIABLE, RUN_VARIABLE
from fourways_runtime.errors import StoreUnavailable
from fourways_runtime.store import Writer, open_writer
from fourways_runtime.store.database import Database, quoted, table

NAMESPACE, DEPLOYMENT = "torture", "churn"
CHUNK_ROWS = 4096
_MEMORY = CHUNK_ROWS * 8 * (8 * 3 + 64)
_WAIT_SECONDS = 120.0
Rows = list[tuple[Any, ...]]


class Broken(Exception):
    """What must hold does not."""


@dataclass
class Torture:
    """A table, a model, and a store that workers publish to while they are killed."""

    folder: Path
    store_uri: str
    rows: int
    workers: int
    chance: random.Random
    kills: int = 0
    recorded: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    """Chunks of the present run that were seen recorded, as they were."""

    def __post_init__(self) -> None:
        data = self.folder / "volumes" / "data"
        data.mkdir(parents=True, exist_ok=True)
        (self.folder / "uri").write_text(self.store_uri)
        (data / "model.onnx").write_bytes(_model())
        pq.write_table(_table(self.rows), data / "table.parquet", row_group_size=CHUNK_ROWS)
        # As in the image, which has no pandas: pyarrow would spend a second on importing it.
        (self.folder / "pandas.py").write_text("raise ImportError")
        self.store: Writer = open_writer(self.store_uri)
        self.data: Database = self.store.database

    def undisturbed(self) -> tuple[Rows, Rows]:
        """Score the table in peace; return its predictions and rejects."""
        worker = self._start("calm", 0)
        if worker.wait(_WAIT_SECONDS) != 0:
            raise Broken(f"the undisturbed run failed: {self._last_words(0)}")
        return self.outcome("calm")

    def disturbed(self, run: str, kills: int) -> tuple[Rows, Rows]:
        """Score the table with workers that are killed, up to ``kills`` times."""
        self.recorded = {}
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
                self._compare_records(run)
                if code is None and left:
                    processes[victim].kill()
                    processes[victim].wait()
                    left -= 1
                    self.kills += 1
                    processes[victim] = self._start(run, victim)
                elif code not in (None, 0):
                    raise Broken(f"a worker ended with {code}: {self._last_words(victim)}")
                elif all(process.poll() == 0 for process in processes):
                    self._compare_records(run)
                    return self.outcome(run)
            raise Broken(f"run {run} did not end in {_WAIT_SECONDS:g} s")
        finally:
            for process in processes:
                process.kill()
                process.wait()

    def outcome(self, run: str) -> tuple[Rows, Rows]:
        """Return a published run's predictions, sorted by key, and its rejects, by position."""
        ((view, run_id, state),) = self.data.rows(
            "SELECT table_name, id, state FROM @runs WHERE namespace = ? AND deployment = ? "
            "AND name = ?",
            (NAMESPACE, DEPLOYMENT, run),
        )
        if state != "published":
            raise Broken(f"run {run} is {state}")
        rows = self.data.rows(f"SELECT * FROM {table(view)} ORDER BY {quoted('id')}")  # noqa: S608
        rejects = self.data.rows(
            "SELECT position, key, field, reason FROM @rejects WHERE run_id = ? "
            "ORDER BY position, reason",
            (run_id,),
        )
        return rows, rejects

    def _compare_records(self, run: str) -> None:
        """Check that what was recorded once was not touched again."""
        found = self.data.rows(
            "SELECT c.number, c.owner, c.attempts, c.done_at, c.rows, c.predictions, c.rejects "
            "FROM @chunks c JOIN @runs r ON r.id = c.run_id WHERE r.namespace = ? AND "
            "r.deployment = ? AND r.name = ? AND c.state = 'done'",
            (NAMESPACE, DEPLOYMENT, run),
        )
        now = {number: tuple(rest) for number, *rest in found}
        for number, was in self.recorded.items():
            if now.get(number) != was:
                raise Broken(f"chunk {number} was recorded as {was}, and is {now.get(number)}")
        self.recorded = now

    def _start(self, run: str, index: int) -> subprocess.Popen[bytes]:
        told = {
            "namespace": NAMESPACE,
            "name": DEPLOYMENT,
            "model": {"uri": "pvc://data/model.onnx", "version": "v1"},
            "contract": {
                "entityKey": {"name": "id"},
                "inputs": [
                    {"name": "age", "type": "float32", "range": {"min": 0}},
                    {"name": "spend", "type": "float32"},
                ],
                "outputs": [{"name": "y", "type": "float32"}],
            },
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
        for what, was, now in zip(("predictions", "rejects"), calm, wild, strict=True):
            if was != now:
                differing = set(was) ^ set(now)
                raise Broken(f"{what}: {len(differing)} differ, such as {next(iter(differing))}")
    torture.store.close()
    return (
        f"{torture.kills} kills in {runs} runs of {len(calm[0])} predictions and "
        f"{len(calm[1])} rejects: each equal to the undisturbed run, no recorded chunk touched"
    )


def _model() -> bytes:
    """Return a model that takes a while: a wide network of no meaning."""
    chance = np.random.default_rng(0)
    wide = chance.normal(size=(2, 512)).astype(np.float32)
    deep = (chance.normal(size=(512, 512)) / 23).astype(np.float32)
    out = (chance.normal(size=(512, 1)) / 23).astype(np.float32)
    weights = [
        numpy_helper.from_array(w, name) for w, name in ((wide, "a"), (deep, "b"), (out, "c"))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Tanh", ["h"], ["i"]),
        helper.make_node("MatMul", ["i", "b"], ["j"]),
        helper.make_node("Tanh", ["j"], ["k"]),
        helper.make_node("MatMul", ["k", "c"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])],
        weights,
    )
    opset = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())


def _table(rows: int) -> pa.Table:
    """Return a table in which 1 row in 97 is refused, and 1 key in 101 occurs again."""
    number = np.arange(rows)
    age = (number % 90).astype(np.float32)
    age[number % 97 == 0] = -1
    keys = np.where(number % 101 == 0, number // 2, number)
    return pa.table(
        {"id": [f"c{key}" for key in keys], "age": age, "spend": (number % 1000).astype(np.float32)}
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
