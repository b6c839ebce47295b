"""One connection: bytes in, requests out, answers back in the order they were asked.

Owns parsing state, limits, time-outs and backpressure of a connection. It must not know what is
asked: requests go to the server's application, which answers at once or with something to await.

Pipelined requests run side by side; each holds a slot, and slots are written from the front. A
client with too many of them, or one that does not read its answers, is not read from: what was
read already waits in ``_stash``. A connection sets deadlines but holds no timer: the server looks
at all deadlines now and then, because arming a timer for every request costs more than parsing it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from inspect import iscoroutine
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, cast

import httptools

from .message import HttpError, Request, Response, head_of
from .router import Answer

if TYPE_CHECKING:
    from .server import Server

_SLICE = 32 * 1024
"""The parser cannot pause, so it is fed in slices: that bounds what one read can start."""

_JOIN = 16 * 1024
"""A body up to this size is copied behind its head, a larger one is written as it is."""

_IDLE, _HEAD, _BODY = 0, 1, 2
"""Which part of a request comes next: none has begun, its head, its body and trailers."""

_UPGRADE_HEADERS = frozenset({b"connection", b"upgrade", b"http2-settings"})
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class _Refused(Exception):
    """Raised through the parser to stop it. The connection ends with the answer kept aside."""


class _Slot:
    """A request's place in the order of answers. No request: an interim answer's place."""

    __slots__ = ("connection", "content", "keep", "request", "started")

    def __init__(
        self, connection: Connection, request: Request | None, keep: bool, started: float
    ) -> None:
        self.connection = connection
        self.request = request
        self.keep = keep
        self.started = started
        self.content: Response | None = None

    def done(self, future: asyncio.Future[Response]) -> None:
        """Take the answer from a future and write what can be written."""
        if future.cancelled():
            self.connection.drop(self)
            return
        server = self.connection.server
        request = cast(Request, self.request)
        error = future.exception()
        self.content = future.result() if error is None else server.failed(request, error)
        server.observe(request, self.content.status, self.started)
        self.connection.advance()


class Connection(asyncio.Protocol):
    """The protocol of one client's connection."""

    __slots__ = (
        "_body", "_chunks", "_closing", "_fragment", "_head_bytes", "_headers", "_held", "_lingers",
        "_out", "_parser", "_phase", "_refusal", "_saw_connection", "_size", "_slots", "_special",
        "_stash", "_tasks", "_transport", "_url", "_write_deadline", "deadline", "server",
    )  # fmt: skip

    def __init__(self, server: Server) -> None:
        self.server = server
        self.deadline = inf
        self._write_deadline = inf
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._parser = httptools.HttpRequestParser(self)
        self._slots: deque[_Slot] = deque()
        self._tasks: set[asyncio.Task[Response]] = set()
        self._out: list[bytes] = []
        self._stash: deque[bytes] = deque()
        self._closing = False  # nothing more is read from this client
        self._lingers = False  # it may not have finished sending
        self._refusal: HttpError | None = None
        self._held = 0
        self._reset()

    def _reset(self) -> None:
        self._phase = _IDLE
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._fragment = 0
        self._body = b""
        self._chunks: list[bytes] | None = None
        self._size = 0
        self._special = False
        self._saw_connection = False

    # ---- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register with the server, or be turned away where there are too many."""
        self._transport = cast(asyncio.Transport, transport)
        self.deadline = self.server.idle_deadline
        if not self.server.admit(self):
            self._refuse(HttpError(503, "too many connections", (b"retry-after: 1",)))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything; nobody is left to answer."""
        self._closing = True
        self.deadline = self._write_deadline = inf
        self.server.forget(self)
        self._release()
        self._slots.clear()
        self._stash.clear()
        for task in list(self._tasks):
            task.cancel()

    def eof_received(self) -> bool:
        """Close: a half-closed connection is dropped, once what is written has left."""
        return False

    def pause_writing(self) -> None:
        """Stop reading from a client that does not read."""
        self._write_deadline = self.server.now + self.server.limits.write_seconds
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on with what was read before."""
        self._write_deadline = inf
        self.advance()

    def data_received(self, data: bytes) -> None:
        """Parse, answer what can be answered at once, and write it in one go."""
        if self._closing:
            return
        if self._stash:
            self._stash.append(data)
        elif len(data) <= _SLICE:
            self._feed(data)
            if len(self._slots) >= self.server.limits.pipeline:
                self._transport.pause_reading()
        else:
            self._feed_slices(data)
        if self._out:
            self._write()

    # ---- feeding the parser

    def _full(self) -> bool:
        return len(self._slots) >= self.server.limits.pipeline or self._write_deadline != inf

    def _feed_slices(self, data: bytes) -> None:
        view = memoryview(data)
        for start in range(0, len(data), _SLICE):
            if self._closing:
                return
            if self._full():
                self._stash.appendleft(bytes(view[start:]))
                self._transport.pause_reading()
                return
            self._feed(view[start : start + _SLICE])
            if self._out:
                self._write()

    def _feed(self, data: bytes | memoryview) -> None:
        if self._phase:
            # What makes no progress (half a header, a chunk extension) is kept by the parser,
            # where nobody else counts it.
            self._fragment += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._replay_without_upgrade(bytes(data[upgrade.args[0] :]))
            return
        except httptools.HttpParserError as error:
            if not self._closing:
                self._refuse(self._refusal or HttpError(400, f"malformed HTTP: {error}"))
            return
        limits = self.server.limits
        if self._fragment > limits.header_bytes + limits.target_bytes:
            self._refuse(HttpError(431, "the request's headers are too large"))

    def _replay_without_upgrade(self, rest: bytes) -> None:
        """Serve a request that offers an upgrade (h2c) as if it had not.

        The parser takes the offer for accepted and would lose the request's body, so a new parser
        is fed the same head without the offer.
        """
        old = self._parser
        if old.get_method() == b"CONNECT":
            self._refuse(HttpError(405, "CONNECT is not answered here"))
            return
        version = old.get_http_version().encode("ascii")
        head = [b"%b %b HTTP/%b" % (old.get_method(), self._url, version)]
        head += [
            b"%b: %b" % header
            for header in self._headers
            if header[0].lower() not in _UPGRADE_HEADERS
        ]
        self._reset()
        self._parser = httptools.HttpRequestParser(self)
        self._feed(b"\r\n".join((*head, b"", rest)))

    # ---- the parser's side

    def on_url(self, url: bytes) -> None:
        """Collect the request target, which may come in parts."""
        if self._phase:
            url = self._url + url
        else:
            self._phase = _HEAD
            self.deadline = self.server.header_deadline
        if len(url) > self.server.limits.target_bytes:
            self._stop(HttpError(414, "the request target is too long"))
        self._url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header. A trailer is counted and dropped."""
        size = len(name)
        self._head_bytes += size + len(value)
        limits = self.server.limits
        if self._head_bytes > limits.header_bytes or len(self._headers) >= limits.headers:
            self._stop(HttpError(431, "the request's headers are too large"))
        if self._phase == _BODY:
            return
        self._headers.append((name, value))
        if size in (6, 7, 14):  # expect, upgrade, content-length: looked at when all are here
            self._special = True
        elif size == 10 and name.lower() == b"connection":
            self._saw_connection = True

    def on_headers_complete(self) -> None:
        """Refuse a body that is too large before it is sent; answer Expect."""
        self._phase = _BODY
        self._fragment = 0
        self.deadline = self.server.body_deadline
        if self._special and not self._parser.should_upgrade():
            self._check_head()

    def _check_head(self) -> None:
        expects = False
        for name, value in self._headers:
            name = name.lower()
            if name == b"content-length":
                if int(value) > self.server.limits.body_bytes:
                    self._stop(HttpError(413, "the request's body is too large"))
            elif name == b"expect":
                if value.lower() != b"100-continue":
                    self._stop(HttpError(417, "only 100-continue can be expected"))
                expects = self._parser.get_http_version() == "1.1"
        if expects:
            self._slots.append(_Slot(self, None, True, 0.0))
            self._flush_slots()

    def on_body(self, body: bytes) -> None:
        """Collect the body. One that comes in one piece is never copied."""
        self._fragment = 0
        self._size += len(body)
        if self._size > self.server.limits.body_bytes:
            self._stop(HttpError(413, "the request's body is too large"))
        if not self._body:
            self._body = body
            return
        if self._chunks is None:
            self._chunks = [self._body]
            self._hold(len(self._body))
        self._chunks.append(body)
        self._hold(len(body))

    def _hold(self, size: int) -> None:
        self._held += size
        self.server.buffered += size
        if self.server.buffered > self.server.limits.buffered_bytes:
            self._stop(HttpError(503, "too much is being received", (b"retry-after: 1",)))

    def _release(self) -> None:
        self.server.buffered -= self._held
        self._held = 0
        self._chunks = None
        self._body = b""

    def on_message_complete(self) -> None:
        """Hand the request to the application."""
        parser = self._parser
        if parser.should_upgrade():
            return  # the parser stops here, and the request is fed again without the offer
        body = self._body
        if self._chunks is not None:
            body = b"".join(self._chunks)
            self._release()
        request = Request(parser.get_method(), self._url, self._headers, body)
        keep = parser.should_keep_alive()
        plain = keep and not self._saw_connection
        self._reset()
        self._closing = not keep
        self._answer(request, keep, plain)

    # ---- answering

    def _answer(self, request: Request, keep: bool, plain: bool) -> None:
        server = self.server
        started = perf_counter()
        try:
            answer: Answer = server.app(request)
        except Exception as error:  # noqa: BLE001  (the client gets a 500, the log the rest)
            answer = server.failed(request, error)
        if type(answer) is Response:
            server.observe(request, answer.status, started)
            if plain and not self._slots and not server.draining:
                self.deadline = server.idle_deadline
                self._put(request, answer, server.tail)
                return
            slot = _Slot(self, request, keep, started)
            slot.content = answer
            self._slots.append(slot)
            self._flush_slots()
            return
        self.deadline = inf
        slot = _Slot(self, request, keep, started)
        self._slots.append(slot)
        if iscoroutine(answer):
            task: asyncio.Task[Response] = server.loop.create_task(answer)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(slot.done)
        else:
            cast("asyncio.Future[Response]", answer).add_done_callback(slot.done)

    def _put(self, request: Request, response: Response, tail: bytes) -> None:
        head = head_of(response, tail)
        if request.method == b"HEAD":
            self._out.append(head)
        elif len(response.body) <= _JOIN:
            self._out.append(head + response.body)
        else:
            self._out += (head, response.body)

    def _flush_slots(self) -> None:
        slots, server = self._slots, self.server
        while slots and (slots[0].request is None or slots[0].content is not None):
            slot = slots.popleft()
            if slot.request is None:
                self._out.append(_CONTINUE)
                continue
            answer = cast(Response, slot.content)
            last = server.draining and not (slots or self._phase or self._stash)
            if last or not slot.keep:
                self._put(slot.request, answer, server.closing_tail)
                self._finish()
                return
            self._put(slot.request, answer, server.keeping_tail)
        if not slots and not self._phase:
            self.deadline = server.idle_deadline

    def advance(self) -> None:
        """Write the answers that are due, then go on reading where that had been stopped."""
        if self._transport.is_closing():
            return
        self._flush_slots()
        if self._out:
            self._write()
        while self._stash and not self._closing and not self._full():
            self._feed_slices(self._stash.popleft())
        if not self._full() and not self._transport.is_closing():
            self._transport.resume_reading()

    def _write(self) -> None:
        out, self._out = self._out, []
        if len(out) == 1:
            self._transport.write(out[0])
        else:
            self._transport.writelines(out)

    def drop(self, slot: _Slot) -> None:
        """End the connection: the request in this slot was given up and has no answer."""
        if slot in self._slots:
            self._transport.abort()

    # ---- ends

    def _stop(self, refusal: HttpError) -> None:
        self._refusal = refusal
        raise _Refused

    def _refuse(self, error: HttpError) -> None:
        """Answer with an error, after the answers due before it, and read no more."""
        self._release()
        self._closing = self._lingers = True
        self.deadline = inf
        slot = _Slot(self, Request(b"GET", self._url, [], b""), False, perf_counter())
        slot.content = error.response
        self._slots.append(slot)
        self.server.observe(cast(Request, slot.request), error.response.status, slot.started)
        self._flush_slots()

    def _finish(self) -> None:
        """Write what there is and close; after a refusal, let the client finish sending first."""
        self._closing = True
        self._write()
        self._slots.clear()
        self._stash.clear()
        if self._lingers and self._transport.can_write_eof():
            self.deadline = self.server.now + self.server.limits.linger_seconds
            self._transport.write_eof()
            self._transport.resume_reading()
        else:
            self._transport.close()

    def expire(self, now: float) -> None:
        """Act on a deadline that has passed."""
        if self._write_deadline < now:
            self._transport.abort()
        elif self.deadline < now:
            self.deadline = inf
            if self._closing or not self._phase:
                self._transport.close()
            else:
                self._refuse(HttpError(408, "the request did not arrive in time"))

    def close_if_idle(self) -> bool:
        """Close where nothing is asked or owed; tell whether that was so."""
        busy = bool(self._slots or self._phase or self._stash)
        if not busy:
            self._transport.close()
        return not busy

    def abort(self) -> None:
        """End at once."""
        self._transport.abort()
