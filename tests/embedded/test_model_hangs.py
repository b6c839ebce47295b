"""A model that does not return for some inputs: named with its stage, and the process ends.

A real one: an ONNX Loop without end. Each process is given its whole time, some 20 seconds.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from onnx import TensorProto, helper

from fourways_cli.embedded.ports import free_port
from fourways_runtime.model_watch import WATCH
from fourways_runtime.v2 import app
from tests.kit.batch_world import World
from tests.kit.server_process import started
from tests.kit.serving_plane import NO_TLS, configure, serving, tensor
from tools.kit.models import onnx_bytes

FLOAT = TensorProto.FLOAT

pytestmark = pytest.mark.embedded


def trap(limit: float) -> bytes:
    """Answer x, and never return where an x of the batch reaches the limit."""

    def value(name: str, kind: int, shape: list[Any]) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    answers = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["o1"])], "a", [], [value("o1", FLOAT, ["N", 1])]
    )
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["ci"], ["co"]),
            helper.make_node("Identity", ["xi"], ["xo"]),
        ],
        "b",
        [
            value("i", TensorProto.INT64, []),
            value("ci", TensorProto.BOOL, []),
            value("xi", FLOAT, ["N", 1]),
        ],
        [value("co", TensorProto.BOOL, []), value("xo", FLOAT, ["N", 1])],
    )
    endless = helper.make_graph(
        [helper.make_node("Loop", ["n", "c", "x"], ["o2"], body=body)],
        "e",
        [],
        [value("o2", FLOAT, ["N", 1])],
    )
    return onnx_bytes(
        [
            helper.make_node("ReduceMax", ["x"], ["highest"], keepdims=0),
            helper.make_node("Less", ["highest", "limit"], ["good"]),
            helper.make_node("If", ["good"], ["y"], then_branch=answers, else_branch=endless),
        ],
        [("x", FLOAT, ["N", 1])],
        [("y", FLOAT, ["N", 1])],
        [
            ("n", np.array(2**62, np.int64)),
            ("c", np.array(True)),
            ("limit", np.array(limit, np.float32)),
        ],
    )


SCHEMA: dict[str, Any] = {
    "entityKey": {"name": "id"},
    "inputs": [{"name": "x", "type": "float32"}],
    "outputs": [{"name": "y", "type": "float32"}],
}


def test_a_request_that_the_model_never_answers_ends_the_server(tmp_path: Path) -> None:
    config = configure(tmp_path, trap(100), SCHEMA, port=free_port())
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
    assert words.message.startswith("scoring: 1 row; the model has not returned for 20 s")


@pytest.mark.parametrize("golden", [True, False])
def test_a_model_that_never_returns_while_it_is_loaded_is_named_with_the_stage(
    golden: bool, tmp_path: Path
) -> None:
    schema = dict(SCHEMA)
    if golden:
        file = tmp_path / "volumes" / "data" / "golden.jsonl"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"inputs": {"x": 1.0}, "outputs": {"y": 1.0}}))
        schema["goldenVectors"] = {"uri": "pvc://data/golden.jsonl"}
    config = configure(tmp_path, trap(-1), schema, port=free_port())
    with started(tmp_path, config) as running:
        assert running.process.wait(60) == 75
    words = running.last_words()
    assert words.reason == "ModelHangs"
    stage = "checking the golden vectors" if golden else "warming up"
    assert words.message.startswith(f"{stage}: 1 row; the model has not returned")


def test_a_batch_run_names_chunk_and_rows_and_no_key(tmp_path: Path) -> None:
    world = World(tmp_path, f"sqlite:///{tmp_path}/store.db", "shop")
    world.file("model.onnx").write_bytes(trap(100))
    world.table(id=["anna", "bert"], x=np.array([1, 1000], np.float32))
    running = world.process(world.config(contract=SCHEMA))
    code, report, _ = running.end()
    assert (code, report.reason) == (75, "ModelHangs")
    assert report.message.startswith(
        "scoring: 2 rows of chunk 0 (attempt 1), rows 0 to 1 of the source; the model"
    )
    assert "bert" not in report.message


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
