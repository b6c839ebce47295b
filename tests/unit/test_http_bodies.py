"""Bodies of answers that are not held: sent as they are read, to clients slow or gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import uvloop

from fourways_http import Request, Response, Router, Server, SizedResponse
from tests.kit.http_plane import FAST, Client, connected, get
from tests.kit.waiting import turns, until_async

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy")


@pytest.fixture
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy()


class Pieces:
    """A body of so many bytes in pieces; ``fails`` ends it early."""

    def __init__(self, size: int, piece: int = 100_000, fails: bool = False) -> None:
        self.left, self.piece, self.fails = size, piece, fails
        self.reads = 0
        self.closed = asyncio.Event()

    async def read(self) -> bytes:
        self.reads += 1
        await turns()
        if self.fails and self.reads == 3:
            raise OSError("the disk is gone")
        data = b"y" * min(self.piece, self.left)
        self.left -= len(data)
        return data

    def close(self) -> None:
        assert not self.closed.is_set()
        self.closed.set()


@contextlib.asynccontextmanager
async def sending(source: Pieces, status: int = 200) -> AsyncIterator[tuple[Server, Client]]:
    async def answer(request: Request) -> Response:
        return SizedResponse(source.left, source, status)

    router = Router()
    router.add("GET", "/", lambda request: Response(b"small"))
    router.add("GET", "/large", answer)
    router.add("GET", "/at-once", lambda request: SizedResponse(source.left, source))
    router.add("GET", "/open", lambda request: SizedResponse(None, source))
    router.add("GET", "/head", lambda request: SizedResponse(9, None, 304))
    server = Server(router, FAST)
    await server.start("127.0.0.1", 0)
    try:
        async with connected(server) as client:
            yield server, client
    finally:
        await server.drain(0, 1)


async def test_a_body_that_is_not_held_is_sent_in_its_turn() -> None:
    source = Pieces(1_000_000)
    async with sending(source) as (_, client):
        client.send(get("/") + get("/large") + get("/") + get("/head") + get("/"))
        assert (await client.answer())[2] == b"small"
        assert (await client.answer())[2] == b"y" * 1_000_000
        assert (await client.answer())[2] == b"small"
        status, headers = await client.head()
        assert (status, headers[b"content-length"]) == (304, b"9")
        assert (await client.answer())[2] == b"small"
        assert source.closed.is_set()


async def test_a_body_that_is_not_held_by_head_and_at_once() -> None:
    source = Pieces(300_000)
    async with sending(source) as (_, client):
        client.send(get("/at-once"))
        assert len((await client.answer())[2]) == 300_000
    source = Pieces(300_000)
    async with sending(source) as (_, client):
        client.send(get("/large", method="HEAD") + get("/", "Connection: close"))
        assert (await client.head())[1][b"content-length"] == b"300000"
        assert (await client.answer())[2] == b"small"
        assert (source.reads, source.closed.is_set()) == (0, True)


async def test_a_slow_reader_is_not_read_ahead_for_and_then_cut() -> None:
    source = Pieces(100_000_000)
    async with sending(source) as (server, client):
        client.send(get("/large"))
        await client.head()
        async with asyncio.timeout(5):
            await source.closed.wait()
        assert source.left > 50_000_000
        await until_async(lambda: server.connections == 0, "connections == 0", seconds=5)


async def test_a_body_that_breaks_off_ends_the_connection() -> None:
    source = Pieces(1_000_000, fails=True)
    async with sending(source) as (_, client):
        client.send(get("/large"))
        await client.head()
        assert len(await client.ended()) < 1_000_000
        assert source.closed.is_set()


async def test_a_client_that_leaves_lets_the_body_go() -> None:
    source = Pieces(100_000_000)
    async with sending(source) as (_, client):
        client.send(get("/large"))
        await client.head()
        client.writer.close()
        async with asyncio.timeout(5):
            await source.closed.wait()


async def test_a_body_under_way_is_finished_in_a_drain() -> None:
    source = Pieces(20_000_000)
    async with sending(source) as (server, client):
        client.send(get("/large"))
        await client.head()
        drained = asyncio.ensure_future(server.drain(0, 5))
        async with asyncio.timeout(5):
            assert len(await client.reader.readexactly(20_000_000)) == 20_000_000
        assert await client.ended() == b""
        assert await drained


async def test_a_body_of_unknown_length_is_sent_in_chunks_or_up_to_the_end() -> None:
    source = Pieces(250_000)
    async with sending(source) as (server, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(get("/open") + get("/"))
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"transfer-encoding: chunked" in head
        assert b"content-length" not in head
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            assert await reader.readexactly(2) == b"\r\n"
        assert body == b"y" * 250_000
        assert await reader.readexactly(2) == b"\r\n"
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()
    source = Pieces(250_000)
    async with sending(source) as (server, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /open HTTP/1.0\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert b"chunked" not in head
        assert body == b"y" * 250_000
        writer.close()


async def test_a_body_of_unknown_length_that_breaks_off_has_no_end() -> None:
    async with sending(Pieces(1_000_000, fails=True)) as (server, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(get("/open"))
        try:
            received = await reader.read()
        except ConnectionError:
            received = b""
        assert not received.endswith(b"0\r\n\r\n")
        writer.close()
