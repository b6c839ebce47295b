"""What the HTTP server refuses, and whom it cuts off: malformed, too large, too slow, too many."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
import uvloop

from fourways_http import Limits, Request, Response, Router, Server
from tests.kit.http_plane import FAST, Gate, connected, get, reset
from tests.kit.waiting import turns, until_async

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy")


@pytest.fixture
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy()


REFUSED = [
    (b"\x16\x03\x01\x02\x00\x01\x00", 400),
    (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\nHost: x\n\n", 400),
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"POST /echo HTTP/1.1\r\nContent-Length: 1\r\n\r\na", 400),
    (get("/", "host: y"), 400),
    (get("/" + "a" * 600), 414),
    (get("/", "A: " + "a" * 3000), 431),
    (get("/", *["a: b"] * 21), 431),
    (get("/", "Content-Length: 3", "Content-Length: 3", method="POST"), 400),
    (get("/", "Content-Length: 3", "Transfer-Encoding: chunked", method="POST"), 400),
    (get("/", "Content-Length: -1", method="POST"), 400),
    (get("/", "Transfer-Encoding: gzip", method="POST") + b"abc", 400),
    (get("/echo", "Transfer-Encoding: chunked", method="POST") + b"zz\r\n", 400),
    (get("/echo", "Content-Length: 100001", method="POST"), 413),
    (get("/echo", "Content-Length: 99999999999999999999", method="POST"), 400),
    (
        get("/echo", "Transfer-Encoding: chunked", method="POST")
        + (b"4e20\r\n" + b"a" * 20_000 + b"\r\n") * 6,
        413,
    ),
    (get("/echo", "Expect: miracles", "Content-Length: 1", method="POST"), 417),
    (get("a:1", method="CONNECT"), 405),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    (
        get("/echo", "Transfer-Encoding: chunked", method="POST") + b"0\r\n" + b"a: b\r\n" * 200,
        431,
    ),
]


async def test_http_1_0_needs_no_host(server: Server) -> None:
    async with connected(server) as client:
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert (await client.answer())[0] == 200


@pytest.mark.parametrize(("data", "status"), REFUSED)
async def test_what_is_malformed_or_too_large_is_refused_with_a_reason(
    server: Server, data: bytes, status: int
) -> None:
    async with connected(server) as client:
        client.send(data)
        got, headers, body = await client.answer()
        assert got == status
        assert body.startswith(b'{"error":"')
        assert headers[b"connection"] == b"close"
        assert await client.ended() == b""
    assert server.state.buffered == 0


@pytest.mark.parametrize(
    "start",
    [
        b"GET / HTTP/1.1\r\nA: ",
        get("/echo", "Transfer-Encoding: chunked", method="POST") + b"1;",
        get("/echo", "Transfer-Encoding: chunked", method="POST") + b"0\r\nTrailer: ",
    ],
)
async def test_what_never_ends_is_refused(server: Server, start: bytes) -> None:
    async with connected(server) as client:
        client.send(start)
        for _ in range(200):
            client.send(b"a" * 100)
            await turns()
        assert (await client.answer())[0] == 431


async def test_a_refusal_is_read_by_a_client_still_sending(server: Server) -> None:
    async with connected(server) as client:
        client.send(get("/echo", "Content-Length: 50000000", method="POST"))
        for _ in range(50):
            client.send(b"a" * 100_000)
            await turns()
        assert (await client.answer())[0] == 413


async def test_a_refusal_comes_after_the_answers_due(server: Server, gate: Gate) -> None:
    async with connected(server) as client:
        client.send(get("/slow") + b"NONSENSE\r\n\r\n")
        await gate.entered.wait()
        gate.open.set()
        assert (await client.answer())[2] == b"slow"
        assert (await client.answer())[0] == 400


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", None),
        (b"GE", None),
        (b"GET / HTTP/1.1\r\nA", 408),
        (get("/echo", "Content-Length: 3", method="POST") + b"a", 408),
    ],
)
async def test_a_slow_client_is_dropped(server: Server, data: bytes, status: int | None) -> None:
    async with connected(server) as client:
        client.send(data)
        if status is not None:
            assert (await client.answer())[0] == status
        assert await client.ended() == b""


async def test_dripping_bytes_does_not_buy_time(server: Server) -> None:
    async with connected(server) as client:
        client.send(b"GET / HTTP/1.1\r\nA: ")
        answer = asyncio.ensure_future(client.answer())
        while not answer.done():
            client.send(b"a")
            await asyncio.sleep(0.02)
        assert (await answer)[0] == 408


async def test_a_slow_handler_is_no_slow_client(server: Server, gate: Gate) -> None:
    async with connected(server) as client:
        client.send(get("/slow"))
        await gate.entered.wait()
        await asyncio.sleep(2 * FAST.idle_seconds)
        gate.open.set()
        assert (await client.answer())[2] == b"slow"


async def test_a_request_knows_how_long_it_may_have_waited_to_be_read() -> None:
    waited: list[float] = []
    router = Router()

    def answer(request: Request) -> Response:
        waited.append(request.waited)
        return Response(b"ok")

    router.add("GET", "/", answer)
    server = Server(router)
    await server.start("127.0.0.1", 0)
    async with connected(server) as client:

        async def asks_while_the_loop_stands_still() -> float:
            client.send(get("/"))
            time.sleep(0.2)  # noqa: ASYNC251  (the loop is to stand still)
            assert (await client.answer())[0] == 200
            return waited[-1]

        assert await asks_while_the_loop_stands_still() == 0, "once is no overload"
        lag = await until_async(asks_while_the_loop_stands_still, "the lag shows")
        assert 0.1 < lag < 1
    await server.drain(0, 1)


async def test_a_loop_that_stood_still_blames_no_client(server: Server) -> None:
    async with connected(server) as client:
        client.send(get("/"))
        assert (await client.answer())[0] == 200
        time.sleep(2 * FAST.idle_seconds)  # noqa: ASYNC251  (the loop stands still)
        client.send(get("/"))
        assert (await client.answer())[0] == 200


async def test_a_client_that_leaves_cancels_its_request(server: Server, gate: Gate) -> None:
    async with connected(server) as client:
        client.send(get("/slow"))
        await gate.entered.wait()
        reset(client)
    async with asyncio.timeout(5):
        await gate.cancelled.wait()
    await until_async(lambda: server.connections == 0, "connections == 0")


async def test_too_many_connections_are_told_so(server: Server) -> None:
    async with contextlib.AsyncExitStack() as stack:
        first = [await stack.enter_async_context(connected(server)) for _ in range(8)]
        await until_async(lambda: server.connections == 8, "connections == 8")
        surplus = await stack.enter_async_context(connected(server))
        surplus.send(get("/"))
        status, headers, _ = await surplus.answer()
        assert (status, headers[b"retry-after"]) == (503, b"1")
        first[0].send(get("/"))
        assert (await first[0].answer())[0] == 200


async def test_a_body_budget_holds_over_all_connections(gate: Gate) -> None:
    server = Server(gate.router, Limits(buffered_bytes=150_000))
    await server.start("127.0.0.1", 0)
    async with connected(server) as one, connected(server) as other:
        for client in (one, other):
            client.send(get("/echo", "Content-Length: 200000", method="POST"))
        one.send(b"a" * 120_000)
        await until_async(lambda: server.state.buffered == 120_000, "the first body is on account")
        other.send(b"a" * 120_000)
        assert (await other.answer())[0] == 503
        assert server.state.buffered == 120_000
    await until_async(lambda: server.state.buffered == 0, "buffered == 0")
    await server.drain(0, 1)
