"""A cache of request heads: their bytes, and the parser's result for them.

A client sends the same head again and again. If the same bytes arrive again, followed by exactly as
many body bytes as they declare, the parser's result would be the same, so it can be skipped;
parsing is most of the cost of an HTTP request here. Everything else goes to the parser.
"""

from __future__ import annotations

from typing import Final

from .message import HeadMemo, Request

_MOST: Final = 1024
"""Maximum cached heads: one client may send a few dozen, depending on its body lengths."""

_MAX_BYTES: Final = 1024
"""Longer heads are not cached."""

_END: Final = b"\r\n\r\n"
_NOT_PLAIN = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"trailer"})


class KnownHead:
    """A head, and the length of the body that follows it."""

    __slots__ = ("echo", "headers", "length", "memo", "method", "plain", "target")

    def __init__(self, request: Request, length: int, plain: bool) -> None:
        self.method = request.method
        self.target = request.target
        self.headers = request.headers
        self.echo = request.echo
        self.memo = HeadMemo()
        self.length = length
        self.plain = plain


class KnownHeads:
    """The heads that one server received lately."""

    def __init__(self) -> None:
        self._known: dict[bytes, KnownHead] = {}
        self._allowance = 0

    def allow(self, heads: int) -> None:
        """Allow this many more heads to be learned, to limit the cost if all heads differ."""
        self._allowance = heads

    def find(self, data: bytes) -> tuple[KnownHead, bytes] | None:
        """Return head and body of ``data`` if it is one complete request with a known head."""
        end = data.find(_END, 0, _MAX_BYTES) + 4
        known = self._known.get(data[:end])
        if known is None or len(data) != end + known.length:
            return None
        return known, data[end:]

    def learn(self, data: bytes, request: Request, plain: bool) -> None:
        """Remember the head of a request that was parsed from the beginning of ``data``.

        Only if there is no ambiguity: by its Content-Length, ``data`` is exactly this request, and
        lines end in CRLF.
        """
        if self._allowance <= 0:
            return
        self._allowance -= 1
        end = data.find(_END, 0, _MAX_BYTES) + 4
        body = len(data) - end
        if end < 4 or body != len(request.body):
            return
        if data.count(b"\n", 0, end) != data.count(b"\r\n", 0, end):
            return
        names = [name.lower() for name, _ in request.headers]
        if not _NOT_PLAIN.isdisjoint(names) or names.count(b"content-length") != (body > 0):
            return
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[data[:end]] = KnownHead(request, body, plain)
