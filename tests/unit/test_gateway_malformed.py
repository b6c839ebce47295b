"""Requests that are wrong, in one field or in any byte: each gets a reason, none does harm."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from fourways_http import Limits
from tests.kit.gateway_plane import Running, asking, running


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path) as plane:
        yield plane


def tensor(**change: Any) -> dict[str, Any]:
    whole = {"name": "customer", "datatype": "BYTES", "shape": [1], "data": ["c1"]}
    return {"inputs": [{k: v for k, v in {**whole, **change}.items() if v is not ...}]}


WRONG = [
    ([], "body"),
    ({}, "inputs"),
    (asking("c1", output=[]), "output"),
    ({"inputs": []}, "inputs"),
    ({"inputs": tensor()["inputs"] * 2}, "inputs"),
    ({"inputs": ["c1"]}, "inputs[0]"),
    (tensor(name="client"), "inputs[0].name"),
    (tensor(name=...), "inputs[0].name"),
    (tensor(name=["customer"]), "inputs[0].name"),
    (tensor(datatype="INT64"), "inputs[0].datatype"),
    (tensor(datatype={}), "inputs[0].datatype"),
    (tensor(shape=...), "inputs[0].shape"),
    (tensor(shape=[]), "inputs[0].shape"),
    (tensor(shape=[0]), "inputs[0].data"),
    (tensor(shape=[-1]), "inputs[0].shape"),
    (tensor(shape=[True]), "inputs[0].shape"),
    (tensor(shape=[1.0]), "inputs[0].shape"),
    (tensor(shape=[1, 2]), "inputs[0].shape"),
    (tensor(shape=[1, 1, 1]), "inputs[0].shape"),
    (tensor(shape=[2**63]), "inputs[0].shape"),
    (tensor(shape=[1001], data=["c1"]), "inputs[0].shape"),
    (tensor(shape=[2]), "inputs[0].data"),
    (tensor(data=...), "inputs[0].data"),
    (tensor(data="c1"), "inputs[0].data"),
    (tensor(shape=[2], data=["c1", "c1"]), "inputs[0].data"),
    (tensor(data=[1]), "inputs[0].data[0]"),
    (tensor(data=[None]), "inputs[0].data[0]"),
    (tensor(data=[["c1", "c2"]]), "inputs[0].data[0]"),
    (tensor(data=[[["c1"]]]), "inputs[0].data[0]"),
    (tensor(data=[""]), "inputs[0].data[0]"),
    (tensor(data=["a\0b"]), "inputs[0].data[0]"),
    (tensor(data=["a" * 2000]), "inputs[0].data[0]"),
    (asking("c1", id=7), "id"),
    (asking("c1", id="x" * 300), "id"),
    (asking("c1", outputs={}), "outputs"),
    (asking("c1", outputs=["score"]), "outputs[0].name"),
    (asking("c1", outputs=[{"name": "ok"}, {"name": "ok"}]), "outputs[1].name"),
    (asking("c1", parameters=[]), "parameters"),
    (asking("c1", parameters={"allow_missing": "yes"}), "parameters.allow_missing"),
]


@pytest.mark.parametrize(("body", "field"), WRONG)
async def test_a_wrong_field_is_named_with_the_reason(
    plane: Running, body: Any, field: str
) -> None:
    status, answer = await plane.infer("churn", body)
    assert (status, answer["field"]) == (400, field)
    assert answer["error"] == f"{field}: {answer['reason']}"


async def test_whole_number_keys_are_held_to_64_bits(plane: Running) -> None:
    for key in (2**63, -(2**63) - 1, 1.5, True, "5", 10**25):
        tensor = {"name": "customer", "datatype": "INT64", "shape": [1], "data": [key]}
        status, answer = await plane.infer("grid", json.dumps({"inputs": [tensor]}).encode())
        assert (status, answer["field"]) == (400, "inputs[0].data[0]")


async def test_a_body_too_large_and_one_compressed(tmp_path: Path) -> None:
    async with running(tmp_path, max_body_bytes=1000) as plane:
        assert (await plane.infer("churn", asking("c" * 2000)))[0] == 413
        body = json.dumps(asking("c1")).encode()
        for encoding, content, status in (
            ("gzip", b"\x1f\x8b", 400),
            ("gzip", b"not gzip", 400),
            ("gzip", gzip.compress(b" " * 1001), 413),
            ("gzip", gzip.compress(body) + b"more", 400),
            ("gzip", gzip.compress(body[:9]) + gzip.compress(body[9:]), 400),
            ("deflate", zlib.compress(body) + b"\0", 400),
            ("br", b"x", 415),
        ):
            answer = await plane.client.post(
                "/v2/models/churn/infer", content=content, headers={"content-encoding": encoding}
            )
            assert answer.status_code == status


def damaged(chance: random.Random) -> bytes:
    """Return a request with one to four things more wrong at random places of its bytes."""
    body = orjson.dumps(chance.choice(WRONG[3:-2])[0])
    start = "POST /v2/models/churn/infer HTTP/1.1\r\nHost: localhost\r\n"
    data = bytearray(f"{start}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(data))
        kind = chance.randrange(4)
        if kind == 0:
            data[place] = chance.randrange(256)
        elif kind == 1:
            del data[place : place + chance.randint(1, 9)]
        elif kind == 2:
            data[place:place] = chance.randbytes(chance.randint(1, 9))
        else:
            data[place:place] = data[chance.randrange(len(data)) :][:9]
    return bytes(data)


async def answers_to(port: int, data: bytes) -> bytes:
    """Send bytes and return all that is answered until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(10):
            # What follows is no request, so the last answer is always a refusal.
            writer.write(data + b"\r\n\r\n\x00")
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.thorough
async def test_hundreds_of_damaged_requests(tmp_path: Path) -> None:
    chance = random.Random(4)
    # A damaged length makes the server wait for bytes that never come; not for long here.
    short = Limits(header_seconds=0.5, body_seconds=0.5, idle_seconds=1.5)
    async with running(tmp_path, limits=short) as plane:
        await plane.infer("churn", asking("c1"))
        requests = [damaged(chance) for _ in range(400)]
        answers = await asyncio.gather(*(answers_to(plane.server.port, data) for data in requests))
        for data, answer in zip(requests, answers, strict=True):
            codes = [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]
            assert codes, data
            assert all(400 <= code < 500 for code in codes), (data, answer)
            assert answer.count(b'{"error":"') == len(codes)
        assert (await plane.infer("churn", asking("c1")))[0] == 200
        assert plane.server.state.buffered == 0
