"""Shared state of one server's connections: limits, coarse clock, hooks, buffered bytes.

Owns no socket and arms no timer. The server advances the clock and sets the hooks; connections and
their intakes read them. Deadlines are values of ``monotonic()``, in seconds.

``buffered`` counts the bytes that requests and responses hold in this process: a request's body
from its first byte until it is answered, a response's from then until the client has read it.
Beyond ``limits.buffered_bytes``, bodies are rejected with 503.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from email.utils import formatdate
from math import inf
from typing import Protocol

from .heads import KnownHeads
from .limits import Limits
from .message import Handler, HttpError, Request, Response, json_response

logger = logging.getLogger("fourways.http")

Observe = Callable[[Request, int, float], None]
"""Called for every response with the request, the status and ``perf_counter()`` at its start. The
request has no route if none was found, and no content if it could not be parsed.
"""

_NEW_HEADS = 64
"""Maximum heads learned per clock tick."""

REJECTED_AT_ONCE = 256
"""Maximum clients over the limit that get a 503 at the same time; further ones are disconnected."""


class OpenConnection(Protocol):
    """A connection as its server sees it."""

    def expire(self, now: float) -> None:
        """Act on a deadline that has passed."""

    def postpone(self, seconds: float) -> None:
        """Move the deadlines."""

    def close_if_idle(self) -> None:
        """Close if no request or response is pending."""

    def abort(self) -> None:
        """Close the connection at once."""


class ServerState:
    """The shared state of one server's connections."""

    __slots__ = (
        "_date",
        "app",
        "body_deadline",
        "buffered",
        "buffered_bytes",
        "closing_tail",
        "connections",
        "draining",
        "header_deadline",
        "heads",
        "idle_deadline",
        "keeping_tail",
        "lag",
        "limits",
        "loop",
        "max_connections",
        "now",
        "observe",
        "on_empty",
        "pipeline",
        "tail",
    )

    def __init__(
        self, app: Handler, limits: Limits, observe: Observe, max_connections: int, now: float
    ) -> None:
        self.app = app
        self.limits = limits
        # What every request is compared with: Limits is not compiled, so reading it costs more.
        self.buffered_bytes = limits.buffered_bytes
        self.pipeline = limits.pipeline
        self.observe = observe
        self.max_connections = max_connections
        self.loop: asyncio.AbstractEventLoop | None = None
        self.connections: set[OpenConnection] = set()
        self.on_empty: Callable[[], None] | None = None
        self.heads = KnownHeads()
        self.draining = False
        self.buffered = 0
        self.lag = 0.0
        """Recent delay in seconds between the arrival of a client's bytes and their reading."""

        self.now = now
        self.idle_deadline = self.header_deadline = self.body_deadline = inf
        self.tail = self.keeping_tail = self.closing_tail = b""
        self._date = -1
        self.tick(now)

    def tick(self, now: float) -> None:
        """Advance the clock: it sets new deadlines and the date in responses."""
        limits = self.limits
        self.now = now
        self.idle_deadline = now + limits.idle_seconds
        self.header_deadline = now + limits.header_seconds
        self.body_deadline = now + limits.body_seconds
        self.heads.allow(_NEW_HEADS)
        if int(now) != self._date:
            self._date = int(now)
            date = b"\r\ndate: " + formatdate(usegmt=True).encode("ascii")
            self.tail = date + b"\r\n\r\n"
            self.keeping_tail = date + b"\r\nconnection: keep-alive\r\n\r\n"
            self.closing_tail = date + b"\r\nconnection: close\r\n\r\n"

    def running_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop the server listens on."""
        if self.loop is None:
            self.loop = asyncio.get_running_loop()
        return self.loop

    # ---- hooks

    def admit(self, connection: OpenConnection) -> bool:
        """Register a connection; False if there are too many."""
        self.connections.add(connection)
        if len(self.connections) > self.max_connections + REJECTED_AT_ONCE:
            connection.abort()
        return len(self.connections) <= self.max_connections

    def forget(self, connection: OpenConnection) -> None:
        """Remove a closed connection."""
        self.connections.discard(connection)
        if not self.connections and self.on_empty is not None:
            self.on_empty()

    def failed(self, request: Request, error: BaseException) -> Response:
        """Convert an exception to a response: an HttpError's own, or a bare 500."""
        if isinstance(error, HttpError):
            return error.response
        pattern = request.route.pattern if request.route else None
        logger.error(
            "request failed", exc_info=error, extra={"request_id": request.id, "route": pattern}
        )
        if request.echo is not None:  # the response carries the client's id anyway
            return json_response({"error": "internal error"}, 500)
        identity = b"x-request-id: " + request.id.encode("ascii")
        return json_response({"error": "internal error"}, 500, (identity,))

    def broke_off(self, error: Exception) -> None:
        """Log why a response ended before its declared length."""
        logger.error("a response was cut off", exc_info=error)
