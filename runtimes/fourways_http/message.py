"""A request, a response, and the encoding of a response's head.

Owns what handlers see of HTTP. Everything that a handler may not need (headers, query, request id)
is computed on access: most responses need none of it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, Protocol, TypeAlias
from urllib.parse import parse_qsl

import orjson

JSON = b"application/json"
TEXT = b"text/plain; charset=utf-8"

_SAFE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_NO_PARAMS: Mapping[str, str] = {}


class HeadMemo:
    """What was found out from a request's head alone; requests with the same head share it."""

    __slots__ = ("admitted", "facts")

    def __init__(self) -> None:
        self.admitted = False
        """Host and Origin were checked."""

        self.facts: Any = None
        """The application's own."""


def _everything(name: str) -> bool:
    return True


class Request:
    """One complete request. ``target`` is raw; the router decodes ``params`` once."""

    __slots__ = (
        "_id",
        "body",
        "caller",
        "echo",
        "headers",
        "memo",
        "method",
        "params",
        "query_string",
        "route",
        "sees",
        "target",
        "trace",
        "waited",
    )

    def __init__(
        self, method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        self.params: Mapping[str, str] = _NO_PARAMS
        self.query_string: bytes | None = None
        self.route: HttpRoute | None = None
        self.echo: bytes | None = None  # the response header line that repeats the client's id
        self.waited = 0.0  # seconds it may have waited to be read
        self.memo: HeadMemo | None = None  # none for a head that may not come again
        self.caller = ""  # name of the authenticated caller, where requests are authenticated
        self.sees: Callable[[str], bool] = _everything  # whether a list may name it to the caller
        self.trace: Any = None  # its span, where requests are traced
        self._id: str | None = None

    def header(self, name: bytes) -> bytes | None:
        """Return the first header of this (lower-case) name."""
        size = len(name)
        for key, value in self.headers:
            if len(key) == size and key.lower() == name:
                return value
        return None

    @property
    def id(self) -> str:
        """The client's ``X-Request-Id`` if it is a plain token, else a generated one."""
        if self._id is None:
            given = self.header(b"x-request-id")
            if given is not None and _SAFE_ID.fullmatch(given):
                self._id = given.decode("ascii")
            else:
                self._id = secrets.token_hex(8)
        return self._id

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters; if one is repeated, the last value wins."""
        if not self.query_string:
            return {}
        return dict(parse_qsl(self.query_string.decode("latin-1"), keep_blank_values=True))

    def json(self) -> Any:
        """Parse the body. Raises HttpError 400 with the reason if it is not JSON."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError as error:
            encoding = self.header(b"content-encoding")
            if encoding is not None and encoding.lower() != b"identity":
                raise HttpError(415, "a compressed body is not accepted") from None
            raise HttpError(400, f"the body is not JSON: {error}") from None


def echo_of(identity: bytes) -> bytes | None:
    """Return the response's header line for an ``X-Request-Id``; None if not a plain token."""
    return b"\r\nx-request-id: " + identity if _SAFE_ID.fullmatch(identity) else None


class Response:
    """A response. ``headers`` are whole lines without line end (``b"retry-after: 1"``)."""

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self,
        body: bytes = b"",
        status: int = 200,
        content_type: bytes = JSON,
        headers: tuple[bytes, ...] = (),
    ) -> None:
        self.body = body
        self.status = status
        self.content_type = content_type
        self.headers = headers


class BodySource(Protocol):
    """A body that is read while it is sent."""

    async def read(self) -> bytes:
        """Return the next bytes; empty at the end."""
        ...

    def close(self) -> None:
        """Release the underlying resource. Called once, however the response ends."""
        ...


class SizedResponse(Response):
    """A response whose body is not in memory: at most its length is known.

    Without a source, only the head is sent, as for 304. Without a length, the body is sent in
    chunks as the source delivers it; its source must end by itself.
    """

    __slots__ = ("length", "source")

    def __init__(
        self,
        length: int | None,
        source: BodySource | None,
        status: int = 200,
        content_type: bytes = JSON,
        headers: tuple[bytes, ...] = (),
    ) -> None:
        super().__init__(b"", status, content_type, headers)
        self.length = length
        self.source = source

    def discard(self) -> None:
        """Release a body that will not be read."""
        source, self.source = self.source, None
        if source is not None:
            source.close()


class HttpError(Exception):
    """An error response: {"error": message, ...more}. The message is for the client."""

    def __init__(
        self, status: int, message: str, headers: tuple[bytes, ...] = (), **more: Any
    ) -> None:
        super().__init__(message)
        self.response = json_response({"error": message, **more}, status, headers)


def json_response(value: Any, status: int = 200, headers: tuple[bytes, ...] = ()) -> Response:
    """Return ``value`` as a JSON response; NaN and infinities become null."""
    return Response(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), status, JSON, headers)


_LENGTH = b"\r\ncontent-length: "
_CHUNKED = b"\r\ntransfer-encoding: chunked"


def _prefix(status: int, content_type: bytes) -> bytes:
    phrase = HTTPStatus(status).phrase.encode("ascii")
    return b"HTTP/1.1 %d %b\r\ncontent-type: %b%b" % (status, phrase, content_type, _LENGTH)


def _lines(headers: tuple[bytes, ...]) -> list[bytes]:
    return [b"\r\n" + header for header in headers]


_OK_JSON: Final = _prefix(200, JSON)
_NUMBERS: Final = [b"%d" % number for number in range(4096)]
_PREFIXES: dict[tuple[int, bytes], bytes] = {}
_MAX_PREFIXES = 256  # a content type may come from another server


def message_of(response: Response, tail: bytes) -> bytes:
    """Return head and body of a response whose body is in memory; ``tail`` as in :func:`head_of`.

    What a model server sends most is joined from ready pieces, without formatting.
    """
    body = response.body
    if (
        response.content_type is JSON
        and response.status == 200
        and not response.headers
        and len(body) < len(_NUMBERS)
    ):
        return b"".join((_OK_JSON, _NUMBERS[len(body)], tail, body))
    return head_of(response, tail) + body


def head_of(response: Response, tail: bytes) -> bytes:
    """Return status line and headers. ``tail`` ends the head: CRLF, server's lines, empty line."""
    key = (response.status, response.content_type)
    prefix = _PREFIXES.get(key)
    if prefix is None:
        if len(_PREFIXES) >= _MAX_PREFIXES:
            _PREFIXES.clear()
        prefix = _PREFIXES[key] = _prefix(*key)
    length = response.length if isinstance(response, SizedResponse) else len(response.body)
    if length is None:
        framing = b"" if b"\r\nconnection: close\r\n" in tail else _CHUNKED
        return b"".join((prefix[: -len(_LENGTH)], framing, *_lines(response.headers), tail))
    if not response.headers:
        return b"%b%d%b" % (prefix, length, tail)
    return b"%b%d\r\n%b%b" % (prefix, length, b"\r\n".join(response.headers), tail)


Answer: TypeAlias = Response | Awaitable[Response]
Handler: TypeAlias = Callable[[Request], Answer]
"""Returns a response or an awaitable of one. A future is cheaper than a coroutine: it needs no
task. Raises HttpError for an error response.
"""


async def awaited(answer: Answer) -> Response:
    """Return the response that a handler returned, or that it promised."""
    return answer if isinstance(answer, Response) else await answer


class HttpRoute:
    """A pattern and its handlers by method. ``observer`` is for metrics."""

    __slots__ = ("handlers", "names", "observer", "pattern")

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.names = tuple(
            part[1:].partition("}")[0] for part in pattern.split("/") if part.startswith("{")
        )
        self.handlers: dict[bytes, Handler] = {}
        self.observer: Any = None
