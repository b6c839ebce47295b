"""Deployments that a runtime of KServe serves: which paths are passed on, and under which name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from fourways_api import Route
from tests.kit.gateway_plane import Running, running
from tests.kit.upstream import Upstream, said

CHAT = "/openai/v1/chat/completions"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@asynccontextmanager
async def passing(
    folder: Path, seconds: float = 1.0, limit: int = 2**20, **config: Any
) -> AsyncIterator[tuple[Running, Upstream]]:
    upstream = Upstream()
    await upstream.listen()
    route = Route(
        deployment="chat",
        mode="realtime",
        version="3",
        timeout_seconds=seconds,
        url=f"http://localhost:{upstream.port}",
        model_name="chat-realtime",
        max_body_bytes=limit,
    )
    try:
        async with running(folder, routes=(route,), **config) as plane:
            yield plane, upstream
    finally:
        await upstream.die()


async def told(upstream: Upstream, head: bytes, body: bytes) -> bytes:
    """Answer with the request's target and body."""
    target = head.split(b" ")[1].decode()
    answer = {"target": target, "body": orjson.loads(body) if body else None}
    return said(orjson.dumps(answer), "content-type: application/json")


async def test_paths_are_passed_under_the_runtime_s_name(tmp_path: Path) -> None:
    async with passing(tmp_path) as (plane, upstream):
        upstream.script = told
        _, v2 = await plane.infer("chat", {"inputs": []})
        assert v2 == {"target": "/v2/models/chat-realtime/infer", "body": {"inputs": []}}
        answer = await plane.client.post("/v1/models/chat:predict", json={"instances": [1]})
        body = {"instances": [1]}
        assert answer.json() == {"target": "/v1/models/chat-realtime:predict", "body": body}
        for path in ("/v2/models/chat", "/v2/models/chat/ready", "/v1/models/chat"):
            status, found = await plane.get(path)
            expected = path.replace("chat", "chat-realtime")
            assert (status, found["target"]) == (200, expected)
        status, found = await plane.get("/openai/v1/models")
        assert [one["id"] for one in found["data"]] == ["chat"]
        for path in ("chat/completions", "completions", "embeddings"):
            answer = await plane.client.post(f"/openai/v1/{path}", json={"model": "chat", "n": 2})
            expected = {"target": f"/openai/v1/{path}", "body": {"model": "chat-realtime", "n": 2}}
            assert answer.json() == expected
        status, found = await plane.get("/predictions/chat/ann")
        assert status == 404
        assert "/v2/models/chat/infer" in found["error"]


async def test_events_are_passed_on_while_they_arrive(tmp_path: Path) -> None:
    first_seen = asyncio.Event()

    async def streaming(upstream: Upstream, head: bytes, body: bytes) -> None:
        (writer,) = upstream.writers
        writer.write(HEAD + b"9\r\ndata: 1\n\n\r\n")
        await first_seen.wait()  # the second event leaves only after the first has arrived
        writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        await writer.drain()

    async with passing(tmp_path, seconds=5) as (plane, upstream):
        upstream.script = streaming
        asked = {"model": "chat", "stream": True}
        async with plane.client.stream("POST", CHAT, json=asked) as answer:
            assert answer.headers["content-type"] == "text/event-stream"
            parts = []
            async for part in answer.aiter_bytes():
                parts.append(part)
                first_seen.set()
        assert b"".join(parts) == b"data: 1\n\ndata: [DONE]\n\n"


@pytest.mark.parametrize(
    ("body", "status", "fault"),
    [
        (b"{", 400, "not JSON"),
        (b"[]", 400, "model"),
        (b'{"model": 1}', 400, "model"),
        (b'{"model": "other"}', 404, "realtime.runtime"),
    ],
)
async def test_bad_requests_are_refused_here(
    tmp_path: Path, body: bytes, status: int, fault: str
) -> None:
    async with passing(tmp_path) as (plane, upstream):
        answer = await plane.client.post(CHAT, content=body)
        assert (answer.status_code, upstream.heads) == (status, [])
        assert fault in answer.json()["error"]


async def test_a_runtime_that_is_silent_or_gone_is_told(tmp_path: Path) -> None:
    async def silent(upstream: Upstream, head: bytes, body: bytes) -> None:
        await upstream.hold.wait()

    async with passing(tmp_path, seconds=0.1) as (plane, upstream):
        upstream.script = silent
        answer = await plane.client.post(CHAT, json={"model": "chat"})
        assert (answer.status_code, answer.json()["error"]) == (
            504,
            "the serving runtime did not respond within 0.1 s",
        )
        upstream.hold.set()
        await upstream.die()
        answer = await plane.client.post(CHAT, json={"model": "chat"})
        assert answer.status_code == 503
        assert "retry-after" in answer.headers


async def test_every_path_holds_bodies_to_the_limit_of_the_deployment(tmp_path: Path) -> None:
    body = {"model": "chat", "text": "x" * 1000}
    async with passing(tmp_path, limit=1000) as (plane, upstream):
        for path in (CHAT, "/v1/models/chat:predict", "/v2/models/chat/infer"):
            answer = await plane.client.post(path, json=body)
            assert (answer.status_code, upstream.heads) == (413, []), path
