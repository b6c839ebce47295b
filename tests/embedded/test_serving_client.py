"""The model server as a client nobody here wrote sees it: KServe's."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pytest
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

from tests.unit.serving_plane import (
    LINEAR,
    MIXED,
    WEIGHTS,
    configure,
    linear,
    mixed,
    serving,
)

pytestmark = pytest.mark.embedded


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
async def test_numbers(tmp_path: Path, binary: bool) -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    async with serving(configure(tmp_path, linear(), LINEAR)) as plane:
        url = f"http://127.0.0.1:{plane.server.port}"
        try:
            assert await client.is_server_live(url)
            assert await client.is_server_ready(url)
            assert await client.is_model_ready(url, "churn")
            records = np.array([[30, 0.1, 1], [31, -2, 2]], np.float32)
            everything = InferInput("x", [2, 3], "FP32")
            everything.set_data_from_numpy(records, binary_data=binary)
            parameters = {"binary_data_output": binary}
            request = InferRequest("churn", [everything], request_id="r", parameters=parameters)
            answer = await client.infer(url, request, model_name="churn")
            assert (answer.id, answer.model_name) == ("r", "churn")
            scores = answer.outputs[0].as_numpy()
            np.testing.assert_allclose(scores, (records @ WEIGHTS).reshape(-1), rtol=1e-6)
            bad = InferInput("x", [1, 3], "FP32")
            bad.set_data_from_numpy(np.array([[-1, 0, 0]], np.float32), binary_data=binary)
            with pytest.raises(httpx.HTTPStatusError, match="age: -1 is below 0"):
                await client.infer(url, InferRequest("churn", [bad]), model_name="churn")
        finally:
            await client.close()


async def test_every_type_in_json_and_binary(tmp_path: Path) -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    values = {
        "word": ("BYTES", np.array(["ü", "long one"], object)),
        "flag": ("BOOL", np.array([True, False])),
        "big": ("UINT64", np.array([2**64 - 1, 0], np.uint64)),
        "grid": ("FP64", np.arange(8, dtype=np.float64).reshape(2, 2, 2) / 3),
    }
    async with serving(configure(tmp_path, mixed(), MIXED)) as plane:
        url = f"http://127.0.0.1:{plane.server.port}"
        try:
            for as_binary in (("word", "big"), ("flag", "grid")):
                inputs, outputs = [], []
                for name, (datatype, value) in values.items():
                    inputs.append(InferInput(name, list(value.shape), datatype))
                    inputs[-1].set_data_from_numpy(value, binary_data=name in as_binary)
                    asked = {"binary_data": name not in as_binary}
                    outputs.append(RequestedOutput(f"{name}_out", parameters=asked))
                request = InferRequest("churn", inputs, request_outputs=outputs)
                answer = await client.infer(url, request, model_name="churn")
                for name, (_, value) in values.items():
                    got = answer.get_output_by_name(f"{name}_out").as_numpy()
                    if name == "word":
                        got = [t.decode() if isinstance(t, bytes) else t for t in got.tolist()]
                        assert got == value.tolist()
                    else:
                        np.testing.assert_array_equal(got, value)
        finally:
            await client.close()
