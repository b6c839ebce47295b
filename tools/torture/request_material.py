"""What the torture of requests sends, and the servers it sends it to."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from onnx import TensorProto, helper

from fourways_api import GatewayConfig, Paths, Route
from fourways_api.runtime_config import CONFIG_VARIABLE, ServerConfig
from tools.kit.models import LINEAR, linear, onnx_bytes

_KINDS = {
    "word": (TensorProto.STRING, ["N"]),
    "flag": (TensorProto.BOOL, ["N"]),
    "big": (TensorProto.UINT64, ["N"]),
    "grid": (TensorProto.DOUBLE, ["N", 2, 2]),
}
_TYPES = {"word": "string", "flag": "bool", "big": "uint64", "grid": "float64"}
MIXED: dict[str, Any] = {
    "entityKey": {"name": "id"},
    "inputs": [
        {"name": name, "type": kind, "shape": [2, 2] if name == "grid" else []}
        for name, kind in _TYPES.items()
    ],
    "outputs": [
        {"name": f"{name}_out", "type": kind, "shape": [2, 2] if name == "grid" else []}
        for name, kind in _TYPES.items()
    ],
}
_NUMBERS: list[Any] = [None, True, -1, 0, 1.5, 2**53 + 1, -(2**63), 2**64 - 1, 1e308]
_TEXTS: list[Any] = ["", "x", "NaN", "\u202e", "a" * 300]
_NESTED: list[Any] = [[], [[]], {}, {"name": 1}, [1] * 5, [None], [[1, 2], [3]]]
ODD = [*_NUMBERS, *_TEXTS, *_NESTED]
_BYTES = b'[]{},:"\\ 0123456789.eE+-tfnul\x00\xff\xc3\n'


TYPED_FIELDS = {
    "BOOL": "bool_contents",
    "BYTES": "bytes_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "INT32": "int_contents",
    "UINT64": "uint64_contents",
}
"""The field of a gRPC message that holds a tensor's values, by datatype."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a model is asked: its server, or the gateway before it."""

    name: str
    port: int
    grpc_port: int
    model: str


def servers_of(folder: Path) -> tuple[list[Target], dict[str, tuple[str, str, str, int]]]:
    """Return the targets, and by name each workload's mode, variable, configuration and port."""
    paths = Paths(
        cache_dir=str(folder / "cache"),
        termination_log=str(folder / "words"),
        store_uri_file=str(folder / "store-secret" / "uri"),
    )
    # A model is not read from the folder of the store's address.
    (folder / "store-secret").mkdir(exist_ok=True)
    (folder / "store-secret" / "uri").write_text(f"sqlite:///{folder}/store.db")
    echo = onnx_bytes(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in _KINDS],
        [(name, *kind) for name, kind in _KINDS.items()],
        [(f"{name}_out", *kind) for name, kind in _KINDS.items()],
    )
    targets: list[Target] = []
    workloads: dict[str, tuple[str, str, str, int]] = {}
    routes = []
    gateway, gateway_grpc = _free_port(), _free_port()
    for name, raw, contract in (("plain", linear(), LINEAR), ("mixed", echo, MIXED)):
        (folder / f"{name}.onnx").write_bytes(raw)
        port, grpc_port = _free_port(), _free_port()
        config = ServerConfig.model_validate(
            {
                "namespace": "torture",
                "name": name,
                "host": "127.0.0.1",
                "port": port,
                "grpcPort": grpc_port,
                "model": {"uri": (folder / f"{name}.onnx").as_uri(), "version": "1"},
                "contract": contract,
                "timeoutSeconds": 10,
                "paths": paths.to_json(),
            }
        )
        told = config.model_dump_json(by_alias=True)
        workloads[name] = ("serve", CONFIG_VARIABLE, told, port)
        url = f"http://127.0.0.1:{port}"
        routes.append(
            Route(deployment=name, mode="realtime", version="1", timeout_seconds=10, url=url)
        )
        targets += [
            Target(f"{name}, direct", port, grpc_port, name),
            Target(f"{name}, gateway", gateway, gateway_grpc, name),
        ]
    gate = GatewayConfig(
        namespace="torture",
        host="127.0.0.1",
        port=gateway,
        grpc_port=gateway_grpc,
        routes=tuple(routes),
        paths=paths,
    )
    told = gate.model_dump_json(by_alias=True)
    workloads["gateway"] = ("gateway", CONFIG_VARIABLE, told, gateway)
    return targets, workloads


def damaged(target: Target, chance: random.Random) -> bytes:
    """Return an inference request whose body is damaged."""
    document, data = valid(target.model, chance, binary=chance.random() < 0.3)
    if chance.random() < 0.5:
        _odd_value(document, chance)
    body = orjson.dumps(document)
    headers = []
    if data:
        length: Any = len(body)
        if chance.random() < 0.3:
            length = chance.choice([0, -1, 1, length + 1, len(body + data) + 1, "x", 10**13, ""])
        headers.append(b"Inference-Header-Content-Length: %b" % str(length).encode())
        body += data
    if chance.random() < 0.7:
        body = bytes(odd_bytes(bytearray(body), chance))
    if chance.random() < 0.05:
        headers.append(b"Content-Encoding: " + chance.choice([b"gzip", b"br", b"deflate"]))
    return _http(target.model, body, headers)


def damaged_v1(target: Target, chance: random.Random) -> bytes:
    """Return a request of version 1 whose body is damaged."""
    columns = {one["name"]: one["data"] for one in valid(target.model, chance, False)[0]["inputs"]}
    document: dict[str, Any]
    if chance.random() < 0.3 or "x" in columns:
        document = {"inputs": columns}
    else:
        columns.pop("grid", None)
        names = list(columns)
        rows = zip(*columns.values(), strict=True)
        by_name = chance.random() < 0.5
        document = {
            "instances": [
                dict(zip(names, row, strict=True)) if by_name else list(row) for row in rows
            ]
        }
        for instance in document["instances"] if target.model == "mixed" else ():
            grid = [[0.5, 0.5], [0.5, 0.5]]
            if by_name:
                instance["grid"] = grid
            else:
                instance.append(grid)
    if chance.random() < 0.3:
        document["parameters"] = {"partial": True}
    if chance.random() < 0.6:
        _odd_value(document, chance)
    body = orjson.dumps(document)
    if chance.random() < 0.6:
        body = bytes(odd_bytes(bytearray(body), chance))
    return _http(target.model, body, [], "/v1/models/{}:predict")


def damaged_request(target: Target, chance: random.Random) -> bytes:
    """Return an inference request that is damaged anywhere."""
    document, data = valid(target.model, chance, binary=False)
    whole = bytearray(_http(target.model, orjson.dumps(document) + data, []))
    head = whole.find(b"\r\n\r\n") + 4
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(head)
        match chance.randrange(4):
            case 0:
                whole[at] = chance.randrange(256)
            case 1:
                del whole[at : at + chance.randint(1, 8)]
            case 2:
                whole[at:at] = bytes(chance.choices(b"\r\n :,;GETPOST/%\x00\xff0123", k=3))
            case _:
                whole[at:at] = whole[max(0, at - 30) : at]
    return bytes(whole)


def largest(target: Target) -> Iterator[bytes]:
    """Return requests of nearly 16 MiB: wrong shapes and types, damage at the end, a long text."""
    numbers = b",".join(b"%d.25" % (n % 10) for n in range(3_000_000))
    head = b'{"inputs":[{"name":"%b","datatype":"%b","shape":[%d%b],"data":['
    name = b"grid" if target.model == "mixed" else b"spend"
    kind = b"FP64" if target.model == "mixed" else b"FP32"
    for shape, data, end in (
        (b"", numbers, b"]}]}"),
        (b"", numbers, b",,]}]}"),
        (b"", b"[" + numbers.replace(b",", b"],[") + b"]", b"]}]}"),
        (b"", b'"' + b"a\\n" * 5_000_000 + b'"', b"]}]}"),
        (b"", b"null," * 3_000_000 + b"null", b"]}]}"),
        (b"", b'{"a":1},' * 1_900_000 + b"{}", b"]}]}"),
    ):
        yield _http(target.model, head % (name, kind, 3_000_000, shape) + data + end, [])


def valid(model: str, chance: random.Random, binary: bool) -> tuple[dict[str, Any], bytes]:
    """Return a valid request, and its binary tensors' data."""
    rows = chance.choice([1, 1, 2, 5])
    tensors: list[dict[str, Any]] = []
    data = b""
    if model == "plain" and chance.random() < 0.5:
        values = [round(chance.uniform(0, 9), 3) for _ in range(rows * 3)]
        tensors.append({"name": "x", "datatype": "FP32", "shape": [rows, 3], "data": values})
        if binary:
            data = np.array(values, "<f4").tobytes()
            _in_binary(tensors[0], data)
        return _envelope(tensors, chance), data
    fields: dict[str, tuple[str, list[int], list[Any], str]] = {
        "age": ("INT32", [rows], [30] * rows, "<i4"),
        "spend": ("FP32", [rows], [1.5] * rows, "<f4"),
        "rate": ("FP32", [rows], [-0.5] * rows, "<f4"),
    }
    if model == "mixed":
        fields = {
            "word": ("BYTES", [rows], ["wörd"] * rows, ""),
            "flag": ("BOOL", [rows], [True] * rows, "?"),
            "big": ("UINT64", [rows], [2**63] * rows, "<u8"),
            "grid": ("FP64", [rows, 2, 2], [0.5] * rows * 4, "<f8"),
        }
    for name, (kind, shape, values, code) in fields.items():
        tensor = {"name": name, "datatype": kind, "shape": shape, "data": values}
        tensors.append(tensor)
        if binary:
            raw = np.array(values, code).tobytes() if code else _texts([str(v) for v in values])
            _in_binary(tensor, raw)
            data += raw
    return _envelope(tensors, chance), data


def _texts(values: list[str]) -> bytes:
    raw = [value.encode() for value in values]
    return b"".join(struct.pack("<I", len(one)) + one for one in raw)


def _in_binary(tensor: dict[str, Any], raw: bytes) -> None:
    del tensor["data"]
    tensor["parameters"] = {"binary_data_size": len(raw)}


def _envelope(tensors: list[dict[str, Any]], chance: random.Random) -> dict[str, Any]:
    document: dict[str, Any] = {"inputs": tensors}
    if chance.random() < 0.3:
        document["id"] = "7"
    if chance.random() < 0.3:
        document["parameters"] = {"partial": True, "binary_data_output": chance.random() < 0.5}
    if chance.random() < 0.2:
        document["outputs"] = [{"name": "score", "parameters": {"binary_data": True}}]
    return document


def _odd_value(document: Any, chance: random.Random) -> None:
    """Replace, remove or add something somewhere in a document."""
    node = document
    while True:
        keys: list[Any] = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = chance.choice(keys)
        if isinstance(node[key], (dict, list)) and chance.random() < 0.75:
            node = node[key]
            continue
        match chance.randrange(4):
            case 0 if isinstance(node, dict):
                del node[key]
            case 1 if isinstance(node, dict):
                node[chance.choice(["", "data", "name", "x" * 70])] = chance.choice(ODD)
            case 2 if isinstance(node, list):
                node.append(chance.choice([node[key], *ODD]))
            case _:
                node[key] = chance.choice(ODD)
        return


def odd_bytes(body: bytearray, chance: random.Random) -> bytearray:
    """Damage a body in one to three places, in place; return it."""
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(body) + 1)
        match chance.randrange(4):
            case 0 if at < len(body):
                body[at] = chance.choice(_BYTES)
            case 1:
                del body[at : at + chance.randint(1, 9)]
            case 2:
                body[at:at] = bytes(chance.choices(_BYTES, k=chance.randint(1, 4)))
            case _:
                body[at:at] = body[max(0, at - 20) : at]
    return body


def _http(
    model: str, body: bytes, headers: list[bytes], path: str = "/v2/models/{}/infer"
) -> bytes:
    start = b"POST %b HTTP/1.1" % path.format(model).encode()
    lines = [start, b"Host: localhost", *headers, b"Content-Length: %d" % len(body), b"", b""]
    return b"\r\n".join(lines) + body


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
