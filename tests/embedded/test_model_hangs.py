"""A model that does not return for some inputs: named with its stage, and the process ends.

A real one: an ONNX Loop without end.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from fourways_cli.embedded.ports import free_port
from fourways_runtime.model_watch import WATCH
from fourways_runtime.v2 import app
from tests.kit.batch_world import World
from tests.kit.hanging_model import trap
from tests.kit.server_process import started
from tests.kit.serving_plane import NO_TLS, configure, serving, tensor
from tests.kit.stores import rejects_of

pytestmark = pytest.mark.embedded


SCHEMA: dict[str, Any] = {
    "entityKey": {"name": "id"},
    "inputs": [{"name": "x", "type": "float32"}],
    "outputs": [{"name": "y", "type": "float32"}],
}


MODEL = {"uri": "pvc://data/model.onnx", "version": "v1", "callTimeout": "2s"}


def test_a_request_that_the_model_never_answers_ends_the_server(tmp_path: Path) -> None:
    config = configure(tmp_path, trap(100), SCHEMA, port=free_port(), model=MODEL)
    with started(tmp_path, config) as running:
        running.until("serving")
        with httpx.Client(base_url=running.url, verify=NO_TLS, timeout=60) as client:
            path = "/v2/models/churn/infer"
            good = client.post(path, json={"inputs": [tensor("x", "FP32", [1])]})
            assert good.status_code == 200
            with contextlib.suppress(httpx.HTTPError):  # or cut off, as the process ends
                asked = client.post(path, json={"inputs": [tensor("x", "FP32", [1000])]})
                assert asked.status_code == 504
        assert running.process.wait(60) == 75
    words = running.last_words()
    assert (words.reason, words.version) == ("ModelHangs", "v1")
    assert words.message.startswith("scoring: 1 row; the model has not returned for 2 s")


@pytest.mark.parametrize("golden", [True, False])
def test_a_model_that_never_returns_while_it_is_loaded_is_named_with_the_stage(
    golden: bool, tmp_path: Path
) -> None:
    schema = dict(SCHEMA)
    if golden:
        file = tmp_path / "volumes" / "data" / "golden.jsonl"
        file.parent.mkdir(parents=True)
        good, bad = ({"inputs": {"x": x}, "outputs": {"y": 1.0}} for x in (1.0, 1000.0))
        file.write_text(f"{json.dumps(good)}\n\n{json.dumps(bad)}\n{json.dumps(good)}\n")
        schema["goldenVectors"] = {"uri": "pvc://data/golden.jsonl"}
    config = configure(tmp_path, trap(100 if golden else -1), schema, port=free_port(), model=MODEL)
    with started(tmp_path, config) as running:
        assert running.process.wait(60) == 75
    words = running.last_words()
    assert words.reason == "ModelHangs"
    stage = "warming up: 1 row; "
    if golden:
        where = "vector 1 (line 3 of the golden file)"
        stage = f"checking the golden vectors: 1 row of {where}; "
    assert words.message.startswith(stage + "the model has not returned")


def test_a_batch_run_finds_the_row_at_which_the_model_hangs_and_goes_on_without_it(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, f"sqlite:///{tmp_path}/store.db", "shop")
    world.file("model.onnx").write_bytes(trap(100))
    world.table(id=["anna", "bert", "cora"], x=np.array([1, 1000, 3], np.float32))
    config = world.config(contract=SCHEMA, model__callTimeout="2s", batch__maxRejects="1")
    for rows, where in (
        ("3 rows", "chunk 0 (attempt 1), rows 0 to 2 of the source"),
        ("1 row", "chunk 0 (attempt 2), row 1 of the source"),
    ):
        code, report, _ = world.process(config).end()
        assert (code, report.reason) == (75, "ModelHangs")
        assert report.message.startswith(f"scoring: {rows} of {where}; the model has not returned")
        assert "bert" not in report.message, "status shows no key"
    code, report, _ = world.process(config).end()
    assert (code, report.rows, report.rejects) == (0, 2, 1)
    assert rejects_of(world.uri, "shop") == [
        (1, "bert", "row", "the model does not return for this row")
    ]


async def test_probes_say_that_the_model_does_not_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(configure(tmp_path, trap(100), SCHEMA)) as plane:
        assert (await plane.client.get("/v2/health/ready")).status_code == 200
        monkeypatch.setattr(app, "STUCK_SECONDS", -1)
        monkeypatch.setattr(plane.app, "_config", _without_timeout(plane.app._config))
        with WATCH.call():
            ready = await plane.client.get("/v2/health/ready")
            assert (ready.status_code, ready.json()["ready"]) == (503, False)
            assert (await plane.client.get("/v2/models/churn/ready")).status_code == 503
            assert (await plane.client.get("/v2/health/live")).status_code == 200
        with WATCH.call(seconds=-1):
            assert (await plane.client.get("/v2/health/live")).status_code == 503


def _without_timeout(config: Any) -> Any:
    return config.model_copy(update={"timeout_seconds": -1.0})
