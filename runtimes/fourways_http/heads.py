"""Heads of requests met before, by all their bytes, and what the parser made of them.

A client sends the same head again and again. Where the same bytes come once more, in front of as
many bytes of body as they announce, the parser would say the same of them: it need not be asked,
which is most of what an HTTP request costs here. Whatever is not just so goes to the parser.
"""

from __future__ import annotations

from .message import Request

_MOST = 1024
"""Heads kept: one client may send some dozens, by the lengths of its bodies."""

_MAX_BYTES = 1024
"""Longer heads are not kept."""

_END = b"\r\n\r\n"
_NOT_PLAIN = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"trailer"})


class KnownHead:
    """A head, and the length of the body that follows it."""

    __slots__ = ("echo", "headers", "length", "method", "plain", "target")

    def __init__(self, request: Request, length: int, plain: bool) -> None:
        self.method = request.method
        self.target = request.target
        self.headers = request.headers
        self.echo = request.echo
        self.length = length
        self.plain = plain


class KnownHeads:
    """The heads one server met lately."""

    def __init__(self) -> None:
        self._known: dict[bytes, KnownHead] = {}
        self._allowance = 0

    def allow(self, heads: int) -> None:
        """Let so many more be learnt: where no head is like another, that must not cost much."""
        self._allowance = heads

    def find(self, data: bytes) -> tuple[KnownHead, bytes] | None:
        """Return the head and the body of ``data``, where it is one whole request like before."""
        end = data.find(_END, 0, _MAX_BYTES) + 4
        known = self._known.get(data[:end])
        if known is None or len(data) != end + known.length:
            return None
        return known, data[end:]

    def learn(self, data: bytes, request: Request, plain: bool) -> None:
        """Remember the head of a request that was parsed from the beginning of ``data``.

        Only where there can be no two opinions: ``data`` is this request and nothing else by its
        Content-Length, and lines end in CRLF.
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
