"""A head met before is answered as the parser would have it, whatever came before and after it."""

from __future__ import annotations

import asyncio
import random
import re
from typing import Any

import pytest

from fourways_http import Limits, Promise, Request, Response, Server
from fourways_http.heads import KnownHeads
from fourways_http.protocol import Connection

LIMITS = Limits(body_bytes=100, pipeline=4)
POST = b"POST /a HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\n\r\n"


class Wire(asyncio.Transport):
    """A transport that keeps what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.wrote, self.closed = b"", False

    def write(self, data: Any) -> None:
        self.wrote += bytes(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Site:
    """A server that repeats what it was asked, at once or when told to."""

    def __init__(self, learns: bool) -> None:
        self.promises: list[tuple[Promise, Response]] = []
        self.server = Server(self.answer, LIMITS)
        self.server.state.heads.allow(1000 if learns else 0)
        self.connection, self.wire = Connection(self.server.state), Wire()
        self.connection.connection_made(self.wire)
        self.found = 0

    def answer(self, request: Request) -> Response | Promise:
        said = [request.method, request.target, *map(b"=".join, request.headers), request.body]
        response = Response(b"|".join(said))
        if request.target != b"/later":
            return response
        promise = Promise()
        self.promises.append((promise, response))
        return promise

    def hear(self, data: bytes) -> None:
        if not self.wire.closed:
            self.found += self.server.state.heads.find(data) is not None
            self.connection.data_received(data)

    def settle(self) -> None:
        for promise, response in self.promises:
            promise.set_result(response)
        self.promises.clear()

    @property
    def wrote(self) -> bytes:
        # A later answer alone needs not say that the connection stays, which is the default.
        said = re.sub(rb"\r\ndate: [^\r]*", b"", self.wire.wrote)
        return said.replace(b"\r\nconnection: keep-alive", b"")


PIECES = (
    POST + b"123",
    POST + b"abc",
    POST,
    b"123",
    b"12",
    b"3",
    b"PO",
    b"\r\n",
    b"\r\n\r\n",
    POST.replace(b"/a", b"/later") + b"xyz",
    POST.replace(b"/a", b"/later") + b"\r\n\r",
    b"GET /a HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"HEAD /a HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"GET /later HTTP/1.1\r\nhost: localhost\r\nconnection: keep-alive\r\n\r\n",
    b"POST /a HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
    + b"3\r\nabc\r\n0\r\n\r\n",
    b"POST /a HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n"
    + b"abc",
    b"GET /a HTTP/1.0\r\nhost: localhost\r\n\r\n",
    b"GET /a HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
    POST.replace(b"3", b"103") + b"x" * 103,
    POST.replace(b"host", b"ho st") + b"123",
    b"POST /a HTTP/1.1\r\nhost: localhost\r\ncontent-length: 12\r\n\r\nGET / HTTP/1",
    b"GET /a HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
)


@pytest.mark.parametrize("seed", range(40))
async def test_with_known_heads_and_without_the_same_is_answered(seed: int) -> None:
    rng = random.Random(seed)
    found = 0
    for _ in range(25):
        learns, plain = Site(True), Site(False)
        for piece in (PIECES[0], PIECES[9], PIECES[11], *rng.choices(PIECES[:14], k=8)):
            cut = rng.choice((0, 0, 0, rng.randrange(len(piece))))
            for data in (piece[:cut], piece[cut:]):
                if data:
                    learns.hear(data)
                    plain.hear(data)
            if rng.random() < 0.7:
                learns.settle()
                plain.settle()
        for piece in rng.choices(PIECES, k=3):
            learns.hear(piece)
            plain.hear(piece)
        learns.settle()
        plain.settle()
        assert learns.wrote == plain.wrote
        assert learns.wire.closed == plain.wire.closed
        assert plain.found == 0
        found += learns.found
    assert found


@pytest.mark.parametrize(
    "data",
    [
        b"POST / HTTP/1.1\nhost: x\ncontent-length: 3\n\nabc",
        b"POST / HTTP/1.1\r\nhost: x\ncontent-length: 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nhost: localhost\r\n\r\nabc",
        POST + b"abcd",
        POST + b"ab",
        POST.replace(b"host", b"Transfer-Encoding") + b"abc",
        POST.replace(b"host", b"Expect") + b"abc",
        POST.replace(b"host", b"x" * 1024) + b"abc",
    ],
)
def test_a_head_of_which_there_can_be_two_opinions_is_not_kept(data: bytes) -> None:
    heads = KnownHeads()
    heads.allow(10)
    lines = data.replace(b"\r\n", b"\n").partition(b"\n\n")[0].split(b"\n")[1:]
    headers = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
    heads.learn(data, Request(b"POST", b"/", headers, b"abc"), True)
    assert heads.find(data) is None


def test_what_is_kept_is_bounded() -> None:
    heads = KnownHeads()
    for _ in range(3):
        heads.allow(600)
        for at in range(700):
            head = b"GET /%d HTTP/1.1\r\n\r\n" % at
            heads.learn(head, Request(b"GET", b"/%d" % at, [], b""), True)
        assert heads.find(b"GET /650 HTTP/1.1\r\n\r\n") is None
    assert len(heads._known) <= 1024
