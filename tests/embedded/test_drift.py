"""Drift and quality as processes and real stores tell them."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fourways_api import Contract
from fourways_api.worker_faults import FAULTS_PATH, WorkerFaults
from fourways_cli.embedded.ports import free_port
from fourways_runtime.io.store import open_run_store
from fourways_runtime.scoring.profile import make_profile
from fourways_runtime.workloads import batch
from tests.kit.batch_world import World
from tests.kit.server_process import started
from tests.kit.serving_plane import NO_TLS, configure, tensor
from tests.kit.waiting import until
from tools.kit.models import LINEAR, WEIGHTS, linear

pytestmark = pytest.mark.embedded


def records(rows: int, shift: float) -> dict[str, Any]:
    random = np.random.default_rng(rows)
    return {
        "age": random.integers(20, 60, rows).astype(np.int32),
        "spend": (random.normal(5, 1, rows) + shift).astype(np.float32),
        "rate": random.uniform(-1, 1, rows).astype(np.float32),
    }


def test_a_model_server_tells_what_has_drifted(tmp_path: Path) -> None:
    config = configure(
        tmp_path,
        linear(),
        LINEAR,
        port=free_port(),
        monitoring={"profile": {"uri": "pvc://data/profile.json"}, "window": "1m"},
    )
    known = records(2_000, 0)
    score = np.stack(list(known.values()), axis=1) @ WEIGHTS
    made = make_profile(Contract.model_validate(LINEAR), known, {"score": score.reshape(-1)})
    path = tmp_path / "volumes" / "data" / "profile.json"
    path.write_text(made.model_dump_json(exclude_none=True))
    kinds = {"age": "INT32", "spend": "FP32", "rate": "FP32"}
    with started(tmp_path, config) as running:
        running.until("serving")
        with httpx.Client(base_url=running.url, verify=NO_TLS) as client:

            def told() -> WorkerFaults | None:
                columns = records(100, 4)
                inputs = [tensor(n, kinds[n], columns[n].tolist()) for n in kinds]
                answer = client.post("/v2/models/churn/infer", json={"inputs": inputs})
                assert answer.status_code == 200
                found = WorkerFaults.model_validate_json(client.get(FAULTS_PATH).content)
                return found if found.drift is not None else None

            found = until(told, "no comparison", interval=0.2)
            assert found.faults == ()
            assert found.drift is not None
            drifted = {(each.side, each.name) for each in found.drift.fields if each.drifted}
            assert drifted == {("input", "spend"), ("output", "score")}
            metrics = client.get("/metrics").text
            assert 'fourways_drift_detected{field="spend",side="input"} 1.0' in metrics
            assert 'fourways_drift_detected{field="age",side="input"} 0.0' in metrics


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_drift_and_quality_of_runs_are_in_either_store(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    uri = f"sqlite:///{tmp_path}/store.db"
    if kind == "postgresql":
        uri = request.getfixturevalue("postgres").database()
    world = World(tmp_path, uri, "n")
    random = np.random.default_rng(1)
    keys = [f"c{at}" for at in range(300)]
    spend = random.uniform(0, 0.5, 300).astype(np.float32)
    world.table(id=keys, age=[0] * 300, spend=spend)
    contract = Contract.model_validate(world.config().contract.to_json())
    known = {"age": np.full(300, 0), "spend": spend + 1}
    made = make_profile(contract, known, {"y": 2.0 * (known["age"] + known["spend"])})
    world.file("profile.json").write_text(made.model_dump_json(exclude_none=True))
    settings: dict[str, Any] = {
        "monitoring": {"profile": {"uri": "pvc://data/profile.json"}},
        "quality": {
            "truth": {"uri": "pvc://data/truth.parquet"},
            "label": "happened",
            "time": "at",
            "output": "y",
            "metrics": ["AUC", "Accuracy"],
        },
    }
    first = batch.BatchRun(world.config(**settings), "r1")
    first.execute()
    assert first.progress.drift is not None
    assert first.progress.drift.drifted == 2
    labels = (2 * spend > 0.5).astype(np.int64)
    at = [datetime.now(UTC)] * 300
    table = pa.table(
        {"id": keys, "happened": labels, "at": pa.array(at, pa.timestamp("us", "UTC"))}
    )
    pq.write_table(table, world.file("truth.parquet"))
    second = batch.BatchRun(world.config(**settings), "r2")
    second.execute()
    found = second.progress.quality
    assert found is not None
    assert (found.run, found.labels) == ("r1", 300)
    assert {each.name: each.value for each in found.metrics} == {"AUC": 1.0, "Accuracy": 1.0}
    with closing(open_run_store(uri, read_only=True)) as store:
        later, earlier = store.runs("n", "churn")
        assert (earlier.quality, later.quality) == (found.to_json(), None)
        assert earlier.drift is not None
        assert later.drift is not None
        assert later.drift["fields"] == earlier.drift["fields"]
