"""Lets web pages of named origins read responses (CORS).

Browsers keep a page from reading responses of another origin unless these say that it may. No
cookie is ever read here: a page needs the same credentials in a header as any other caller.
"""

from __future__ import annotations

from collections.abc import Collection
from copy import copy

from .message import Answer, Handler, HttpError, Request, Response, awaited

ALL = "*"
"""Stands for every origin."""

_METHODS = b"GET, HEAD, POST"
_HEADERS = (
    b"authorization, content-encoding, content-type, grpc-timeout, idempotency-key,"
    b" inference-header-content-length, prefer, traceparent, x-request-id, x-request-timeout"
)
_EXPOSED = (
    b"age, etag, inference-header-content-length, location, preference-applied, retry-after,"
    b" x-fourways-fault, x-request-id"
)
_MAX_AGE_SECONDS = 3600


class AllowedOrigins:
    """A handler that answers for pages of some origins as they need it, and other requests as ever.

    ``origins`` are of the form ``https://HOST[:PORT]``, or :data:`ALL`.
    """

    def __init__(self, app: Handler, origins: Collection[str]) -> None:
        self._app = app
        self._origins = frozenset(origin.encode("ascii") for origin in origins)
        self._all = ALL in origins

    def allowed(self, request: Request) -> bytes | None:
        """Return the origin of a request if it is an allowed one."""
        origin = request.header(b"origin")
        return origin if origin is not None and (self._all or origin in self._origins) else None

    def __call__(self, request: Request) -> Answer:
        """Answer the request, or a browser's question whether a page may make it."""
        origin = self.allowed(request)
        if origin is None:
            return self._app(request)
        if request.method == b"OPTIONS" and request.header(b"access-control-request-method"):
            return _readable(_preflight(), origin)
        return self._answer(request, origin)

    async def _answer(self, request: Request, origin: bytes) -> Response:
        try:
            answer = await awaited(self._app(request))
        except HttpError as error:
            answer = error.response
        return _readable(answer, origin)


def _readable(response: Response, origin: bytes) -> Response:
    answer = copy(response)  # some responses are shared by all requests
    answer.headers = (
        *response.headers,
        b"access-control-allow-origin: " + origin,
        b"access-control-expose-headers: " + _EXPOSED,
        b"vary: Origin",
    )
    return answer


def _preflight() -> Response:
    headers = (
        b"access-control-allow-methods: " + _METHODS,
        b"access-control-allow-headers: " + _HEADERS,
        b"access-control-max-age: %d" % _MAX_AGE_SECONDS,
    )
    return Response(b"", 200, b"text/plain", headers)
