"""The pool of connections under the gateway's forwards: its bounds, and when it starts anew."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fourways_http import (
    ByteRoom,
    ClientError,
    NoRoom,
    Origin,
    OriginAnswer,
    OriginUnreachable,
    Pool,
    Request,
    Response,
    Router,
    Server,
    TimedOut,
    TooLarge,
    TooManyWaiting,
    client,
)
from tests.kit.upstream import Upstream
from tests.kit.waiting import until_async


class Other:
    """A server that counts its connections and answers when it is let."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.asked = 0
        self.seen: list[Request] = []
        self.seconds = 0.0
        router = Router()
        router.add("POST", "/base/ask", self.answer)
        self.server = Server(router)

    async def answer(self, request: Request) -> Response:
        self.asked += 1
        self.seen.append(request)
        await asyncio.sleep(self.seconds)
        await self.open.wait()
        return Response(request.body)


@asynccontextmanager
async def pooled(**bounds: Any) -> AsyncIterator[tuple[Pool, Other]]:
    other = Other()
    await other.server.start("127.0.0.1", 0)
    origin = Origin.parse(f"http://127.0.0.1:{other.server.port}/base/")
    pool = Pool(origin, bounds.pop("seconds", 2.0), lambda error: error, **bounds)
    try:
        yield pool, other
    finally:
        other.open.set()
        await pool.close()
        await other.server.drain(0, 1)


def ask(pool: Pool, body: bytes = b"x") -> asyncio.Future[OriginAnswer]:
    return pool.ask(b"POST", b"/ask", (), body, lambda answer: answer)


async def test_who_would_wait_too_long_is_refused_when_it_comes() -> None:
    async with pooled(connections=1, seconds=0.5) as (pool, other):
        other.seconds = 0.05
        asked = [ask(pool) for _ in range(4)]
        await asyncio.gather(*asked[:3])  # how often the connection becomes free shows by now
        waiting = []
        with pytest.raises(TooManyWaiting):
            waiting += [ask(pool) for _ in range(50)]


async def test_what_is_given_up_is_not_asked_or_cut_off() -> None:
    async with pooled(connections=1) as (pool, other):
        other.open.clear()
        under_way, waits = ask(pool), ask(pool)
        await until_async(lambda: other.asked, "the first has arrived")
        for future in (under_way, waits):
            future.cancel()
        await until_async(lambda: not pool.busy, "both are given up")
        assert other.asked == 1


async def test_a_request_that_waited_tells_how_much_time_is_left() -> None:
    async with pooled(connections=1, slack_seconds=0.5) as (pool, other):
        other.seconds = 0.3
        asked = [ask(pool), ask(pool)]
        own = pool.ask(b"POST", b"/ask", (), b"", lambda answer: answer, 1.25)
        await asyncio.gather(*asked, own)
        told = [request.header(b"x-request-timeout") for request in other.seen]
        assert told[0] is None
        assert 0.5 < float(told[1] or 0) < 1.3
        assert 0.2 < float(told[2] or 0) < 0.7


async def test_never_more_connections_nor_waiting_than_allowed() -> None:
    async with pooled(connections=3, max_waiting=5) as (pool, other):
        other.open.clear()
        asked = [ask(pool, b"%d" % n) for n in range(5)]
        await until_async(lambda: other.asked >= 3, "three requests arrive", seconds=5)
        asked += [ask(pool, b"%d" % n) for n in range(5, 8)]
        with pytest.raises(TooManyWaiting):
            ask(pool)
        assert (pool.connections, pool.busy) == (3, 8)
        other.open.set()
        assert [(await each).body for each in asked] == [b"%d" % n for n in range(8)]
        assert (pool.connections, pool.busy) == (3, 0)


async def test_old_connections_are_replaced() -> None:
    async with pooled(lifetime_seconds=0.0) as (pool, other):
        for _ in range(3):
            assert (await ask(pool)).status == 200
        assert (pool.reused, pool.connections <= 1) == (0, True)
    async with pooled() as (pool, other):
        for _ in range(3):
            await ask(pool)
        assert (pool.reused, other.server.connections) == (2, 1)


async def test_time_is_bounded_for_who_is_asked_and_who_waits() -> None:
    async with pooled(connections=1, seconds=0.1) as (pool, other):
        other.open.clear()
        asked = [ask(pool) for _ in range(3)]
        for each in asked:
            with pytest.raises(TimedOut):
                await each
        other.open.set()
        assert (await ask(pool)).status == 200


async def test_an_answer_too_large_is_cut() -> None:
    async with pooled(max_answer_bytes=100_000) as (pool, _):
        with pytest.raises(TooLarge):
            await ask(pool, b"x" * 200_000)
        assert len((await ask(pool, b"x" * 100_000)).body) == 100_000


@pytest.mark.thorough
async def test_a_server_gone_for_good_and_a_name_nobody_has() -> None:
    async with pooled() as (pool, other):
        await ask(pool)
        await other.server.drain(0, 1)
        for _ in range(2):
            with pytest.raises(OriginUnreachable):
                await ask(pool)
    nowhere = Pool(Origin.parse("http://nowhere.invalid"), 2.0, lambda error: error)
    with pytest.raises(ClientError):
        await ask(nowhere)
    await nowhere.close()


async def test_closing_ends_what_is_under_way() -> None:
    async with pooled(connections=1) as (pool, other):
        other.open.clear()
        asked = [ask(pool) for _ in range(3)]
        await until_async(lambda: other.asked, "the first request arrives")
        await pool.close()
        for each in asked:
            with pytest.raises(ClientError):
                await each
        with pytest.raises(ClientError):
            ask(pool)


@pytest.mark.parametrize("url", ["ftp://x", "http://", "x:80", "http://x:port"])
def test_what_is_no_origin(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Origin.parse(url)


def test_an_origin_taken_apart() -> None:
    origin = Origin.parse("https://user:secret@[::1]:8443/a/b/")
    assert (origin.host, origin.port, origin.secure) == ("::1", 8443, True)
    assert (origin.authority, origin.prefix) == (b"[::1]:8443", b"/a/b")
    assert Origin.parse("http://x").port == 80


@asynccontextmanager
async def _not_yet_reached(seconds: float) -> AsyncIterator[tuple[Pool, Other, int]]:
    other = Other()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    pool = Pool(Origin.parse(f"http://127.0.0.1:{port}/base/"), seconds, lambda error: error)
    try:
        yield pool, other, port
    finally:
        await pool.close()
        await other.server.drain(0, 1)


async def test_requests_are_held_while_a_new_origin_is_not_reached_yet() -> None:
    async with _not_yet_reached(5.0) as (pool, other, port):
        held = [ask(pool) for _ in range(3)]
        done, _ = await asyncio.wait(held, timeout=0.3)
        assert not done
        await other.server.start("127.0.0.1", port)
        assert [answer.status for answer in await asyncio.gather(*held)] == [200] * 3
        assert other.asked == 3


async def test_an_origin_that_was_reached_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "HOLD_SECONDS", 60.0)
    async with _not_yet_reached(60.0) as (pool, other, port):
        await other.server.start("127.0.0.1", port)
        await ask(pool)
        await other.server.drain(0, 1)
        began = asyncio.get_running_loop().time()
        with pytest.raises(OriginUnreachable):
            await ask(pool)
        assert asyncio.get_running_loop().time() - began < client.HOLD_SECONDS / 2


async def test_a_held_request_fails_as_unreachable_before_its_deadline() -> None:
    async with _not_yet_reached(0.5) as (pool, _, _):
        with pytest.raises(OriginUnreachable):
            await ask(pool)


@pytest.mark.thorough
async def test_requests_are_not_held_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "HOLD_SECONDS", 0.2)
    async with _not_yet_reached(30.0) as (pool, _, _):
        for _ in range(2):
            with pytest.raises(OriginUnreachable):
                await asyncio.wait_for(ask(pool), 30)


async def test_responses_that_arrive_share_a_bounded_room() -> None:
    """The limit of one response bounds one server; the room bounds what all of them send."""
    room = ByteRoom(3 * 2**20)
    async with pooled(room=room, seconds=20.0) as (pool, _):
        large = b"x" * 2**20
        assert (await ask(pool, large)).body == large
        assert room.left == 3 * 2**20
        answers = await asyncio.gather(
            *(ask(pool, 2 * large) for _ in range(6)), return_exceptions=True
        )
        refused = [each for each in answers if isinstance(each, NoRoom)]
        given = [each for each in answers if isinstance(each, OriginAnswer)]
        assert len(given) + len(refused) == len(answers)
        assert given, "one has room"
        with pytest.raises(NoRoom):
            await ask(pool, 4 * large)
        assert (await ask(pool, b"small")).body == b"small"
        assert room.left == 3 * 2**20, "all of it is given back"


async def test_a_response_that_ends_early_gives_its_room_back() -> None:
    upstream, room = Upstream(), ByteRoom(2**20)

    async def half(its: Upstream, head: bytes, body: bytes) -> bytes | None:
        for writer in its.writers:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 900000\r\n\r\n" + b"x" * 500_000)
            await writer.drain()
        await until_async(lambda: room.left < 2**20, "a part has arrived")
        return None

    upstream.script = half
    await upstream.listen()
    origin = Origin.parse(f"http://127.0.0.1:{upstream.port}")
    pool = Pool(origin, 20.0, lambda error: error, room=room)
    with pytest.raises(ClientError):
        await pool.ask(b"GET", b"/", (), b"", lambda answer: answer)
    assert room.left == 2**20
    await pool.close()
    await upstream.die()
