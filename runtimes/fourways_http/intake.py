"""From bytes to complete requests, within the limits.

Owns the parser and the state of a request while it arrives. It must not know about responses or
sockets. Bytes go in with :meth:`Intake.feed`; the results (complete requests, clients that wait for
an interim response, a refusal) are taken out with :meth:`Intake.take`, in order of arrival.
"""

from __future__ import annotations

from math import inf

import httptools

from .message import HttpError, Request, echo_of
from .state import ServerState

IDLE, BEGUN, HEAD, BODY = 0, 1, 2, 3
"""Progress of a request: none has begun, its method, its head, its body and trailers."""

_UPGRADE_HEADERS = frozenset({b"connection", b"upgrade", b"http2-settings"})

_HEADER_COST = 32
"""Bytes counted per header on top of its own: many empty headers are not free."""


class _Refused(Exception):
    """Raised through the parser to stop it. The connection ends with the stored response."""


class Arrival:
    """One result of parsing a client's bytes, and the number of its buffered body bytes.

    A request; or a refusal, after which nothing is read; or neither, if a client waits for ``100
    Continue`` before it sends its body.
    """

    __slots__ = ("held", "keep", "plain", "refusal", "request")

    def __init__(
        self,
        request: Request | None,
        keep: bool,
        plain: bool,
        held: int,
        refusal: HttpError | None = None,
    ) -> None:
        self.request = request
        self.keep = keep  # the connection stays open after the response
        self.plain = plain  # the response needs no Connection header
        self.held = held
        self.refusal = refusal


class Intake:
    """The receiving half of a connection. The parser calls the methods named ``on_*``."""

    __slots__ = (
        "_arrived",
        "_body",
        "_chunks",
        "_echo",
        "_ended",
        "_fragment",
        "_head_bytes",
        "_headers",
        "_held",
        "_hosts",
        "_parser",
        "_refusal",
        "_saw_connection",
        "_size",
        "_special",
        "_state",
        "_whole",
        "deadline",
        "phase",
        "url",
    )

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self.deadline = inf  # when the request that has begun to arrive must be complete
        self._parser = httptools.HttpRequestParser(self)
        self._arrived: list[Arrival] = []
        self._ended = False  # what follows is not a request of this connection
        self._refusal: HttpError | None = None
        self._held = 0
        self._whole: bytes | None = None  # fed in one piece, from the beginning of a request
        self._reset()

    def take(self) -> list[Arrival]:
        """Return the results so far and remove them here."""
        arrived, self._arrived = self._arrived, []
        return arrived

    # ---- feeding the parser

    def _reset(self) -> None:
        self.phase = IDLE
        self.deadline = inf
        self.url = b""
        self._echo: bytes | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._fragment = 0
        self._body = b""
        self._chunks: list[bytes] | None = None
        self._size = 0
        self._special = False
        self._hosts = 0
        self._saw_connection = False

    def feed(self, data: bytes | memoryview) -> None:
        """Parse ``data``; :meth:`take` returns the results."""
        self._whole = data if not self.phase and type(data) is bytes else None
        if self.phase:
            # The parser buffers bytes that make no progress (half a header, a chunk extension), and
            # they are counted nowhere else.
            self._fragment += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._replay_without_upgrade(bytes(data[upgrade.args[0] :]))
            return
        except httptools.HttpParserError as error:
            if not self._ended:
                self._refuse(self._refusal or HttpError(400, f"malformed HTTP: {error}"))
            return
        limits = self._state.limits
        if self._fragment > limits.header_bytes + limits.target_bytes:
            self._refuse(HttpError(431, "the request's headers are too large"))

    def _replay_without_upgrade(self, rest: bytes) -> None:
        """Serve a request that offers an upgrade (h2c) as if it had not.

        The parser treats the offer as accepted and would lose the request's body, so a new parser
        is fed the same head without the offer.
        """
        old = self._parser
        if old.get_method() == b"CONNECT":
            self._refuse(HttpError(405, "CONNECT is not supported"))
            return
        version = old.get_http_version().encode("ascii")
        head = [b"%b %b HTTP/%b" % (old.get_method(), self.url, version)]
        head += [
            b"%b: %b" % header
            for header in self._headers
            if header[0].lower() not in _UPGRADE_HEADERS
        ]
        self._reset()
        self._parser = httptools.HttpRequestParser(self)
        self.feed(b"\r\n".join((*head, b"", rest)))

    def _refuse(self, refusal: HttpError) -> None:
        self._ended = True
        self.release()
        self._arrived.append(Arrival(None, False, False, 0, refusal))

    def _stop(self, refusal: HttpError) -> None:
        self._refusal = refusal
        raise _Refused

    # ---- called by the parser

    def on_message_begin(self) -> None:
        """Record that a request has begun: from now on the bytes go only to the parser."""
        self.phase = BEGUN

    def on_url(self, url: bytes) -> None:
        """Collect the request target, which may arrive in parts."""
        if self.phase == HEAD:
            url = self.url + url
        else:
            self.phase = HEAD
            self.deadline = self._state.header_deadline
        if len(url) > self._state.limits.target_bytes:
            self._stop(HttpError(414, "the request target is too long"))
        self.url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header. A trailer is counted and dropped."""
        size = len(name)
        self._head_bytes += size + len(value) + _HEADER_COST
        limits = self._state.limits
        if self._head_bytes > limits.header_bytes or len(self._headers) >= limits.headers:
            self._stop(HttpError(431, "the request's headers are too large"))
        if self.phase == BODY:
            return
        self._headers.append((name, value))
        if size == 12 and name.lower() == b"x-request-id":
            self._echo = echo_of(value)
        elif size in (6, 7, 14):  # expect, upgrade, content-length: handled at the end
            self._special = True
        elif size == 10 and name.lower() == b"connection":
            self._saw_connection = True
        elif size == 4 and name.lower() == b"host":
            self._hosts += 1

    def on_headers_complete(self) -> None:
        """Reject a body that is too large before it is sent; check Host; handle Expect."""
        self.phase = BODY
        self._fragment = self._head_bytes = 0
        self.deadline = self._state.body_deadline
        if self._hosts != 1:
            self._check_host()
        if self._special and not self._parser.should_upgrade():
            self._check_head()

    def _check_host(self) -> None:
        """Refuse what RFC 9112 (3.2) refuses: no Host in HTTP/1.1, or more than one."""
        if self._hosts:
            self._stop(HttpError(400, "the request has more than one Host header"))
        if self._parser.get_http_version() == "1.1":
            self._stop(HttpError(400, "the request has no Host header"))

    def _check_head(self) -> None:
        expects = False
        for name, value in self._headers:
            name = name.lower()
            if name == b"content-length":
                if int(value) > self._state.limits.body_bytes:
                    self._stop(HttpError(413, "the request's body is too large"))
            elif name == b"expect":
                if value.lower() != b"100-continue":
                    self._stop(HttpError(417, "Expect supports only 100-continue"))
                expects = self._parser.get_http_version() == "1.1"
        if expects:
            self._arrived.append(Arrival(None, True, False, 0))

    def on_body(self, body: bytes) -> None:
        """Collect the body. One that arrives in one piece is never copied."""
        self._fragment = 0
        self._size += len(body)
        if self._size > self._state.limits.body_bytes:
            self._stop(HttpError(413, "the request's body is too large"))
        self._hold(len(body))
        if not self._body:
            self._body = body
        elif self._chunks is None:
            self._chunks = [self._body, body]
        else:
            self._chunks.append(body)

    def _hold(self, size: int) -> None:
        state = self._state
        self._held += size
        state.buffered += size
        if state.buffered > state.limits.buffered_bytes:
            self._stop(
                HttpError(503, "the server is receiving too much data", (b"retry-after: 1",))
            )

    def release(self) -> None:
        """Release the buffered bytes of an unfinished body."""
        self._state.buffered -= self._held
        self._held = 0
        self._chunks = None
        self._body = b""

    def on_message_complete(self) -> None:
        """Queue the request for :meth:`take`, with its body's bytes still counted."""
        parser = self._parser
        if parser.should_upgrade():
            return  # the parser stops here; the request is fed again without the offer
        body = self._body
        if self._chunks is not None:
            body = b"".join(self._chunks)
        request = Request(parser.get_method(), self.url, self._headers, body)
        request.echo = self._echo
        keep = parser.should_keep_alive()
        plain = keep and not self._saw_connection
        held, self._held = self._held, 0
        self._reset()
        self._ended = not keep
        if keep and self._whole is not None:
            self._state.heads.learn(self._whole, request, plain)
            self._whole = None
        self._arrived.append(Arrival(request, keep, plain, held))
