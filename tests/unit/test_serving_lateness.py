"""A request that would take too long is answered, whatever the model does."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from fourways_runtime.scoring import model as models
from fourways_runtime.workloads import prepare
from tests.kit.serving_plane import configure, serving, tensor
from tests.kit.waiting import until_async
from tools.kit.models import LINEAR, linear

RECORD = tensor("input", "FP32", [30, 2, 1], [1, 3])


class Stuck:
    """A model that answers when it is let."""

    inputs = (models.Tensor("x", "float32", (None, 3)),)
    outputs = (models.Tensor("y", "float32", (None, 1)),)

    def __init__(self) -> None:
        self.go, self.asked = threading.Event(), threading.Event()
        self.go.set()

    def predict(self, tensors: Any) -> dict[str, Any]:
        self.asked.set()
        self.go.wait(20)
        return {"y": tensors["x"][:, :1]}


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Stuck:
    model = Stuck()
    monkeypatch.setattr(prepare, "load", lambda *args, **kwargs: model)
    return model


async def test_who_waits_for_a_model_that_hangs_is_told(tmp_path: Path, stuck: Stuck) -> None:
    config = configure(tmp_path, linear(), LINEAR, timeoutSeconds=0.2)
    async with serving(config) as plane:
        stuck.go.clear()
        stuck.asked.clear()
        first = asyncio.ensure_future(plane.infer(RECORD))
        await asyncio.to_thread(stuck.asked.wait, 10)
        second = asyncio.ensure_future(plane.infer(RECORD))
        answers = await asyncio.gather(first, second)
        assert [answer.status_code for answer in answers] == [504, 503]
        assert answers[0].json()["error"] == "the model took over 0.2 s"
        assert answers[1].json()["error"] == (
            "the request waited over 0.2 s for the model: try again"
        )
        assert answers[1].headers["retry-after"] == "1"
        assert await plane.metric("fourways_inference_timeouts_total") == 2
        stuck.go.set()

        async def answered() -> bool:
            return (await plane.infer(RECORD)).status_code == 200

        await until_async(answered, "the model answers again")
        answer = await plane.infer(RECORD)
        assert answer.json()["outputs"][0]["data"] == [30.0]
        assert await plane.metric("fourways_requests_waiting") == 0


async def test_who_waits_less_than_the_server_is_told_its_own_timeout(
    tmp_path: Path, stuck: Stuck
) -> None:
    async with serving(configure(tmp_path, linear(), LINEAR, timeoutSeconds=30)) as plane:
        stuck.go.clear()
        stuck.asked.clear()
        mine = {"x-request-timeout": "0.125"}
        ask = {"json": {"inputs": [RECORD]}, "headers": mine}
        first = asyncio.ensure_future(plane.client.post("/v2/models/churn/infer", **ask))
        await asyncio.to_thread(stuck.asked.wait, 10)
        second = await plane.client.post("/v2/models/churn/infer", **ask)
        assert (await first).json()["error"] == "the model took over 0.125 s"
        stuck.go.set()
        assert "over 30 s" not in second.text


async def test_a_model_in_time_is_not_disturbed(tmp_path: Path, stuck: Stuck) -> None:
    config = configure(tmp_path, linear(), LINEAR, timeoutSeconds=5)
    async with serving(config) as plane:
        answers = await asyncio.gather(*(plane.infer(RECORD) for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}
        assert await plane.metric("fourways_inference_timeouts_total") == 0
