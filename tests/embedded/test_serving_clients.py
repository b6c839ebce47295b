"""A model server's process as clients nobody here wrote see it: Triton's and KServe's."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

from fourways_api.runtime_config import ServerConfig
from fourways_cli.embedded.ports import free_port
from tests.kit.secret_files import secret_folder
from tests.kit.server_process import started
from tests.kit.serving_plane import MIXED, configure, mixed
from tools.kit.models import LINEAR, WEIGHTS, linear

triton = pytest.importorskip("tritonclient.http")

pytestmark = pytest.mark.embedded

RECORDS = np.array([[30, 0.1, 1], [31, -2, 2]], np.float32)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of numbers that looks two inputs up; yields its HOST:PORT."""
    root = tmp_path_factory.mktemp("numbers")
    secret_folder(root / "secrets" / "crm", uri=f"sqlite://{root}/crm.db")
    with sqlite3.connect(root / "crm.db") as connection:
        connection.execute("CREATE TABLE people (id TEXT PRIMARY KEY, age INTEGER, spend REAL)")
        connection.execute("INSERT INTO people VALUES ('ann', 30, 2)")
    connection.close()
    features = {
        "database": {"secretName": "crm"},
        "table": "people",
        "inputs": ["age", "spend"],
        "timeout": "2s",
    }
    config = configure(root, linear(), LINEAR, port=free_port(), features=features)
    paths = config.paths.model_copy(update={"secrets_root": str(root / "secrets")})
    yield from _serve(root, config.model_copy(update={"paths": paths}))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that echoes each type; yields its HOST:PORT."""
    root = tmp_path_factory.mktemp("texts")
    yield from _serve(root, configure(root, mixed(), MIXED, port=free_port()))


def _serve(root: Path, config: ServerConfig) -> Iterator[str]:
    with started(root, config) as running:
        running.until("serving")
        yield f"127.0.0.1:{config.port}"


# ---------------------------------------------------------------- Triton's


def given(name: str, value: Any, datatype: str, binary: bool) -> Any:
    tensor = triton.InferInput(name, list(value.shape), datatype)
    tensor.set_data_from_numpy(value, binary_data=binary)
    return tensor


def test_triton_health_and_metadata(numbers: str) -> None:
    with triton.InferenceServerClient(numbers) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("churn")
        assert client.is_model_ready("churn", "v1")
        assert not client.is_model_ready("other")
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        metadata = client.get_model_metadata("churn")
        assert metadata["versions"] == ["v1"]
        inputs = {tensor["name"]: tensor for tensor in metadata["inputs"]}
        assert inputs["id"]["parameters"] == {"entity_key": True}
        assert (inputs["age"]["datatype"], inputs["age"]["shape"]) == ("INT32", [-1])
        assert metadata["outputs"] == [{"name": "score", "datatype": "FP32", "shape": [-1]}]


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_triton_numbers(numbers: str, binary: bool) -> None:
    asked = [triton.InferRequestedOutput("score", binary_data=binary)]
    with triton.InferenceServerClient(numbers, concurrency=4) as client:
        whole = [given("x", RECORDS, "FP32", binary)]
        answer = client.infer("churn", whole, outputs=asked, request_id="r1")
        assert answer.get_response()["id"] == "r1"
        np.testing.assert_allclose(
            answer.as_numpy("score"), (RECORDS @ WEIGHTS).reshape(-1), rtol=1e-6
        )
        apart = [
            given(name, RECORDS[:, at].astype(kind), datatype, binary)
            for at, (name, kind, datatype) in enumerate(
                (("age", "int32", "INT32"), ("spend", "float32", "FP32"), ("rate", "f4", "FP32"))
            )
        ]
        again = client.infer("churn", apart, model_version="v1", outputs=asked)
        np.testing.assert_array_equal(again.as_numpy("score"), answer.as_numpy("score"))
        several = [client.async_infer("churn", whole, outputs=asked) for _ in range(8)]
        for one in several:
            np.testing.assert_array_equal(
                one.get_result().as_numpy("score"), answer.as_numpy("score")
            )


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_triton_texts_truths_and_shapes(texts: str, binary: bool) -> None:
    values = {
        "word": ("BYTES", np.array(["ü", "long one"], object)),
        "flag": ("BOOL", np.array([True, False])),
        "big": ("UINT64", np.array([2**64 - 1, 0], np.uint64)),
        "grid": ("FP64", np.arange(8, dtype=np.float64).reshape(2, 2, 2) / 3),
    }
    with triton.InferenceServerClient(texts) as client:
        inputs = [given(name, value, kind, binary) for name, (kind, value) in values.items()]
        outputs = [triton.InferRequestedOutput(f"{n}_out", binary_data=binary) for n in values]
        answer = client.infer("churn", inputs, outputs=outputs)
        for name, (_, value) in values.items():
            got = answer.as_numpy(f"{name}_out")
            if name == "word":
                got = [text.decode() if isinstance(text, bytes) else text for text in got.tolist()]
                assert got == value.tolist()
            else:
                np.testing.assert_array_equal(got, value)


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_triton_looks_up_what_is_left_out(numbers: str, binary: bool) -> None:
    with triton.InferenceServerClient(numbers) as client:
        asked = [
            given("id", np.array(["ann"], object), "BYTES", binary),
            given("rate", np.array([1], np.float32), "FP32", binary),
        ]
        answer = client.infer("churn", asked)
        assert answer.as_numpy("score").tolist() == [11.125]
        assert answer.get_response()["parameters"] == {"features": "looked up"}


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_triton_errors(numbers: str, binary: bool) -> None:
    bad = np.array([[-1, 0, 0]], np.float32)
    nobody = [
        given("id", np.array(["bob"], object), "BYTES", binary),
        given("rate", np.array([1], np.float32), "FP32", binary),
    ]
    with triton.InferenceServerClient(numbers) as client:
        for model, version, inputs, status, told in (
            ("churn", "", [given("x", bad, "FP32", binary)], "400", "age: -1 is below 0 (row 0)"),
            ("churn", "", [given("y", bad, "FP32", binary)], "400", "y is not an input"),
            ("churn", "", nobody, "400", "age: missing: not in the feature database, key 'bob'"),
            ("other", "", nobody, "404", "no model other here; churn is served"),
            ("churn", "v2", nobody, "404", "version v2 is not served; v1 is"),
        ):
            with pytest.raises(triton.InferenceServerException, match=None) as caught:
                client.infer(model, inputs, model_version=version)
            assert status in caught.value.status()
            assert told in caught.value.message()


# ---------------------------------------------------------------- KServe's


# In a process of its own: its messages and those of Triton's client have the same names.
_CALLS = """
import asyncio, sys
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest

async def main(address):
    client = InferenceGRPCClient(address)
    assert await client.is_server_live() and await client.is_server_ready()
    assert await client.is_model_ready("churn")
    records = np.array([[30, 0.1, 1], [31, -2, 2]], np.float32)
    whole = InferInput("x", [2, 3], "FP32")
    whole.set_data_from_numpy(records, binary_data=sys.argv[2] == "binary")
    answer = await client.infer(InferRequest("churn", [whole], request_id="r"))
    print(answer.id, answer.model_version, *answer.outputs[0].as_numpy().tolist())

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize("kind", ["typed", "binary"])
def test_kserve_grpc(tmp_path: Path, kind: str) -> None:
    config = configure(tmp_path, linear(), LINEAR, port=free_port(), grpcPort=free_port())
    address = f"127.0.0.1:{config.grpc_port}"
    with started(tmp_path, config) as running:
        running.until("serving")
        done = subprocess.run(
            [sys.executable, "-c", _CALLS, address, kind], capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr
    identity, version, *scores = done.stdout.split()
    assert (identity, version) == ("r", "v1")
    np.testing.assert_allclose(np.array(scores, float), (RECORDS @ WEIGHTS).reshape(-1), rtol=1e-6)


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
async def test_kserve(numbers: str, texts: str, binary: bool) -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    url = f"http://{numbers}"
    try:
        assert await client.is_server_live(url)
        assert await client.is_server_ready(url)
        assert await client.is_model_ready(url, "churn")
        whole = InferInput("x", [2, 3], "FP32")
        whole.set_data_from_numpy(RECORDS, binary_data=binary)
        parameters = {"binary_data_output": binary}
        request = InferRequest("churn", [whole], request_id="r", parameters=parameters)
        answer = await client.infer(url, request, model_name="churn")
        assert (answer.id, answer.model_name) == ("r", "churn")
        np.testing.assert_allclose(
            answer.outputs[0].as_numpy(), (RECORDS @ WEIGHTS).reshape(-1), rtol=1e-6
        )
        key, rate = InferInput("id", [1], "BYTES"), InferInput("rate", [1], "FP32")
        for name, told in ((b"ann", None), (b"bob", "age: missing: not in the feature database")):
            key.set_data_from_numpy(np.array([name], object), binary_data=binary)
            rate.set_data_from_numpy(np.array([1], np.float32), binary_data=binary)
            request = InferRequest("churn", [key, rate], parameters=parameters)
            if told is None:
                answer = await client.infer(url, request, model_name="churn")
                assert answer.outputs[0].as_numpy().tolist() == [11.125]
                continue
            with pytest.raises(httpx.HTTPStatusError, match=told):
                await client.infer(url, request, model_name="churn")
        word = InferInput("word", [1], "BYTES")
        word.set_data_from_numpy(np.array(["nothing"], object), binary_data=binary)
        request = InferRequest("churn", [word])
        with pytest.raises(httpx.HTTPStatusError, match="flag: missing: the contract"):
            await client.infer(f"http://{texts}", request, model_name="churn")
    finally:
        await client.close()


async def test_kserve_every_type_in_json_and_binary(texts: str) -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    values = {
        "word": ("BYTES", np.array(["ü", "long one"], object)),
        "flag": ("BOOL", np.array([True, False])),
        "big": ("UINT64", np.array([2**64 - 1, 0], np.uint64)),
        "grid": ("FP64", np.arange(8, dtype=np.float64).reshape(2, 2, 2) / 3),
    }
    url = f"http://{texts}"
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
