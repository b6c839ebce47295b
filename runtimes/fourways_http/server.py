"""The listening side: accepts connections, checks deadlines, drains on a signal.

Owns the listening socket, the timer that advances the connections' clock and ends what is overdue,
and the drain. The state that connections share is in :mod:`.state`.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
import ssl
from collections.abc import Collection
from math import inf
from time import monotonic, perf_counter

from .cors import AllowedOrigins
from .limits import Limits
from .loopback import LoopbackOnly, is_loopback
from .message import Handler, HttpError, Request, Response, awaited
from .protocol import Connection
from .state import Observe, ServerState

logger = logging.getLogger("fourways.http")

_BEAT_SECONDS = 0.05
"""Time between two measurements of the event loop's lag."""

_UNREMARKABLE_LAG = 0.005

_SPARE_FILES = 64
"""File descriptors the process needs for things other than its clients."""


def _observe_nothing(request: Request, status: int, started: float) -> None:
    pass


class Server:
    """An HTTP/1.1 server for one application, on one event loop."""

    def __init__(
        self,
        app: Handler,
        limits: Limits | None = None,
        observe: Observe | None = None,
        origins: Collection[str] = (),
    ) -> None:
        """``origins`` are those whose pages may send requests and read the responses."""
        self._origins = origins
        app = self._opened(app)
        limits = limits or Limits()
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        most = max(1, min(limits.connections, files - _SPARE_FILES))
        self.state = ServerState(app, limits, observe or _observe_nothing, most, monotonic())
        self._empty = asyncio.Event()
        self.state.on_empty = self._empty.set
        self._listeners: list[asyncio.Server] = []
        self._sweep: asyncio.TimerHandle | None = None
        self._beat: asyncio.TimerHandle | None = None
        self._beat_due = self._late = 0.0
        self._on_loopback = False
        shortest = min(
            limits.idle_seconds,
            limits.header_seconds,
            limits.body_seconds,
            limits.write_seconds,
            limits.linger_seconds,
        )
        self._sweep_seconds = min(1.0, shortest / 4)

    def replace(self, app: Handler, observe: Observe) -> None:
        """Use another application from now on; requests in flight keep theirs."""
        self.state.app, self.state.observe = self._admitted(self._opened(app)), observe

    def _opened(self, app: Handler) -> Handler:
        return AllowedOrigins(app, self._origins) if self._origins else app

    def _admitted(self, app: Handler) -> Handler:
        if not self._on_loopback:
            return app
        if isinstance(app, AllowedOrigins):
            return LoopbackOnly(app, app.allowed)
        return LoopbackOnly(app)

    @property
    def draining(self) -> bool:
        """Whether the server is draining."""
        return self.state.draining

    @property
    def port(self) -> int:
        """The first listening port; if 0 was requested, the one that the system chose."""
        assert self._listeners, "call start() first"  # noqa: S101
        return int(self._listeners[0].sockets[0].getsockname()[1])

    @property
    def connections(self) -> int:
        """Number of open connections."""
        return len(self.state.connections)

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        """Listen, with TLS if there is a context. Raises OSError if the address is taken.

        On a loopback address, requests sent by web pages are refused. A server may listen on
        further ports of the same host.
        """
        self._loop = asyncio.get_running_loop()
        self.state.tick(monotonic())
        listener = await self._loop.create_server(
            lambda: Connection(self.state), host, port, backlog=1024, reuse_address=True, ssl=tls
        )
        for listening in listener.sockets:
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._listeners.append(listener)
        if len(self._listeners) > 1:
            return
        self._on_loopback = is_loopback(host)
        self.state.app = self._admitted(self.state.app)
        self._schedule()
        self._measure_lag()

    async def drain(
        self, notice_seconds: float, grace_seconds: float, hurry: asyncio.Event | None = None
    ) -> bool:
        """Stop without failing a request; return whether all were answered.

        First ``draining`` becomes true (readiness follows it) and every response says ``Connection:
        close``, while new connections are still accepted for ``notice_seconds``: load balancers
        need that long to notice. After that no connections are accepted, and requests in flight
        have ``grace_seconds``. ``hurry`` ends the notice early.
        """
        self.state.draining = True
        if notice_seconds > 0:
            hurry = hurry or asyncio.Event()
            await _wait(hurry, notice_seconds)
        for listener in self._listeners:
            listener.close()
        for connection in list(self.state.connections):
            connection.close_if_idle()
        if self.state.connections:
            self._empty.clear()
            await _wait(self._empty, grace_seconds)
        left = list(self.state.connections)
        for connection in left:
            connection.abort()
        for timer in (self._sweep, self._beat):
            if timer is not None:
                timer.cancel()
        return not left

    async def answer(self, request: Request) -> Response:
        """Answer a request that arrived in another way, with the same limits and observers."""
        state, size, started = self.state, len(request.body), perf_counter()
        request.waited = state.lag
        state.buffered += size
        try:
            if size > state.limits.body_bytes:
                raise HttpError(413, "the request's body is too large")
            if state.buffered > state.limits.buffered_bytes:
                raise HttpError(503, "the server is receiving too much data", (b"retry-after: 1",))
            response = await awaited(state.app(request))
        except Exception as error:  # noqa: BLE001  (the client gets a 500, the log the rest)
            response = state.failed(request, error)
        finally:
            state.buffered -= size
        state.observe(request, response.status, started)
        return response

    def _measure_lag(self) -> None:
        """Measure how late a timer fires: a request may have waited that long before it was read.

        One late timer is not an overload: the loop may have been blocked for a moment. The smaller
        of two measurements counts.
        """
        now = monotonic()
        late = now - self._beat_due if self._beat_due else 0.0
        late = late if late > _UNREMARKABLE_LAG else 0.0
        self.state.lag, self._late = min(late, self._late), late
        self._beat_due = now + _BEAT_SECONDS
        self._beat = self._loop.call_later(_BEAT_SECONDS, self._measure_lag)

    def _schedule(self) -> None:
        state, now = self.state, monotonic()
        late = now - state.now - self._sweep_seconds
        state.tick(now)
        for connection in list(self.state.connections):
            if late > self._sweep_seconds:
                # The loop was blocked (no CPU, a long computation). What clients sent in the
                # meantime has not been read yet, and that is not their fault.
                connection.postpone(late)
            else:
                connection.expire(now)
        self._sweep = self._loop.call_later(self._sweep_seconds, self._schedule)


async def _wait(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), None if seconds == inf else seconds)
    except TimeoutError:
        return False
    return True


async def run_until_signal(
    server: Server, notice_seconds: float = 1.0, grace_seconds: float = 20.0
) -> bool:
    """Serve until SIGTERM or SIGINT, then drain; return whether all requests were answered.

    SIGINT (a person at a terminal) and a second signal of either kind skip the notice; a third ends
    the grace period.
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
