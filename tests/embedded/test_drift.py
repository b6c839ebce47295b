"""A model server that compares its records tells the operator and Prometheus what has drifted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from fourways_api import Contract
from fourways_api.worker_faults import FAULTS_PATH, WorkerFaults
from fourways_cli.embedded.ports import free_port
from fourways_runtime.scoring.profile import make_profile
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
