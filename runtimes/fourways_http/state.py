"""What the connections of one server share: limits, the coarse clock, hooks, bytes on account.

Owns no socket and arms no timer. The server moves the clock and fills in the hooks; connections and
their intakes read them. Deadlines are moments of ``monotonic()``, in seconds.

``buffered`` counts the bytes that requests and answers hold in this process: a request's body from
its first byte until it is answered, an answer's from then until the client has taken it. Beyond
``limits.buffered_bytes`` bodies are refused with 503.
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
"""Called for every answer with the request, the status and ``perf_counter()`` at its start. The
request has no route where none was found, and no content where it could not be parsed."""

_NEW_HEADS = 64
"""Heads learnt in a tick of the clock."""

REJECTED_AT_ONCE = 256
"""Clients over the limit that get a 503 at the same time; beyond these they are cut off."""


class OpenConnection(Protocol):
    """A connection as its server sees it."""

    def expire(self, now: float) -> None:
        """Act on a deadline that has passed."""

    def postpone(self, seconds: float) -> None:
        """Move the deadlines."""

    def close_if_idle(self) -> None:
        """Close where nothing is asked or owed."""

    def abort(self) -> None:
        """End at once."""


class ServerState:
    """The shared state of one server's connections."""

    __slots__ = (
        "_date",
        "app",
        "body_deadline",
        "buffered",
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
        "tail",
    )

    def __init__(
        self, app: Handler, limits: Limits, observe: Observe, max_connections: int, now: float
    ) -> None:
        self.app = app
        self.limits = limits
        self.observe = observe
        self.max_connections = max_connections
        self.loop: asyncio.AbstractEventLoop | None = None
        self.connections: set[OpenConnection] = set()
        self.on_empty: Callable[[], None] | None = None
        self.heads = KnownHeads()
        self.draining = False
        self.buffered = 0
        self.lag = 0.0
        """Seconds a client's bytes may have waited for the event loop to read them, lately."""

        self.now = now
        self.idle_deadline = self.header_deadline = self.body_deadline = inf
        self.tail = self.keeping_tail = self.closing_tail = b""
        self._date = -1
        self.tick(now)

    def tick(self, now: float) -> None:
        """Move the clock: deadlines taken from now on, and the date that answers carry."""
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
        """Register a connection; False where there are too many."""
        self.connections.add(connection)
        if len(self.connections) > self.max_connections + REJECTED_AT_ONCE:
            connection.abort()
        return len(self.connections) <= self.max_connections

    def forget(self, connection: OpenConnection) -> None:
        """Take a closed connection out."""
        self.connections.discard(connection)
        if not self.connections and self.on_empty is not None:
            self.on_empty()

    def failed(self, request: Request, error: BaseException) -> Response:
        """Turn an exception into an answer: one meant for the client, or a bare 500."""
        if isinstance(error, HttpError):
            return error.response
        pattern = request.route.pattern if request.route else None
        logger.error(
            "request failed", exc_info=error, extra={"request_id": request.id, "route": pattern}
        )
        if request.echo is not None:  # the answer carries the client's id anyway
            return json_response({"error": "internal error"}, 500)
        identity = b"x-request-id: " + request.id.encode("ascii")
        return json_response({"error": "internal error"}, 500, (identity,))

    def broke_off(self, error: Exception) -> None:
        """Log why an answer ends before its length."""
        logger.error("an answer broke off", exc_info=error)
