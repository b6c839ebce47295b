"""The HTTP layer over real sockets, on the event loop production runs on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from fourways_http import (
    HttpError,
    Limits,
    Promise,
    Request,
    Response,
    Router,
    Server,
    SizedResponse,
)

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy")

FAST = Limits(
    target_bytes=512,
    header_bytes=2048,
    headers=20,
    body_bytes=100_000,
    connections=8,
    pipeline=4,
    idle_seconds=0.25,
    header_seconds=0.25,
    body_seconds=0.25,
    write_seconds=0.25,
    linger_seconds=0.25,
)
BIG = b"x" * 4_000_000


@pytest.fixture
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy()


class Gate:
    """An application whose slow answers wait until the test lets them go."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.entered = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.calls = 0
        router = self.router = Router()
        router.add("GET", "/", lambda request: Response(b'{"ok":true}'))
        router.add("GET", "/slow", self.slow)
        router.add("GET", "/future", self.future)
        router.add("GET", "/raise", self.fail)
        router.add("GET", "/teapot", self.teapot)
        router.add("GET", "/big", lambda request: Response(BIG))
        router.add("POST", "/echo", lambda request: Response(request.body))
        router.add("GET", "/names/{name}/of/{other}", self.names)

    async def slow(self, request: Request) -> Response:
        self.calls += 1
        self.entered.set()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return Response(b"slow")

    def future(self, request: Request) -> asyncio.Future[Response]:
        return asyncio.ensure_future(self.slow(request))

    def fail(self, request: Request) -> Response:
        raise RuntimeError("password=hunter2")

    async def teapot(self, request: Request) -> Response:
        raise HttpError(418, "no coffee", (b"retry-after: 7",), field="pot")

    def names(self, request: Request) -> Response:
        return Response("|".join((*request.params.values(), str(request.query))).encode())


@pytest.fixture
async def gate() -> Gate:
    return Gate()


@pytest.fixture
async def server(gate: Gate) -> AsyncIterator[Server]:
    server = Server(gate.router, FAST)
    await server.start("127.0.0.1", 0)
    yield server
    gate.open.set()
    await server.drain(0, 1)


class Client:
    """A raw client that reads answers by their content-length."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> tuple[int, dict[bytes, bytes]]:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        headers = dict(line.lower().split(b": ", 1) for line in lines[1:-2])
        return int(lines[0].split()[1]), headers

    async def answer(self) -> tuple[int, dict[bytes, bytes], bytes]:
        async with asyncio.timeout(5):
            status, headers = await self.head()
            return status, headers, await self.reader.readexactly(int(headers[b"content-length"]))

    async def ended(self) -> bytes:
        """Wait for the server to close; return what came before."""
        async with asyncio.timeout(5):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""


@contextlib.asynccontextmanager
async def connected(server: Server) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def reset(client: Client) -> None:
    """End the connection in a way that the server cannot take for a half-closed one."""
    sock = client.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  (no event tells of a socket's end)
            await asyncio.sleep(0.005)


def get(path: str, *headers: str, version: str = "1.1", method: str = "GET") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/{version}", *headers, "", "")).encode()


def post(body: bytes, *headers: str) -> bytes:
    return get("/echo", f"Content-Length: {len(body)}", *headers, method="POST") + body


async def test_keeps_alive_and_counts_its_connections(server: Server) -> None:
    async with connected(server) as client:
        for _ in range(3):
            client.send(get("/", "Host: a"))
            status, headers, body = await client.answer()
            assert (status, body) == (200, b'{"ok":true}')
            assert b"date" in headers
            assert b"connection" not in headers
        assert server.connections == 1
    await until(lambda: server.connections == 0)


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
        await until(lambda: gate.calls >= FAST.pipeline)
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
        await until(lambda: server.connections == 0)


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
            await asyncio.sleep(0)
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


REFUSED = [
    (b"\x16\x03\x01\x02\x00\x01\x00", 400),
    (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\nHost: x\n\n", 400),
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
            await asyncio.sleep(0)
        assert (await client.answer())[0] == 431


async def test_a_refusal_is_read_by_a_client_still_sending(server: Server) -> None:
    async with connected(server) as client:
        client.send(get("/echo", "Content-Length: 50000000", method="POST"))
        for _ in range(50):
            client.send(b"a" * 100_000)
            await asyncio.sleep(0)
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
    await until(lambda: server.connections == 0)


async def test_a_client_that_leaves_gives_up_a_future_and_abandons_a_promise() -> None:
    promise, future = Promise(), asyncio.get_running_loop().create_future()
    router = Router()
    router.add("POST", "/promise", lambda request: promise)
    router.add("POST", "/future", lambda request: future)
    server = Server(router)
    await server.start("127.0.0.1", 0)
    async with connected(server) as client:
        body = b"content-length: 5\r\n\r\n12345"
        client.send(b"POST /promise HTTP/1.1\r\n" + body + b"POST /future HTTP/1.1\r\n" + body)
        await until(lambda: server.state.buffered == 10)
        reset(client)
        await until(lambda: promise.abandoned and future.cancelled())
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
    await until(lambda: server.connections == 0)


async def test_who_half_closes_before_asking_whole_is_let_go(server: Server) -> None:
    async with connected(server) as client:
        client.send(b"GET / HTTP/1.1\r\n")
        client.writer.write_eof()
        assert await client.ended() == b""
    await until(lambda: server.connections == 0)


async def test_bodies_and_answers_stay_on_account_until_the_client_has_them() -> None:
    promise = Promise()
    router = Router()
    router.add("POST", "/echo", lambda request: promise)
    router.add("GET", "/", lambda request: Response(b"ok"))
    server = Server(router, Limits(buffered_bytes=150_000))
    await server.start("127.0.0.1", 0)
    post = b"POST /echo HTTP/1.1\r\ncontent-length: 100000\r\n\r\n" + b"a" * 100_000
    async with connected(server) as one, connected(server) as other:
        one.send(post)
        await until(lambda: server.state.buffered == 100_000)
        other.send(post)
        assert (await other.answer())[0] == 503
        promise.set_result(Response(BIG * 8))  # more than the sockets take while nobody reads
        assert server.state.buffered > 1_000_000
        async with connected(server) as third:
            third.send(get("/"))
            assert (await third.answer())[0] == 200, "what holds no memory is answered"
        assert (await one.answer())[2] == BIG * 8
    await until(lambda: server.state.buffered == 0)
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


async def test_too_many_connections_are_told_so(server: Server) -> None:
    async with contextlib.AsyncExitStack() as stack:
        first = [await stack.enter_async_context(connected(server)) for _ in range(8)]
        await until(lambda: server.connections == 8)
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
        await until(lambda: server.state.buffered == 120_000)
        other.send(b"a" * 120_000)
        assert (await other.answer())[0] == 503
        assert server.state.buffered == 120_000
    await until(lambda: server.state.buffered == 0)
    await server.drain(0, 1)


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
        await until(lambda: server.connections == 2)
        drained = asyncio.ensure_future(server.drain(0, 5))
        await until(lambda: server.draining)
        talks.send(get("/"))
        assert (await talks.answer())[0] == 200
        assert await talks.ended() == b""
        assert await silent.ended() == b""
        assert await drained


async def test_drain_gives_notice_and_still_answers(server: Server) -> None:
    hurry = asyncio.Event()
    async with connected(server) as client:
        drained = asyncio.ensure_future(server.drain(60, 5, hurry))
        await until(lambda: server.draining)
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


class Pieces:
    """A body of so many bytes in pieces; ``fails`` ends it early."""

    def __init__(self, size: int, piece: int = 100_000, fails: bool = False) -> None:
        self.left, self.piece, self.fails = size, piece, fails
        self.reads = 0
        self.closed = asyncio.Event()

    async def read(self) -> bytes:
        self.reads += 1
        await asyncio.sleep(0)
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
        await until(lambda: server.connections == 0)


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
