"""Large responses in gzip's format, for clients that accept it."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator

import pytest

from fourways_http import Promise, Request, Response, Router, Server
from fourways_http.compression import MIN_BYTES
from tests.kit.http_plane import FAST, Client, connected, get, reset
from tests.kit.waiting import until_async

BODY = b"[" + b"0.123456," * MIN_BYTES + b"1]"


async def later(request: Request) -> Response:
    return Response(BODY)


def promised(request: Request) -> Promise:
    promise = Promise()
    asyncio.get_running_loop().call_soon(promise.set_result, Response(BODY))
    return promise


@pytest.fixture
async def plane() -> AsyncIterator[tuple[Server, Client]]:
    router = Router()
    router.add("GET", "/at-once", lambda request: Response(BODY))
    router.add("GET", "/later", later)
    router.add("GET", "/promised", promised)
    router.add("GET", "/small", lambda request: Response(BODY[: MIN_BYTES - 1]))
    router.add("GET", "/picture", lambda request: Response(BODY, content_type=b"image/png"))
    router.add(
        "GET", "/encoded", lambda request: Response(BODY, headers=(b"Content-Encoding: br",))
    )
    server = Server(router, FAST)
    await server.start("127.0.0.1", 0)
    try:
        async with connected(server) as client:
            yield server, client
    finally:
        await server.drain(0, 1)


@pytest.mark.parametrize("path", ["/at-once", "/later", "/promised"])
@pytest.mark.parametrize("asked", ["gzip", "deflate, GZIP;q=0.5, br", "x-gzip"])
async def test_a_large_response_is_compressed(
    plane: tuple[Server, Client], path: str, asked: str
) -> None:
    server, client = plane
    client.send(get(path, f"Accept-Encoding: {asked}") + get("/small"))
    _, headers, body = await client.answer()
    assert headers[b"content-encoding"] == b"gzip"
    assert headers[b"vary"] == b"accept-encoding"
    assert len(body) < len(BODY) / 10
    assert gzip.decompress(body) == BODY
    assert (await client.answer())[2] == BODY[: MIN_BYTES - 1]
    await until_async(lambda: server.state.buffered == 0, "all bytes are accounted for")


@pytest.mark.parametrize("path", ["/at-once", "/later", "/promised"])
@pytest.mark.parametrize("asked", ["", "identity", "br", "*", "gzip;q=0", "gzip; q=0.000"])
async def test_a_client_that_does_not_accept_it_gets_the_body_as_it_is(
    plane: tuple[Server, Client], path: str, asked: str
) -> None:
    _, client = plane
    client.send(get(path, *([f"Accept-Encoding: {asked}"] if asked else [])))
    _, headers, body = await client.answer()
    assert b"content-encoding" not in headers
    assert body == BODY


@pytest.mark.parametrize("path", ["/small", "/picture", "/encoded"])
async def test_what_would_not_shrink_is_sent_as_it_is(
    plane: tuple[Server, Client], path: str
) -> None:
    _, client = plane
    client.send(get(path, "Accept-Encoding: gzip"))
    _, headers, _ = await client.answer()
    assert headers.get(b"content-encoding") != b"gzip"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_an_old_client_gets_a_length(plane: tuple[Server, Client], version: str) -> None:
    _, client = plane
    client.send(get("/later", "Accept-Encoding: gzip", "Connection: keep-alive", version=version))
    _, _, body = await client.answer()  # read by its length
    assert gzip.decompress(body) == BODY


async def test_a_client_that_leaves_meanwhile_leaves_no_bytes_counted(
    plane: tuple[Server, Client],
) -> None:
    server, client = plane
    client.send(get("/promised", "Accept-Encoding: gzip") * 3)
    await client.head()
    reset(client)
    await until_async(lambda: server.state.buffered == 0, "nothing is counted any more")
