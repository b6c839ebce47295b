"""Triton's and KServe's clients: ``python -m tests.kit.foreign_clients CLIENT HTTP GRPC``.

Each asks in a process of its own, because the messages of Triton's and KServe's clients have the
same names. Standard input holds the questions, a list of model and V2 inputs with their data in
JSON; standard output gets the first row of each answer. HTTP and GRPC are addresses (HOST:PORT).
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

CLIENTS = (
    "triton-http",
    "triton-http-json",
    "triton-grpc",
    "kserve-http",
    "kserve-http-binary",
    "kserve-grpc",
)
Question = tuple[str, list[dict[str, Any]]]
"""A model's name, and the inputs of a request."""

Row = dict[str, Any]
"""An answer's first row: values by output."""

_KINDS = {"FP32": np.float32, "INT32": np.int32}


def answers_of(client: str, http: str, grpc: str, questions: Sequence[Question]) -> list[Row]:
    """Ask as a client does; a client that fails is an AssertionError with its words."""
    done = subprocess.run(
        [sys.executable, "-m", __name__, client, http, grpc],
        input=json.dumps(questions),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows: list[Row] = json.loads(done.stdout)
    return rows


def _array(tensor: dict[str, Any]) -> Any:
    if tensor["datatype"] == "BYTES":
        return np.array([text.encode() for text in tensor["data"]], object)
    return np.array(tensor["data"], _KINDS[tensor["datatype"]])


def _first(values: dict[str, Any]) -> Row:
    firsts = {name: value.tolist()[0] for name, value in values.items()}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in firsts.items()}


def _triton_http(address: str, questions: Sequence[Question], *, json_only: bool) -> list[Row]:
    import tritonclient.http as triton

    rows = []
    with triton.InferenceServerClient(address) as client:
        assert client.is_server_ready()
        for name, inputs in questions:
            assert client.is_model_ready(name)
            described = client.get_model_metadata(name)["outputs"]
            tensors = []
            for one in inputs:
                tensors.append(triton.InferInput(one["name"], one["shape"], one["datatype"]))
                tensors[-1].set_data_from_numpy(_array(one), binary_data=not json_only)
            asked = [triton.InferRequestedOutput(o["name"], binary_data=False) for o in described]
            answer = client.infer(name, tensors, outputs=asked if json_only else None)
            outputs = [output["name"] for output in answer.get_response()["outputs"]]
            rows.append(_first({output: answer.as_numpy(output) for output in outputs}))
    return rows


def _triton_grpc(address: str, questions: Sequence[Question]) -> list[Row]:
    import tritonclient.grpc as triton

    rows = []
    with triton.InferenceServerClient(address) as client:
        assert client.is_server_ready()
        for name, inputs in questions:
            assert client.is_model_ready(name)
            assert client.get_model_metadata(name).name == name
            assert name in {model.name for model in client.get_model_repository_index().models}
            tensors = []
            for one in inputs:
                tensors.append(triton.InferInput(one["name"], one["shape"], one["datatype"]))
                tensors[-1].set_data_from_numpy(_array(one))
            answer = client.infer(name, tensors)
            outputs = [output.name for output in answer.get_response().outputs]
            rows.append(_first({output: answer.as_numpy(output) for output in outputs}))
    return rows


def _of_kserve(name: str, inputs: list[dict[str, Any]], binary: bool) -> Any:
    from kserve import InferInput, InferRequest

    tensors = []
    for one in inputs:
        tensors.append(InferInput(one["name"], one["shape"], one["datatype"]))
        tensors[-1].set_data_from_numpy(_array(one), binary_data=binary)
    return InferRequest(name, tensors, parameters={"binary_data_output": True} if binary else {})


async def _kserve_http(address: str, questions: Sequence[Question], *, binary: bool) -> list[Row]:
    from kserve import InferenceRESTClient, RESTConfig

    url = f"http://{address}"
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    assert await client.is_server_ready(url)
    rows = []
    for name, inputs in questions:
        assert await client.is_model_ready(url, name)
        answer = await client.infer(url, _of_kserve(name, inputs, binary), model_name=name)
        rows.append(_first({output.name: output.as_numpy() for output in answer.outputs}))
    await client.close()
    return rows


async def _kserve_grpc(address: str, questions: Sequence[Question]) -> list[Row]:
    from kserve import InferenceGRPCClient

    client = InferenceGRPCClient(address)
    assert await client.is_server_ready()
    rows = []
    for name, inputs in questions:
        assert await client.is_model_ready(name)
        answer = await client.infer(_of_kserve(name, inputs, binary=True))
        rows.append(_first({output.name: output.as_numpy() for output in answer.outputs}))
    return rows


def main() -> None:
    """Ask as the arguments say, and print the rows."""
    client, http, grpc = sys.argv[1:]
    questions = json.load(sys.stdin)
    match client:
        case "triton-http" | "triton-http-json":
            rows = _triton_http(http, questions, json_only=client == "triton-http-json")
        case "triton-grpc":
            rows = _triton_grpc(grpc, questions)
        case "kserve-http" | "kserve-http-binary":
            binary = client == "kserve-http-binary"
            rows = asyncio.run(_kserve_http(http, questions, binary=binary))
        case "kserve-grpc":
            rows = asyncio.run(_kserve_grpc(grpc, questions))
        case _:
            raise SystemExit(f"{client} is none of {', '.join(CLIENTS)}")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
