"""Real-time deployments: what the gateway passes on, and what it says when nobody answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fourways_api import EntityKey, Route
from fourways_http import exchange
from tests.kit.gateway_plane import Running, asking, running
from tests.kit.upstream import Upstream, echo, said
from tests.kit.waiting import turns, until_async

INFER = "/v2/models/score/infer"


@asynccontextmanager
async def forwarding(
    folder: Path,
    entity_key: EntityKey | None = None,
    seconds: float = 1.0,
    limits: dict[str, int] | None = None,
    **config: Any,
) -> AsyncIterator[tuple[Running, Upstream]]:
    upstream = Upstream()
    await upstream.listen()
    route = Route(
        deployment="score",
        mode="realtime",
        version="3",
        timeout_seconds=seconds,
        url=f"http://localhost:{upstream.port}",
        entity_key=entity_key,
        **(limits or {}),
    )
    try:
        async with running(folder, routes=(route,), **config) as plane:
            yield plane, upstream
    finally:
        upstream.hold.set()
        await upstream.die()


async def test_bodies_and_the_headers_that_matter_pass_both_ways(tmp_path: Path) -> None:
    async def answer(upstream: Upstream, head: bytes, body: bytes) -> bytes:
        return said(
            body[::-1],
            "Content-Type: application/octet-stream",
            "Inference-Header-Content-Length: 12",
            "X-Request-Id: there",
            "Retry-After: 9",
            "Connection: keep-alive",
            "Keep-Alive: timeout=5",
            "Server: other",
        )

    async with forwarding(tmp_path) as (plane, upstream):
        upstream.script = answer
        body = bytes(range(256)) * 1000
        got = await plane.client.post(
            "/v2/models/score/versions/a%2Fb/infer",
            content=body,
            headers={
                "content-type": "application/octet-stream",
                "inference-header-content-length": "7",
                "x-request-id": "mine",
                "host": "localhost:1",
                "authorization": "Bearer secret",
                "te": "trailers",
            },
        )
        assert got.content == body[::-1]
        assert got.headers["inference-header-content-length"] == "12"
        assert (got.headers["x-request-id"], got.headers["retry-after"]) == ("mine", "9")
        assert "keep-alive" not in got.headers
        assert "server" not in got.headers
        head = upstream.heads[0].decode().lower()
        assert head.startswith("post /v2/models/score/versions/a%2fb/infer http/1.1\r\n")
        for passed in ("inference-header-content-length: 7", "x-request-id: mine"):
            assert passed in head
        assert f"host: localhost:{upstream.port}\r\n" in head
        for kept in ("localhost:1\r", "secret", "te:", "user-agent"):
            assert kept not in head


async def test_metadata_readiness_and_errors_are_the_model_servers(tmp_path: Path) -> None:
    async def answer(upstream: Upstream, head: bytes, body: bytes) -> bytes:
        if b"/ready " in head:
            return said(b'{"ready":false}', "retry-after: 1", status="503 Service Unavailable")
        return said(b'{"error":"inputs: wrong"}', status="400 Bad Request")

    async with forwarding(tmp_path) as (plane, upstream):
        upstream.script = answer
        assert await plane.get("/v2/models/score/ready") == (503, {"ready": False})
        assert await plane.get("/v2/models/score") == (400, {"error": "inputs: wrong"})
        assert (await plane.infer("score", {}))[0] == 400
        assert [head.split(b" HTTP")[0] for head in upstream.heads] == [
            b"GET /v2/models/score/ready",
            b"GET /v2/models/score",
            b"POST /v2/models/score/infer",
        ]
        head = await plane.client.head("/v2/models/score")
        assert (head.status_code, head.content) == (400, b"")
        assert (await plane.infer("churn", asking("c1")))[0] == 200  # batch goes on beside it


async def test_the_party_at_fault_is_counted(tmp_path: Path) -> None:
    async def answer(upstream: Upstream, head: bytes, body: bytes) -> bytes:
        party = orjson.loads(body)["party"]
        return said(b"{}", f"x-fourways-fault: {party}", status="502 Bad Gateway")

    async with forwarding(tmp_path) as (plane, upstream):
        upstream.script = answer
        for party in ("features", "features", "model", "somebody-else"):
            assert (await plane.infer("score", {"party": party}))[0] == 502
        text = (await plane.client.get("/metrics")).text
        counted = [
            line for line in text.splitlines() if line.startswith("fourways_gateway_faults_total")
        ]
        assert sorted(counted) == [
            'fourways_gateway_faults_total{deployment="score",party="features"} 2.0',
            'fourways_gateway_faults_total{deployment="score",party="model"} 1.0',
        ]


@pytest.mark.thorough
async def test_connections_are_kept_and_bounded(tmp_path: Path) -> None:
    async with forwarding(tmp_path) as (plane, upstream):
        for _ in range(20):
            assert (await plane.infer("score", {"n": 1}))[0] == 200
        assert upstream.connections == 1
        answers = await asyncio.gather(*(plane.infer("score", {"n": n}) for n in range(90)))
        assert sorted(answer["n"] for _, answer in answers) == list(range(90))
        assert upstream.connections <= 64


@pytest.mark.parametrize(
    "parts",
    [
        (
            b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{"a\r\n',
            b'4\r\n":1}\r\n0\r\n\r\n',
        ),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-le",
            b'ngth: 7\r\n\r\n{"a"',
            b":1}",
        ),
    ],
)
async def test_answers_in_pieces(tmp_path: Path, parts: tuple[bytes, ...]) -> None:
    async def answer(upstream: Upstream, head: bytes, body: bytes) -> bytes:
        (writer,) = upstream.writers
        for part in parts[:-1]:
            writer.write(part)
            await asyncio.sleep(0.01)
        return parts[-1]

    async with forwarding(tmp_path) as (plane, upstream):
        upstream.script = answer
        for _ in range(3):
            assert await plane.infer("score", {}) == (200, {"a": 1})
        assert upstream.connections == 1


async def test_an_answer_that_ends_with_its_connection(tmp_path: Path) -> None:
    async def answer(upstream: Upstream, head: bytes, body: bytes) -> None:
        (writer,) = upstream.writers
        writer.write(b'HTTP/1.1 200 OK\r\n\r\n{"a":1}')

    async with forwarding(tmp_path) as (plane, upstream):
        upstream.script = answer
        assert await plane.infer("score", {}) == (200, {"a": 1})
        assert await plane.infer("score", {}) == (200, {"a": 1})


@pytest.mark.parametrize(
    "broken",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nx-half: ",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01 not http",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 5000 + b"\r\n",
        b"",
    ],
)
async def test_half_an_answer_is_none(tmp_path: Path, broken: bytes) -> None:
    async def answer(upstream: Upstream, head: bytes, body: bytes) -> None:
        for writer in upstream.writers:
            writer.write(broken)

    async with forwarding(tmp_path) as (plane, upstream):
        upstream.script = answer
        got = await plane.client.post(INFER, content=b"{}")
        assert (got.status_code, got.headers["retry-after"]) == (503, "1")
        assert got.json() == {"error": "the model server does not respond"}
        upstream.script = echo
        assert (await plane.infer("score", {}))[0] == 200


async def test_a_pooled_connection_closed_meanwhile_fails_nobody(tmp_path: Path) -> None:
    async with forwarding(tmp_path) as (plane, upstream):
        await plane.infer("score", {})
        upstream.heads.clear()
        left = [1]

        async def closes_the_old(upstream: Upstream, head: bytes, body: bytes) -> bytes | None:
            if left:
                left.pop()
                return None
            return await echo(upstream, head, body)

        upstream.script = closes_the_old
        assert (await plane.infer("score", {}))[0] == 200
        assert len(upstream.heads) == 2
        assert upstream.connections == 2


async def test_a_request_that_ends_its_model_server_is_not_sent_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "CLOSED_BEFORE_SECONDS", 0.05)
    async with forwarding(tmp_path, seconds=30.0) as (plane, upstream):
        assert (await plane.infer("score", {}))[0] == 200
        upstream.heads.clear()

        async def ends(upstream: Upstream, head: bytes, body: bytes) -> bytes | None:
            # As a model server does whose model hangs: it ends some time after the request came.
            ended = asyncio.Event()
            asyncio.get_running_loop().call_later(0.2, ended.set)
            await ended.wait()
            return None

        upstream.script = ends
        status, told = await plane.infer("score", {})
        assert (status, told) == (503, {"error": "the model server does not respond"})
        assert len(upstream.heads) == 1


async def test_too_late_is_504(tmp_path: Path) -> None:
    async def answer(upstream: Upstream, head: bytes, body: bytes) -> bytes | None:
        await upstream.hold.wait()
        return await echo(upstream, head, body)

    async with forwarding(tmp_path, seconds=0.3) as (plane, upstream):
        upstream.script = answer
        status, told = await plane.infer("score", {})
        assert (status, told) == (504, {"error": "the model server did not respond within 0.3 s"})
        upstream.hold.set()
        assert (await plane.infer("score", {}))[0] == 200


@pytest.mark.thorough
async def test_nobody_there_is_503_at_once_and_it_comes_back(tmp_path: Path) -> None:
    async with forwarding(tmp_path, seconds=60) as (plane, upstream):
        await upstream.die()
        async with asyncio.timeout(30):  # half the time that one of them might have taken
            answers = await asyncio.gather(*(plane.infer("score", {}) for _ in range(100)))
        assert {status for status, _ in answers} == {503}
        await plane.ready_is(True)
        await upstream.listen(upstream.port)
        assert (await plane.infer("score", {}))[0] == 200


async def test_killed_under_load_only_503_and_504_and_it_recovers(tmp_path: Path) -> None:
    async with forwarding(tmp_path) as (plane, upstream):
        seen: set[int] = set()
        ever: set[int] = set()
        stopped = asyncio.Event()

        async def ask() -> None:
            while not stopped.is_set():
                seen.add((await plane.infer("score", {"n": 1}))[0])

        askers = [asyncio.ensure_future(ask()) for _ in range(8)]
        for _ in range(3):
            seen.clear()
            await until_async(lambda: 200 in seen, "a request is answered")
            await upstream.die()
            await until_async(lambda: 503 in seen, "a request is refused")
            ever |= seen
            await upstream.listen(upstream.port)
        await until_async(lambda: answers(plane), "the model server answers again")
        stopped.set()
        await asyncio.gather(*askers)
        assert ever | seen <= {200, 503, 504}


async def answers(plane: Running) -> bool:
    return (await plane.infer("score", {}))[0] == 200


async def test_what_is_in_flight_is_answered_in_a_drain(tmp_path: Path) -> None:
    async def answer(upstream: Upstream, head: bytes, body: bytes) -> bytes | None:
        await upstream.hold.wait()
        return await echo(upstream, head, body)

    async with forwarding(tmp_path, seconds=5) as (plane, upstream):
        upstream.script = answer
        asked = [asyncio.ensure_future(plane.infer("score", {"n": n})) for n in range(20)]
        await until_async(lambda: len(upstream.heads) == 20, "20 requests arrive")
        drained = asyncio.ensure_future(plane.server.drain(0, 5))
        await turns()
        upstream.hold.set()
        assert [status for status, _ in await asyncio.gather(*asked)] == [200] * 20
        assert await drained


async def test_no_address_yet(tmp_path: Path) -> None:
    route = Route(deployment="score", mode="realtime", version="3")
    async with running(tmp_path, routes=(route,)) as plane:
        status, told = await plane.infer("score", {})
        assert (status, told["error"]) == (503, "the model server has no address yet")


async def test_one_entity_by_its_key(tmp_path: Path) -> None:
    async def answer(upstream: Upstream, head: bytes, body: bytes) -> bytes:
        (tensor,) = orjson.loads(body)["inputs"]
        assert tensor == {"name": "customer", "datatype": "INT64", "shape": [1], "data": [7]}
        outputs = [
            {"name": "score", "datatype": "FP32", "shape": [1], "data": [0.5]},
            {"name": "grid", "datatype": "FP32", "shape": [1, 2, 2], "data": [1, 2, 3, 4]},
        ]
        told = {"model_name": "score", "model_version": "3", "outputs": outputs}
        return said(orjson.dumps(told))

    key = EntityKey(name="customer", type="int64")
    async with forwarding(tmp_path, entity_key=key) as (plane, upstream):
        upstream.script = answer
        status, told = await plane.get("/predictions/score/7")
        assert status == 200
        assert told["outputs"] == {"score": 0.5, "grid": [[1, 2], [3, 4]]}
        assert (told["deployment"], told["key"], told["version"]) == ("score", 7, "3")
        assert (await plane.get("/predictions/score/seven"))[0] == 400


async def test_index_and_metrics_name_the_mode(tmp_path: Path) -> None:
    async with forwarding(tmp_path) as (plane, _):
        await plane.infer("score", {})
        await plane.infer("nobody", asking("c1"))
        _, index = await plane.get("/")
        modes = {each["deployment"]: each["mode"] for each in index["deployments"]}
        assert modes == {"churn": "batch", "grid": "batch", "score": "realtime"}
        assert (await plane.get("/v2"))[1]["extensions"] == [
            "binary_tensor_data",
            "model_repository",
        ]
        plane.store.down = True
        _, index = await plane.get("/")
        text = (await plane.client.get("/metrics")).text
        labels = {
            (sample.labels["deployment"], sample.labels["mode"], sample.labels["code"])
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "fourways_gateway_requests_total"
        }
        assert labels == {("score", "realtime", "200")}
        assert 'fourways_upstream_connections{deployment="score"} 1.0' in text
        assert 'fourways_requests_in_flight{deployment="score"} 0.0' in text


async def test_bodies_and_answers_have_the_limits_of_their_deployment(tmp_path: Path) -> None:
    async def large(upstream: Upstream, head: bytes, body: bytes) -> bytes | None:
        return said(b"x" * 5000, "content-type: application/json")

    small = {"max_body_bytes": 1000, "max_answer_bytes": 4000}
    async with forwarding(tmp_path, limits=small) as (plane, upstream):
        assert (await plane.infer("score", b'"' + b"x" * 998 + b'"'))[0] == 200
        status, told = await plane.infer("score", b"x" * 1001)
        assert (status, told["error"]) == (413, "the request's body is too large")
        upstream.script = large
        status, told = await plane.infer("score", b"{}")
        assert (status, "too large" in told["error"]) == (502, True)
    raised = {"max_body_bytes": 20_000, "max_answer_bytes": 8000}
    async with forwarding(tmp_path, limits=raised, max_body_bytes=1000) as (plane, upstream):
        body = b'{"a":"' + b"x" * 5000 + b'"}'
        assert (await plane.infer("score", body))[0] == 200
        assert (await plane.infer("churn", body))[0] == 413
        upstream.script = large
        assert (await plane.client.post(INFER, content=b"{}")).status_code == 200
