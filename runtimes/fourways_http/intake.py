"""From bytes to whole requests, within the limits.

Owns the parser and what a request looks like while it arrives. It must not know of answers or
sockets: the connection built on it takes whole requests, interim answers and refusals from here.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import httptools

from .message import HttpError, Request

if TYPE_CHECKING:
    from .server import Server

IDLE, BEGUN, HEAD, BODY = 0, 1, 2, 3
"""How far a request is: none has begun, its method, its head, its body and trailers."""

_UPGRADE_HEADERS = frozenset({b"connection", b"upgrade", b"http2-settings"})

_HEADER_COST = 32
"""Bytes a header counts besides its own: many empty ones are not free."""


class _Refused(Exception):
    """Raised through the parser to stop it. The connection ends with the answer kept aside."""


class Intake:
    """The receiving half of a connection. The methods named ``on_*`` are the parser's."""

    __slots__ = (
        "_body",
        "_chunks",
        "_fragment",
        "_head_bytes",
        "_headers",
        "_held",
        "_parser",
        "_phase",
        "_refusal",
        "_saw_connection",
        "_size",
        "_special",
        "_url",
        "_whole",
        "closing",
        "deadline",
        "server",
    )

    def __init__(self, server: Server) -> None:
        self.server = server
        self.deadline = inf
        self.closing = False  # nothing more is read from this client
        self._parser = httptools.HttpRequestParser(self)
        self._refusal: HttpError | None = None
        self._held = 0
        self._whole: bytes | None = None  # fed at once, from the beginning of a request
        self._reset()

    # ---- what the connection does with it

    def take(self, request: Request, keep: bool, plain: bool) -> None:
        """Answer a whole request. ``plain``: nothing needs saying about the connection."""
        raise NotImplementedError

    def tell_to_continue(self) -> None:
        """Tell a client that expects it that its body is welcome."""
        raise NotImplementedError

    def refuse(self, error: HttpError) -> None:
        """Answer with an error, after the answers due before it, and read no more."""
        raise NotImplementedError

    # ---- feeding the parser

    def _reset(self) -> None:
        self._phase = IDLE
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._fragment = 0
        self._body = b""
        self._chunks: list[bytes] | None = None
        self._size = 0
        self._special = False
        self._saw_connection = False

    def feed(self, data: bytes | memoryview) -> None:
        """Parse; whatever comes of it is told through the three methods above."""
        self._whole = data if not self._phase and type(data) is bytes else None
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
            if not self.closing:
                self.refuse(self._refusal or HttpError(400, f"malformed HTTP: {error}"))
            return
        limits = self.server.limits
        if self._fragment > limits.header_bytes + limits.target_bytes:
            self.refuse(HttpError(431, "the request's headers are too large"))

    def _replay_without_upgrade(self, rest: bytes) -> None:
        """Serve a request that offers an upgrade (h2c) as if it had not.

        The parser takes the offer for accepted and would lose the request's body, so a new parser
        is fed the same head without the offer.
        """
        old = self._parser
        if old.get_method() == b"CONNECT":
            self.refuse(HttpError(405, "CONNECT is not answered here"))
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
        self.feed(b"\r\n".join((*head, b"", rest)))

    def _stop(self, refusal: HttpError) -> None:
        self._refusal = refusal
        raise _Refused

    # ---- the parser's side

    def on_message_begin(self) -> None:
        """Note that a request has begun: what comes now is the parser's alone."""
        self._phase = BEGUN

    def on_url(self, url: bytes) -> None:
        """Collect the request target, which may come in parts."""
        if self._phase == HEAD:
            url = self._url + url
        else:
            self._phase = HEAD
            self.deadline = self.server.header_deadline
        if len(url) > self.server.limits.target_bytes:
            self._stop(HttpError(414, "the request target is too long"))
        self._url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header. A trailer is counted and dropped."""
        size = len(name)
        self._head_bytes += size + len(value) + _HEADER_COST
        limits = self.server.limits
        if self._head_bytes > limits.header_bytes or len(self._headers) >= limits.headers:
            self._stop(HttpError(431, "the request's headers are too large"))
        if self._phase == BODY:
            return
        self._headers.append((name, value))
        if size in (6, 7, 14):  # expect, upgrade, content-length: looked at when all are here
            self._special = True
        elif size == 10 and name.lower() == b"connection":
            self._saw_connection = True

    def on_headers_complete(self) -> None:
        """Refuse a body that is too large before it is sent; answer Expect."""
        self._phase = BODY
        self._fragment = self._head_bytes = 0
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
            self.tell_to_continue()

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

    def release(self) -> None:
        """Let go of a body that was being received."""
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
            self.release()
        request = Request(parser.get_method(), self._url, self._headers, body)
        keep = parser.should_keep_alive()
        plain = keep and not self._saw_connection
        self._reset()
        self.closing = not keep
        if keep and self._whole is not None:
            self.server.heads.learn(self._whole, request, plain)
            self._whole = None
        self.take(request, keep, plain)
