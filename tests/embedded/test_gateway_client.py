"""The gateway as a client nobody here wrote sees it: KServe's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

from tests.kit.gateway_plane import Running, running

pytestmark = pytest.mark.embedded


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path) as plane:
        yield plane


async def test_answers_a_client_nobody_here_wrote(plane: Running) -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    try:
        assert await client.is_server_live(plane.url)
        assert await client.is_server_ready(plane.url)
        assert await client.is_model_ready(plane.url, "churn")
        names = InferInput("customer", [2], "BYTES")
        names.set_data_from_numpy(np.array(["c3", "c2"], dtype=object), binary_data=False)
        request = InferRequest(
            "churn", [names], request_id="r", request_outputs=[RequestedOutput("score")]
        )
        answer = await client.infer(plane.url, request, model_name="churn")
        assert (answer.id, answer.parameters["run"]) == ("r", "run-7")
        assert answer.outputs[0].as_numpy().tolist() == [0.75, 0.5]
        numbers = InferInput("customer", [1], "INT64")
        numbers.set_data_from_numpy(np.array([2**63 - 1]), binary_data=False)
        answer = await client.infer(plane.url, InferRequest("grid", [numbers]), model_name="grid")
        assert answer.get_output_by_name("grid").as_numpy().shape == (1, 2, 3)
        binary = InferInput("customer", [1], "INT64")
        binary.set_data_from_numpy(np.array([5]), binary_data=True)
        answer = await client.infer(plane.url, InferRequest("grid", [binary]), model_name="grid")
        assert answer.get_output_by_name("grid").as_numpy().shape == (1, 2, 3)
    finally:
        await client.close()
