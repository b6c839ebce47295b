"""The protocol over gRPC: the same answers as over HTTP to the bit, refusals with a status."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
from grpc import aio

from fourways_http import HttpError, Request, Response
from fourways_runtime.errors import Unavailable
from fourways_runtime.grpc_v2 import listener
from fourways_runtime.grpc_v2.listener import GrpcListener
from fourways_runtime.grpc_v2.messages import SERVICE, message
from fourways_runtime.v2.deadline import timeout_of
from tests.kit.gateway_plane import running
from tests.kit.serving_plane import MIXED, Serving, configure, mixed, serving
from tools.kit.models import LINEAR, linear

RATES = np.array([1.5, -10.0], "<f4")


@asynccontextmanager
async def calling(answer: Any) -> AsyncIterator[Any]:
    """Listen; yield a function that calls a method by name with the fields of its request."""
    listener = GrpcListener(answer)
    port = await listener.start("127.0.0.1", 0)
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:

        async def call(method: str, metadata: Any = (), seconds: float = 10, **fields: Any) -> Any:
            stub = channel.unary_unary(
                f"/{SERVICE}/{method}",
                request_serializer=message(f"{method}Request").SerializeToString,
                response_deserializer=message(f"{method}Response").FromString,
            )
            request = message(f"{method}Request")(**fields)
            return await stub(request, metadata=metadata, timeout=seconds)

        yield call
    await listener.stop()


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(configure(tmp_path, linear(), LINEAR, timeoutSeconds=30)) as plane:
        yield plane


@pytest.fixture
async def call(plane: Serving) -> AsyncIterator[Any]:
    async with calling(plane.server.answer) as call:
        yield call


def inputs(typed: bool) -> dict[str, Any]:
    ages, spends = np.array([33, 120], "<i4"), np.array([0.5, 1e6], "<f4")
    described = [("age", "INT32", ages), ("spend", "FP32", spends), ("rate", "FP32", RATES)]
    made = [{"name": n, "datatype": d, "shape": [2]} for n, d, _ in described]
    if not typed:
        return {"inputs": made, "raw_input_contents": [v.tobytes() for *_, v in described]}
    for tensor, (_, datatype, values) in zip(made, described, strict=True):
        field = "int_contents" if datatype == "INT32" else "fp32_contents"
        tensor["contents"] = {field: values.tolist()}
    return {"inputs": made}


async def over_http(plane: Serving) -> list[float]:
    answer = await plane.infer(
        {"name": "age", "datatype": "INT32", "shape": [2], "data": [33, 120]},
        {"name": "spend", "datatype": "FP32", "shape": [2], "data": [0.5, 1e6]},
        {"name": "rate", "datatype": "FP32", "shape": [2], "data": RATES.tolist()},
    )
    return [float(np.float32(value)) for value in answer.json()["outputs"][0]["data"]]


@pytest.mark.parametrize("typed", [True, False])
async def test_answers_equal_those_over_http(plane: Serving, call: Any, typed: bool) -> None:
    answer = await call("ModelInfer", model_name="churn", id="r1", **inputs(typed))
    assert (answer.model_name, answer.model_version, answer.id) == ("churn", "v1", "r1")
    (output,) = answer.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("score", "FP32", [2])
    raw = answer.raw_output_contents
    found = output.contents.fp32_contents if typed else np.frombuffer(raw[0], "<f4").tolist()
    assert list(found) == await over_http(plane)


async def test_every_datatype_comes_back_as_it_went_in(tmp_path: Path) -> None:
    made = [
        ("word", "BYTES", [1], {"bytes_contents": ["ü".encode()]}),
        ("flag", "BOOL", [1], {"bool_contents": [True]}),
        ("big", "UINT64", [1], {"uint64_contents": [2**64 - 1]}),
        ("grid", "FP64", [1, 2, 2], {"fp64_contents": [0.1, -0.0, 1e300, 4.0]}),
    ]
    tensors = [{"name": n, "datatype": d, "shape": s, "contents": c} for n, d, s, c in made]
    async with (
        serving(configure(tmp_path, mixed(), MIXED)) as plane,
        calling(plane.server.answer) as call,
    ):
        answer = await call("ModelInfer", model_name="churn", inputs=tensors)
    found = {one.name: one for one in answer.outputs}
    for name, _, shape, contents in made:
        output = found[f"{name}_out"]
        assert list(output.shape) == shape
        ((field, values),) = contents.items()
        assert list(getattr(output.contents, field)) == values


async def test_it_describes_server_and_model(call: Any) -> None:
    assert (await call("ServerLive")).live
    assert (await call("ServerReady")).ready
    assert (await call("ModelReady", name="churn")).ready
    assert (await call("ServerMetadata")).name == "fourways"
    described = await call("ModelMetadata", name="churn", version="v1")
    assert [one.name for one in described.inputs] == ["age", "spend", "rate"]
    assert list(described.inputs[0].shape) == [-1]
    (listed,) = (await call("RepositoryIndex", ready=True)).models
    assert (listed.name, listed.version, listed.state) == ("churn", "v1", "READY")


@pytest.mark.parametrize(
    ("asked", "code", "words"),
    [
        ({"model_name": "other"}, "NOT_FOUND", "no model other"),
        ({"model_name": "churn", "model_version": "2"}, "NOT_FOUND", "version 2"),
        ({"model_name": "churn"}, "INVALID_ARGUMENT", "inputs"),
        ({"model_name": "churn", "raw_input_contents": [b""]}, "INVALID_ARGUMENT", "1 items for 0"),
        (
            {"inputs": [{"name": "age", "datatype": "INT32", "contents": {"fp32_contents": [1]}}]},
            "INVALID_ARGUMENT",
            "INT32 is sent in int_contents",
        ),
        (
            {"inputs": [{"name": "age", "datatype": "INT8", "contents": {"int_contents": [128]}}]},
            "INVALID_ARGUMENT",
            "does not fit INT8",
        ),
        (
            {
                "inputs": [{"name": "age", "datatype": "INT32", "contents": {"int_contents": [1]}}],
                "raw_input_contents": [b"\1\0\0\0"],
            },
            "INVALID_ARGUMENT",
            "inputs[0].contents: and raw_input_contents exclude each other",
        ),
        (
            {"inputs": [{"name": "age", "datatype": "FP16", "shape": [1]}]},
            "INVALID_ARGUMENT",
            "datatype",
        ),
    ],
)
async def test_what_is_refused_says_why(
    call: Any, asked: dict[str, Any], code: str, words: str
) -> None:
    with pytest.raises(aio.AioRpcError) as refused:
        await call("ModelInfer", **{"model_name": "churn", **asked})
    assert refused.value.code() is grpc.StatusCode[code]
    assert words in (refused.value.details() or "")


async def test_stored_predictions_come_with_their_run(tmp_path: Path) -> None:
    key = {"name": "entity_key", "datatype": "BYTES", "shape": [2]}
    texts = {"contents": {"bytes_contents": [b"c3", b"c1"]}}
    async with running(tmp_path) as gateway, calling(gateway.server.answer) as call:
        answer = await call("ModelInfer", model_name="churn", inputs=[{**key, **texts}])
        assert list(answer.outputs[0].contents.fp32_contents) == [0.75, 0.25]
        assert list(answer.outputs[1].contents.bytes_contents) == [b"l3", b"l1"]
        assert answer.parameters["run"].string_param == "run-7"
        assert answer.parameters["age_seconds"].double_param > 0
        raw, nobody = [b"\x06\0\0\0nobody"], {**key, "shape": [1]}
        with pytest.raises(aio.AioRpcError, match="no prediction for 1 of 1 keys"):
            await call("ModelInfer", model_name="churn", inputs=[nobody], raw_input_contents=raw)


async def test_deadline_and_credentials_reach_the_handler() -> None:
    seen: list[dict[bytes, bytes]] = []

    async def answer(request: Request) -> Response:
        seen.append(dict(request.headers))
        return HttpError(503, "later").response

    async with calling(answer) as call:
        metadata = (("authorization", "Bearer x"), ("x-other", "y"))
        with pytest.raises(aio.AioRpcError) as refused:
            await call("ModelInfer", metadata, seconds=5, model_name="m")
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert seen[0][b"authorization"] == b"Bearer x"
    assert b"x-other" not in seen[0]
    assert 3_000_000 < int(seen[0][b"grpc-timeout"].removesuffix(b"u")) < 5_000_000
    assert seen[0][b"prefer"] == b"wait=4"


@pytest.mark.parametrize("seconds", [0.0, 1e-7, 0.0009, 0.03, 0.2, 5e8, 1e12])
def test_a_deadline_of_any_length_is_a_valid_timeout(seconds: float) -> None:
    context = SimpleNamespace(invocation_metadata=lambda: (), time_remaining=lambda: seconds)
    told = timeout_of(listener._request(context, b"POST", "/"))
    assert told is not None
    assert 0 < told <= max(seconds, 1e-6)
    assert told > min(0.85 * seconds - 0.05, 1e8)


async def test_a_call_that_is_cancelled_ends_its_request() -> None:
    ended = asyncio.Event()

    async def answer(request: Request) -> Response:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    async with calling(answer) as call:
        with pytest.raises(aio.AioRpcError, match="Deadline"):
            await call("ModelInfer", seconds=0.2, model_name="m")
        await asyncio.wait_for(ended.wait(), 30)


async def test_a_taken_port_is_named() -> None:
    async def answer(request: Request) -> Response:
        raise AssertionError

    first, second = GrpcListener(answer), GrpcListener(answer)
    port = await first.start("127.0.0.1", 0)
    with pytest.raises(Unavailable, match=f"cannot listen on 127.0.0.1:{port}"):
        await second.start("127.0.0.1", port)
    await first.stop()
    await second.stop()


@pytest.mark.parametrize("method", ["ModelInfer", "ModelReady", "RepositoryIndex"])
@pytest.mark.parametrize("sent", [b"\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe"])
async def test_bytes_that_are_no_message_are_an_invalid_argument(
    plane: Serving, method: str, sent: bytes
) -> None:
    listening = GrpcListener(plane.server.answer)
    port = await listening.start("127.0.0.1", 0)
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(aio.AioRpcError) as refused:
            await channel.unary_unary(f"/{SERVICE}/{method}")(sent, timeout=10)
    await listening.stop()
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    told = f"message: is no {method}Request of {SERVICE}: its bytes are damaged"
    assert refused.value.details() == told
