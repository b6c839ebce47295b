"""The listening side: connections admitted, deadlines watched, the drain on a signal.

Owns the set of connections and the coarse clock they take their deadlines from. Errors nobody
foresaw end here: the client is told nothing but a request id, the log gets the rest.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
from collections.abc import Callable
from email.utils import formatdate
from math import inf
from time import monotonic

from .heads import KnownHeads
from .limits import Limits
from .message import Handler, HttpError, Request, Response, json_response
from .protocol import Connection

logger = logging.getLogger("fourways.http")

Observe = Callable[[Request, int, float], None]
"""Called for every answer with the request, the status and ``perf_counter()`` at its start. The
request has no route where none was found, and no content where it could not be parsed."""

_SPARE_FILES = 64
"""Files the process needs for other things than its clients."""

_NEW_HEADS = 64
"""Heads learnt in a tick of the clock."""

_TURNED_AWAY = 256
"""Clients over the limit that are told so at the same time; beyond these they are cut off."""


def _observe_nothing(request: Request, status: int, started: float) -> None:
    pass


class Server:
    """An HTTP/1.1 server for one application, on one event loop."""

    def __init__(
        self, app: Handler, limits: Limits | None = None, observe: Observe | None = None
    ) -> None:
        limits = limits or Limits()
        self.app = app
        self.limits = limits
        self.observe: Observe = observe or _observe_nothing
        self.heads = KnownHeads()
        self.draining = False
        self.buffered = 0
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = max(1, min(limits.connections, files - _SPARE_FILES))
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._listener: asyncio.Server | None = None
        self._sweep: asyncio.TimerHandle | None = None
        shortest = min(
            limits.idle_seconds,
            limits.header_seconds,
            limits.body_seconds,
            limits.write_seconds,
            limits.linger_seconds,
        )
        self._sweep_seconds = min(1.0, shortest / 4)
        self._date = 0
        self._tick()

    @property
    def port(self) -> int:
        """The port listened on: the one asked for, or the one found where 0 was asked for."""
        assert self._listener is not None, "start() comes first"  # noqa: S101
        return int(self._listener.sockets[0].getsockname()[1])

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._connections)

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises OSError where the address is taken."""
        self.loop = asyncio.get_running_loop()
        self._tick()
        self._listener = await self.loop.create_server(
            lambda: Connection(self), host, port, backlog=1024, reuse_address=True
        )
        for listening in self._listener.sockets:
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._schedule()

    async def drain(
        self, notice_seconds: float, grace_seconds: float, hurry: asyncio.Event | None = None
    ) -> bool:
        """Stop without failing a request; tell whether all were answered.

        First ``draining`` turns true (readiness follows it) and every answer says
        ``Connection: close``, while new connections are still accepted for ``notice_seconds``:
        whoever balances load needs that long to hear of it. Then nothing new is accepted, and
        what is in flight has ``grace_seconds``. ``hurry`` ends the notice early.
        """
        self.draining = True
        if notice_seconds > 0:
            hurry = hurry or asyncio.Event()
            await _wait(hurry, notice_seconds)
        if self._listener is not None:
            self._listener.close()
        for connection in list(self._connections):
            connection.close_if_idle()
        if self._connections:
            self._empty.clear()
            await _wait(self._empty, grace_seconds)
        left = list(self._connections)
        for connection in left:
            connection.abort()
        if self._sweep is not None:
            self._sweep.cancel()
        return not left

    # ---- what connections ask of the server

    def admit(self, connection: Connection) -> bool:
        """Register a connection; False where there are too many."""
        self._connections.add(connection)
        if len(self._connections) > self._most + _TURNED_AWAY:
            connection.abort()
        return len(self._connections) <= self._most

    def forget(self, connection: Connection) -> None:
        """Take a closed connection out."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    def failed(self, request: Request, error: BaseException) -> Response:
        """Turn an exception into an answer: one meant for the client, or a bare 500."""
        if isinstance(error, HttpError):
            return error.response
        pattern = request.route.pattern if request.route else None
        logger.error(
            "request failed", exc_info=error, extra={"request_id": request.id, "route": pattern}
        )
        identity = b"x-request-id: " + request.id.encode("ascii")
        return json_response({"error": "internal error"}, 500, (identity,))

    def broke_off(self, error: Exception) -> None:
        """Log why an answer ends before its length."""
        logger.error("an answer broke off", exc_info=error)

    # ---- the coarse clock

    def _tick(self) -> None:
        limits = self.limits
        now = self.now = monotonic()
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

    def _schedule(self) -> None:
        before = self.now
        self._tick()
        late = self.now - before - self._sweep_seconds
        for connection in list(self._connections):
            if late > self._sweep_seconds:
                # The loop stood still (no CPU, a long computation). What clients sent meanwhile
                # is not read yet, and they are not to blame for that.
                connection.postpone(late)
            else:
                connection.expire(self.now)
        self._sweep = self.loop.call_later(self._sweep_seconds, self._schedule)


async def _wait(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), None if seconds == inf else seconds)
    except TimeoutError:
        return False
    return True


async def run_until_signal(
    server: Server, notice_seconds: float = 1.0, grace_seconds: float = 20.0
) -> bool:
    """Serve until SIGTERM or SIGINT, then drain; tell whether all requests were answered.

    SIGINT (a person at a terminal) and a second signal of either kind skip the notice; a third
    ends the grace.
    """
    loop = asyncio.get_running_loop()
    stop, hurry, enough = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def on_signal(number: int) -> None:
        if hurry.is_set():
            enough.set()
        if number == signal.SIGINT or stop.is_set():
            hurry.set()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    await stop.wait()
    logger.info("draining", extra={"connections": server.connections})
    drain = asyncio.ensure_future(server.drain(notice_seconds, grace_seconds, hurry))
    cut = asyncio.ensure_future(enough.wait())
    await asyncio.wait((drain, cut), return_when=asyncio.FIRST_COMPLETED)
    cut.cancel()
    if not drain.done():
        drain.cancel()
        return False
    return drain.result()
