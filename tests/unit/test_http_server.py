"""The HTTP layer over real sockets, on the event loop production runs on."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from fourways_http import Server
from tests.kit.http_plane import BIG, FAST, Gate, connected, get, post
from tests.kit.waiting import turns, until_async

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy")


@pytest.fixture
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy()


async def test_keeps_alive_and_counts_its_connections(server: Server) -> None:
    async with connected(server) as client:
        for _ in range(3):
            client.send(get("/", "A: a"))
            status, headers, body = await client.answer()
            assert (status, body) == (200, b'{"ok":true}')
            assert b"date" in headers
            assert b"connection" not in headers
        assert server.connections == 1
    await until_async(lambda: server.connections == 0, "connections == 0")


@pytest.mark.parametrize(
    ("request_bytes", "connection", "stays"),
    [
        (get("/", "Connection: close"), b"close", False),
        (get("/", "Connection: keep-alive"), b"keep-alive", True),
        (get("/", version="1.0"), b"close", False),
        (get("/", "Connection: keep-alive", version="1.0"), b"keep-alive", True),
    ],
)
async def test_says_whether_the_connection_stays(
    server: Server, request_bytes: bytes, connection: bytes, stays: bool
) -> None:
    async with connected(server) as client:
        client.send(request_bytes)
        _, headers, _ = await client.answer()
        assert headers[b"connection"] == connection
        if stays:
            client.send(get("/"))
            assert (await client.answer())[0] == 200
        else:
            assert await client.ended() == b""


async def test_requests_after_connection_close_are_not_answered(server: Server) -> None:
    async with connected(server) as client:
        client.send(get("/", "Connection: close") + get("/"))
        assert (await client.ended()).count(b"200 OK") == 1


async def test_head_has_the_length_and_no_body(server: Server) -> None:
    async with connected(server) as client:
        client.send(get("/", method="HEAD") + get("/"))
        status, headers = await client.head()
        assert (status, headers[b"content-length"]) == (200, b"11")
        assert (await client.answer())[2] == b'{"ok":true}'


async def test_pipelined_answers_come_in_order(server: Server, gate: Gate) -> None:
    async with connected(server) as client:
        client.send(get("/slow") + get("/") + get("/future") + get("/teapot"))
        await gate.entered.wait()
        gate.open.set()
        answers = [await client.answer() for _ in range(4)]
        assert [answer[0] for answer in answers] == [200, 200, 200, 418]
        assert [answer[2][:4] for answer in answers] == [b"slow", b'{"ok', b"slow", b'{"er']


async def test_pipelining_is_bounded_and_nothing_is_lost(server: Server, gate: Gate) -> None:
    many = 3000
    async with connected(server) as client:
        client.send(get("/slow") * many)
        await gate.entered.wait()
        # One slice of what was read may be under way, and not all that was sent.
        await until_async(lambda: gate.calls >= FAST.pipeline, "calls >= FAST.pipeline")
        assert gate.calls < many
        gate.open.set()
        for _ in range(many):
            assert (await client.answer())[2] == b"slow"
    assert gate.calls == many


async def test_a_client_that_does_not_read_is_not_read_and_then_cut_off(server: Server) -> None:
    async with connected(server) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(50):
            client.send(get("/big"))
        await until_async(lambda: server.connections == 0, "connections == 0")


async def test_large_answers_arrive_whole(server: Server) -> None:
    async with connected(server) as client:
        client.send(get("/big") * 3)
        for _ in range(3):
            assert (await client.answer())[2] == BIG


@pytest.mark.parametrize("size", [0, 1, 70_000, 100_000])
async def test_bodies_arrive_whole_in_pieces_or_at_once(server: Server, size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(part), part)
        for part in (body[i : i + 9000] for i in range(0, size, 9000))
    )
    chunked = get("/echo", "Transfer-Encoding: chunked", method="POST") + chunks
    chunked += b"0\r\nTrailer: dropped\r\n\r\n"
    async with connected(server) as client:
        client.send(post(body) + chunked)
        assert (await client.answer())[2] == body
        assert (await client.answer())[2] == body
        assert server.state.buffered == 0
        for index in range(0, len(chunked[:3000]), 7):
            client.send(chunked[index : min(index + 7, 3000)])
            await turns()
        client.send(chunked[3000:])
        assert (await client.answer())[2] == body


async def test_expect_continue(server: Server) -> None:
    async with connected(server) as client:
        client.send(get("/echo", "Content-Length: 2", "Expect: 100-continue", method="POST"))
        assert (await client.head())[0] == 100
        client.send(b"hi")
        assert (await client.answer())[2] == b"hi"


async def test_expect_continue_waits_for_the_answer_before(server: Server, gate: Gate) -> None:
    async with connected(server) as client:
        expecting = get("/echo", "Content-Length: 2", "Expect: 100-continue", method="POST")
        client.send(get("/slow") + expecting)
        await gate.entered.wait()
        gate.open.set()
        assert (await client.answer())[2] == b"slow"
        assert (await client.head())[0] == 100


async def test_an_offered_upgrade_is_declined_and_the_body_kept(server: Server) -> None:
    async with connected(server) as client:
        offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAA")
        client.send(post(b"body", *offer) + get("/"))
        assert (await client.answer())[2] == b"body"
        assert (await client.answer())[2] == b'{"ok":true}'


async def test_errors_tell_the_client_nothing_internal(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(server) as client:
        client.send(get("/raise", "X-Request-Id: mine-1"))
        status, headers, body = await client.answer()
        assert (status, body) == (500, b'{"error":"internal error"}')
        assert headers[b"x-request-id"] == b"mine-1"
        client.send(get("/raise", "X-Request-Id: not a token\xe9"))
        assert (await client.answer())[1][b"x-request-id"] not in (b"", b"mine-1")
        client.send(get("/teapot"))
        status, headers, body = await client.answer()
        assert (status, headers[b"retry-after"]) == (418, b"7")
        assert body == b'{"error":"no coffee","field":"pot"}'
    assert caplog.records[0].request_id == "mine-1"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/names/a/of/b", 200, b"a|b|{}"),
        ("/names/a%2Fb/of/%2e%2e", 200, b"a/b|..|{}"),
        ("/names/a%252Fb/of/c+d", 200, b"a%2Fb|c+d|{}"),
        ("/names/%C3%A9/of/b?x=1&x=2", 200, "é|b|{'x': '2'}".encode()),
        ("http://elsewhere/names/a/of/b", 200, b"a|b|{}"),
        ("/names/%FF/of/b", 400, None),
        ("/names//of/b", 404, None),
        ("/names/a/of", 404, None),
        ("/names/a/of/b/", 404, None),
        ("/../", 404, None),
        ("*", 404, None),
        ("/echo", 405, None),
    ],
)
async def test_routes(server: Server, path: str, status: int, body: bytes | None) -> None:
    async with connected(server) as client:
        client.send(get(path))
        got, _, text = await client.answer()
        assert got == status
        if body is not None:
            assert text == body


async def test_drain_answers_what_is_in_flight_and_accepts_no_more(
    server: Server, gate: Gate
) -> None:
    port = server.port
    async with connected(server) as busy, connected(server) as idle:
        idle.send(get("/"))
        await idle.answer()
        busy.send(get("/slow"))
        await gate.entered.wait()
        drained = asyncio.ensure_future(server.drain(0, 5))
        assert await idle.ended() == b""
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        gate.open.set()
        _, headers, body = await busy.answer()
        assert (body, headers[b"connection"]) == (b"slow", b"close")
        assert await busy.ended() == b""
        assert await drained


async def test_drain_hears_who_has_just_connected(server: Server) -> None:
    async with connected(server) as talks, connected(server) as silent:
        await until_async(lambda: server.connections == 2, "connections == 2")
        drained = asyncio.ensure_future(server.drain(0, 5))
        await until_async(lambda: server.draining, "draining")
        talks.send(get("/"))
        assert (await talks.answer())[0] == 200
        assert await talks.ended() == b""
        assert await silent.ended() == b""
        assert await drained


async def test_drain_gives_notice_and_still_answers(server: Server) -> None:
    hurry = asyncio.Event()
    async with connected(server) as client:
        drained = asyncio.ensure_future(server.drain(60, 5, hurry))
        await until_async(lambda: server.draining, "draining")
        client.send(get("/"))
        status, headers, _ = await client.answer()
        assert (status, headers[b"connection"]) == (200, b"close")
    async with connected(server) as late:
        late.send(get("/"))
        assert (await late.answer())[0] == 200
    hurry.set()
    assert await drained


async def test_drain_ends_when_its_grace_does(server: Server, gate: Gate) -> None:
    async with connected(server) as client:
        client.send(get("/slow"))
        await gate.entered.wait()
        assert not await server.drain(0, 0.05)
        assert await client.ended() == b""


def test_asyncios_own_loop_serves_too() -> None:
    async def serve() -> None:
        gate = Gate()
        server = Server(gate.router, FAST)
        await server.start("127.0.0.1", 0)
        async with connected(server) as client:
            client.send(get("/slow") * 100 + post(b"b" * 90_000) + get("/big") * 2)
            await gate.entered.wait()
            gate.open.set()
            bodies = [(await client.answer())[2] for _ in range(103)]
            assert bodies == [b"slow"] * 100 + [b"b" * 90_000, BIG, BIG]
            client.send(b"NONSENSE\r\n\r\n")
            assert (await client.answer())[0] == 400
            assert await client.ended() == b""
        assert await server.drain(0, 1)

    asyncio.run(serve())
