"""One connection to another server: sends a request and delivers its response.

Owns the parser and the limits of a response. The pool manages the connection before and after the
exchange.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol, cast

import httptools

MAX_ANSWER_BYTES = 64 * 2**20
"""Maximum body of a response, unless the pool sets another; beyond: the connection is closed."""

MAX_HEADER_BYTES = 64 * 1024
"""Maximum total of header names and values of a response, trailers included."""

CLOSED_BEFORE_SECONDS = 0.5
"""If a pooled connection ends within this time after a request, it had been closed before it."""

_JOIN = 16 * 1024
_UNCOUNTED = 64 * 1024
"""Responses up to this size need no room: each connection has at most one."""

_HEADER_COST = 32

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"content-length",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Headers that apply to one connection, and the length, which is set anew."""


class ClientError(Exception):
    """Why there is no response; ``str()`` may name a local error, never the server's text."""


class OriginUnreachable(ClientError):
    """No connection: refused, unknown host name, no route."""


class TimedOut(ClientError):
    """The response did not arrive in time."""


class BrokenOff(ClientError):
    """The connection ended before the response did, or the data was not HTTP."""


class TooLarge(ClientError):
    """The response is larger than allowed."""


class NoRoom(ClientError):
    """The responses that arrive at the same time take all of their room."""


class ByteRoom:
    """How many bytes those that share it may keep in memory together."""

    def __init__(self, most: int) -> None:
        self.left = most

    def take(self, size: int) -> bool:
        """Reserve room; return whether there was enough."""
        if size > self.left:
            return False
        self.left -= size
        return True

    def give(self, size: int) -> None:
        """Return what was reserved."""
        self.left += size


class OriginAnswer:
    """A complete response. Header names are lower case; hop-by-hop headers are removed."""

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self, status: int, content_type: bytes, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> None:
        self.status = status
        self.content_type = content_type
        self.headers = headers
        self.body = body


class Job:
    """A request, and the destination of its response."""

    __slots__ = ("body", "deadline", "future", "head", "retried", "then", "waits")

    def __init__(
        self,
        head: bytes,
        body: bytes,
        future: asyncio.Future[Any],
        then: Callable[[OriginAnswer], Any],
        deadline: float,
    ) -> None:
        self.head = head
        self.body = body
        self.future = future
        self.then = then
        self.deadline = deadline
        self.retried = False
        self.waits = False  # for a connection, for longer than a moment


class ExchangeOwner(Protocol):
    """The owner of a connection, as the connection sees it: the pool."""

    max_answer_bytes: int
    """Maximum body of a response."""

    room: ByteRoom | None
    """Room for responses while they arrive, shared with other pools: the limit of one response
    bounds what one server sends, and this what all of them send. None: no bound."""

    explain: Callable[[ClientError], Exception]
    """Converts the cause of a missing response to the exception that the caller gets."""

    def release(self, exchange: Exchange) -> None:
        """Take back a free connection."""

    def lost(self, exchange: Exchange) -> None:
        """Forget a connection that has ended."""

    def again(self, job: Job) -> None:
        """Resend a request on a new connection."""


class Exchange(asyncio.Protocol):
    """The protocol of one connection. The parser calls the methods named ``on_*``."""

    __slots__ = (
        "_chunks",
        "_content_type",
        "_framed",
        "_headed",
        "_header_bytes",
        "_headers",
        "_heard",
        "_held",
        "_parser",
        "_pool",
        "_sent",
        "_size",
        "_transport",
        "_uses",
        "expires",
        "idle_since",
        "job",
    )

    def __init__(self, pool: ExchangeOwner, expires: float) -> None:
        self.expires = expires
        self.idle_since = 0.0
        self.job: Job | None = None
        self._pool = pool
        self._sent = 0.0
        self._uses = 0
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._parser = httptools.HttpResponseParser(self)
        self._heard = False
        self._held = 0
        self._reset()

    def _reset(self) -> None:
        self._content_type = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._header_bytes = 0
        self._chunks: list[bytes] = []
        self._size = 0
        self._framed = self._headed = False

    def _hold(self) -> None:
        """Take room for what has arrived. Raises NoRoom."""
        room = self._pool.room
        if room is None or self._size <= _UNCOUNTED:
            return
        if not room.take(self._size - self._held):
            raise NoRoom
        self._held = self._size

    def _let_go(self) -> None:
        room = self._pool.room
        if self._held and room is not None:
            room.give(self._held)
            self._held = 0

    # ---- called by the pool

    @property
    def closing(self) -> bool:
        """Whether this connection accepts no more requests."""
        return self._transport.is_closing()

    def start(self, job: Job) -> None:
        """Send a request."""
        self.job = job
        self._uses += 1
        self._sent = monotonic()
        self._heard = False
        body = job.body
        if len(body) <= _JOIN:
            self._transport.write(job.head + body if body else job.head)
        else:
            self._transport.writelines((job.head, body))

    def close(self) -> None:
        """Close the connection; no request is in flight."""
        self._transport.close()

    def abort(self, error: ClientError) -> None:
        """Fail the request in flight and close the connection."""
        job, self.job = self.job, None
        self._let_go()
        if job is not None and not job.future.done():
            job.future.set_exception(self._pool.explain(error))
        self._transport.abort()

    # ---- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Parse; the parser's callbacks notify the caller."""
        if self.job is None:
            self._transport.abort()  # the server sent data without a request
            return
        self._heard = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            # The parser wraps what its callbacks raise.
            cause = error.__context__
            self.abort(cause if isinstance(cause, TooLarge | NoRoom) else BrokenOff())

    def eof_received(self) -> bool:
        """Close."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Settle the request in flight: complete, to be resent, or failed."""
        job, self.job = self.job, None
        if job is not None:
            if self._ends_here(exc):
                self.job = job
                self._deliver()
            elif self._was_closed_before() and not job.retried:
                self._pool.again(job)
            elif not job.future.done():
                job.future.set_exception(self._pool.explain(BrokenOff()))
        self._let_go()
        self._pool.lost(self)

    def _was_closed_before(self) -> bool:
        """Return whether the server had closed this pooled connection before the request arrived.

        That shows at once. A connection that ends later ended while the server worked on the
        request: the request may have crashed the server, and must not crash the next one.
        """
        return (
            not self._heard and self._uses > 1 and monotonic() - self._sent <= CLOSED_BEFORE_SECONDS
        )

    def _ends_here(self, exc: Exception | None) -> bool:
        """Return whether the response had no length, so that it ends with its connection."""
        return exc is None and self._headed and not self._framed

    # ---- called by the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a header, unless it is a hop-by-hop header."""
        self._header_bytes += len(name) + len(value) + _HEADER_COST
        if self._header_bytes > MAX_HEADER_BYTES:
            raise BrokenOff
        name = name.lower()
        if name == b"content-type":
            self._content_type = value
        elif name in HOP_BY_HOP:
            if name in (b"content-length", b"transfer-encoding"):
                self._framed = True
        else:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Record that the head is complete."""
        self._headed = True

    def on_body(self, body: bytes) -> None:
        """Collect the body. One that arrives in one piece is never copied."""
        self._size += len(body)
        if self._size > self._pool.max_answer_bytes:
            raise TooLarge
        self._hold()
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        """Deliver the response and return the connection."""
        if self._parser.get_status_code() < 200:
            self._reset()  # an interim response; the final one follows
            return
        keep = self._parser.should_keep_alive()
        if self.job is None:
            return
        self._deliver()
        if keep:
            self._pool.release(self)
        else:
            self._transport.close()

    def _deliver(self) -> None:
        job = cast(Job, self.job)
        self.job = None
        chunks = self._chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        answer = OriginAnswer(
            self._parser.get_status_code(), self._content_type, self._headers, body
        )
        self._reset()
        self._let_go()
        if job.future.done():
            return
        try:
            job.future.set_result(job.then(answer))
        except Exception as error:  # noqa: BLE001  (whoever awaits it gets it)
            job.future.set_exception(error)
