"""HTTP server: clients that leave, half-close, or take their time to read."""

from __future__ import annotations

import asyncio

import pytest

from fourways_http import Limits, Promise, Response, Router, Server
from tests.kit.http_plane import BIG, Gate, connected, get, reset
from tests.kit.waiting import until_async


async def test_a_client_that_leaves_gives_up_a_future_and_abandons_a_promise() -> None:
    promise, future = Promise(), asyncio.get_running_loop().create_future()
    router = Router()
    router.add("POST", "/promise", lambda request: promise)
    router.add("POST", "/future", lambda request: future)
    server = Server(router)
    await server.start("127.0.0.1", 0)
    async with connected(server) as client:
        body = b"host: localhost\r\ncontent-length: 5\r\n\r\n12345"
        client.send(b"POST /promise HTTP/1.1\r\n" + body + b"POST /future HTTP/1.1\r\n" + body)
        await until_async(lambda: server.state.buffered == 10, "the server knows")
        reset(client)
        await until_async(
            lambda: promise.abandoned and future.cancelled(), "the server has seen it"
        )
    assert server.state.buffered == 5, "a promise's body is held until the promise is settled"
    promise.set_result(Response(b"nobody reads this"))
    assert server.state.buffered == 0
    await server.drain(0, 1)


async def test_a_half_closed_connection_gets_the_answers_it_is_owed(
    server: Server, gate: Gate
) -> None:
    async with connected(server) as client:
        client.send(get("/") + get("/slow") + get("/") + b"GET / HT")
        await gate.entered.wait()
        client.writer.write_eof()
        assert (await client.answer())[0] == 200
        gate.open.set()
        assert (await client.answer())[2] == b"slow"
        status, headers, _ = await client.answer()
        assert (status, headers[b"connection"]) == (200, b"close")
        assert await client.ended() == b""
    await until_async(lambda: server.connections == 0, "the server knows")


async def test_who_half_closes_before_asking_whole_is_let_go(server: Server) -> None:
    async with connected(server) as client:
        client.send(b"GET / HTTP/1.1\r\n")
        client.writer.write_eof()
        assert await client.ended() == b""
    await until_async(lambda: server.connections == 0, "the server knows")


async def test_bodies_and_answers_stay_on_account_until_the_client_has_them() -> None:
    promise = Promise()
    router = Router()
    router.add("POST", "/echo", lambda request: promise)
    router.add("GET", "/", lambda request: Response(b"ok"))
    server = Server(router, Limits(buffered_bytes=150_000))
    await server.start("127.0.0.1", 0)
    post = (
        b"POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\n" + b"a" * 100_000
    )
    async with connected(server) as one, connected(server) as other:
        one.send(post)
        await until_async(lambda: server.state.buffered == 100_000, "the server knows")
        other.send(post)
        assert (await other.answer())[0] == 503
        promise.set_result(Response(BIG * 8))  # more than the sockets take while nobody reads
        assert server.state.buffered > 1_000_000
        async with connected(server) as third:
            third.send(get("/"))
            assert (await third.answer())[0] == 200, "what holds no memory is answered"
        assert (await one.answer())[2] == BIG * 8
    await until_async(lambda: server.state.buffered == 0, "the server knows")
    await server.drain(0, 1)


@pytest.mark.parametrize("path", ["/", "/slow", "/raise"])
async def test_a_client_s_request_id_comes_back_once(server: Server, gate: Gate, path: str) -> None:
    gate.open.set()
    async with connected(server) as client:
        for identity in ("abc-1", "abc-2", "abc-2", "abc-2"):
            client.send(get(path, f"X-Request-Id: {identity}"))
            async with asyncio.timeout(5):
                head = await client.reader.readuntil(b"\r\n\r\n")
            assert head.count(b"x-request-id: " + identity.encode()) == 1
            length = head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]
            await client.reader.readexactly(int(length))
        client.send(get("/", "X-Request-Id: not a token"))
        assert b"x-request-id" not in (await client.answer())[1]


async def test_a_half_closed_connection_that_is_to_end_gets_its_answer(
    server: Server, gate: Gate
) -> None:
    async with connected(server) as client:
        client.send(get("/slow", "Connection: close"))
        await gate.entered.wait()
        (connection,) = server.state.connections
        client.writer.write_eof()
        await until_async(lambda: connection.half_closed, "the end of its half has arrived")
        gate.open.set()
        assert (await client.answer())[2] == b"slow"
        assert await client.ended() == b""
