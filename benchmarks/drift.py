"""``python -m benchmarks.drift``: what the comparison with a training profile costs.

All figures are ratios of processor time, so other load on the machine has little effect. Requests:
scoring alone is compared, without HTTP, which makes the ratio larger than a server's. The counting
thread's share is that of one core, with as many records as it takes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from time import thread_time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fourways_api import Contract
from fourways_http import Request
from fourways_runtime.io.brokers.source import Events
from fourways_runtime.scoring.columns import Array, Scored
from fourways_runtime.scoring.live_profile import LiveProfile
from fourways_runtime.scoring.model.base import Model, Tensor
from fourways_runtime.scoring.pipeline import Pipeline
from fourways_runtime.scoring.profile import RecordProfiler, make_profile
from fourways_runtime.scoring.table_pipeline import TablePipeline
from fourways_runtime.v2.request import RequestReader
from fourways_runtime.v2.scorer import RequestScorer
from fourways_runtime.v2.templates import RequestTemplates
from fourways_runtime.workloads.drift_watch import COUNT_SECONDS
from fourways_runtime.workloads.streaming.scoring import EventScorer

INPUTS = 13
ROUNDS = 7
NAMES = [f"x{at}" for at in range(INPUTS)]


class Sums:
    """A model that costs next to nothing, which makes every ratio larger than a real one's."""

    inputs: tuple[Tensor, ...] = (Tensor("x", "float32", (None, INPUTS)),)
    outputs: tuple[Tensor, ...] = (Tensor("y", "float32", (None, 1)),)

    def predict(self, tensors: Any) -> dict[str, Array]:
        """Return the sum of each row."""
        return {"y": tensors["x"].sum(axis=1, keepdims=True)}


CONTRACT = Contract.model_validate(
    {
        "entityKey": {"name": "id", "type": "int64"},
        "inputs": [{"name": name, "type": "float32"} for name in NAMES],
        "outputs": [{"name": "y", "type": "float32"}],
    }
)
MODEL: Model = Sums()


def main() -> None:
    """Measure and print."""
    random = np.random.default_rng(0)
    known = {name: random.normal(0, 1, 20_000).astype(np.float32) for name in NAMES}
    outputs = {"y": np.sum(list(known.values()), axis=0)}
    profiler = RecordProfiler(make_profile(CONTRACT, known, outputs))
    _requests(profiler, random)
    _events(profiler, random)
    _table(profiler, random)


def _live(profiler: RecordProfiler) -> LiveProfile:
    return LiveProfile(profiler, NAMES, window=3_600, max_drift=0.2)


def _requests(profiler: RecordProfiler, random: np.random.Generator) -> None:
    scorer = RequestScorer(CONTRACT, MODEL, 1024)
    reader = RequestTemplates(RequestReader(CONTRACT, ["x"], 8))
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, INPUTS]}
    asked = []
    for _ in range(2_000):
        data = random.normal(0, 1, INPUTS).round(4).tolist()
        body = json.dumps({"inputs": [{**tensor, "data": data}]}).encode()
        asked.append(reader.take(Request(b"POST", b"/", [], body)))

    def score() -> None:
        for one in asked[1:]:
            scorer.score([one])

    _compared("requests of one record, scoring", score, scorer, _live(profiler))
    live = scorer.profile = _live(profiler)

    def fill() -> None:
        for one in asked[1:]:
            scorer.score([one])

    _counting("requests", fill, live)


def _events(profiler: RecordProfiler, random: np.random.Generator) -> None:
    scorer = EventScorer(CONTRACT, MODEL, Pipeline(CONTRACT, MODEL), 512)
    rows = random.normal(0, 1, (512, INPUTS)).round(4).tolist()
    values = [
        json.dumps({"id": at, **dict(zip(NAMES, row, strict=True))}).encode()
        for at, row in enumerate(rows)
    ]
    events = Events([0] * 512, range(512), [None] * 512, values, lambda at: ())
    _compared("events, in batches of 512", lambda: scorer.score(events), scorer, _live(profiler))
    live = scorer.profile = _live(profiler)
    _counting("events", lambda: scorer.score(events), live)


def _table(profiler: RecordProfiler, random: np.random.Generator) -> None:
    """Compare with reading a Parquet file and scoring it; a run writes predictions as well."""
    rows = 65_536
    columns = {name: random.normal(0, 1, rows).astype(np.float32) for name in NAMES}
    made = io.BytesIO()
    pq.write_table(pa.table({"id": [f"c{at}" for at in range(rows)], **columns}), made)
    contract = CONTRACT.model_copy(
        update={"entity_key": CONTRACT.entity_key.model_copy(update={"type": "string"})}
    )
    pipeline = TablePipeline(Pipeline(contract, MODEL))

    def read() -> Scored:
        batch = pq.read_table(io.BytesIO(made.getvalue()), use_threads=False).to_batches()[0]
        return pipeline.score(batch)

    scored = read()
    bare = _best(read)
    more = _best(lambda: profiler.sampled(scored, 0, weighed=True))
    print(f"rows of a table, in batches of {rows:,}: {more / bare:.2%} of reading and scoring")


def _compared(title: str, work: Callable[[], object], scorer: Any, live: LiveProfile) -> None:
    scorer.profile = None
    bare = _best(work)
    scorer.profile = live
    with_profile = _best(work)
    print(f"{title}: {with_profile / bare - 1:+.2%} on the hot path")


def _counting(title: str, fill: Callable[[], object], live: LiveProfile) -> None:
    best = float("inf")
    for _ in range(ROUNDS):
        fill()
        started = thread_time()
        live.count()
        best = min(best, thread_time() - started)
    print(f"{title}: counting takes {best / COUNT_SECONDS:.2%} of a core, at any load above")


def _best(work: Callable[[], object]) -> float:
    found = []
    for _ in range(ROUNDS * 3):
        started = thread_time()
        work()
        found.append(thread_time() - started)
    return min(found)


if __name__ == "__main__":
    main()
