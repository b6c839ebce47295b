"""HTTP client: pooled connections to one origin, one request at a time on each.

Owns connecting, waiting for a free connection, timeouts, and the retry when the server had already
closed a pooled connection. Waiting is bounded by time: a request that, judging by how fast
connections have become free lately, would not get one in time is rejected on arrival; one that
waited tells the server how much time is left (``X-Request-Timeout``); and one whose caller has gone
is dropped. This is the hot path of the prediction plane: no task, timer or coroutine per request,
as on the server side. A request is resent only if its pooled connection ends at once: a request
that ended its server (a model that hangs or crashes on it) is not passed to the next one. Requests
must be idempotent, because the client cannot know whether the server saw a resent request the first
time.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import TypeVar, cast
from urllib.parse import urlsplit

from .exchange import (
    MAX_ANSWER_BYTES,
    ByteRoom,
    ClientError,
    Exchange,
    Job,
    OriginAnswer,
    OriginUnreachable,
    TimedOut,
)

T = TypeVar("T")

CONNECTIONS = 64
"""Maximum open connections to one origin."""

MAX_WAITING = 8192
"""Maximum requests that wait for a connection; time limits them long before."""

_WEIGHT = 0.1
"""Weight of the newest sample in the average time between two connections becoming free."""

LIFETIME_SECONDS = 60.0
"""A connection older than this is replaced, so that new servers get their share."""

IDLE_SECONDS = 30.0
"""A connection idle for this long is closed, before the server does it."""

CONNECT_SECONDS = 1.0
"""Timeout for connecting to one address."""

HOLD_SECONDS = 2.0
"""How long requests are held while an origin that has never been reached cannot be."""

HOLD_PAUSE_SECONDS = 0.05

_ADDRESSES = 3
_FAST, _SLOW = 0.05, 5.0


class TooManyWaiting(ClientError):
    """All connections are busy, and the maximum number of requests is waiting."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A server's parsed address. ``prefix`` is prepended to each target."""

    host: str
    port: int
    secure: bool
    authority: bytes
    prefix: bytes

    @classmethod
    def parse(cls, url: str) -> Origin:
        """Parse an http or https URL. Raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("not an http or https URL")
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        authority = parts.netloc.rpartition("@")[2].encode("ascii")
        return cls(parts.hostname, port, secure, authority, parts.path.rstrip("/").encode())


class Pool:
    """Connections to one origin, on the running event loop."""

    def __init__(
        self,
        origin: Origin,
        timeout_seconds: float,
        explain: Callable[[ClientError], Exception],
        *,
        connections: int = CONNECTIONS,
        max_waiting: int = MAX_WAITING,
        lifetime_seconds: float = LIFETIME_SECONDS,
        slack_seconds: float = 0.0,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        hold_seconds: float = HOLD_SECONDS,
        tls: Callable[[], ssl.SSLContext] | None = None,
        room: ByteRoom | None = None,
    ) -> None:
        """Create an empty pool; ``explain`` converts a ClientError to the future's exception.

        ``slack_seconds`` of a timeout are reserved for the network: the server is given less.
        ``hold_seconds`` is how long requests are held for an origin that was never reached.
        ``tls`` returns the context of each new connection to an https origin, and may raise
        OSError; without it, the authorities of the system are trusted. Several pools may share
        ``room`` for the responses that arrive.
        """
        self.loop = asyncio.get_running_loop()
        self.explain = explain
        self.reused = 0
        self.retried = 0
        self._origin = origin
        self._timeout = timeout_seconds
        self._most = connections
        self._max_waiting = max_waiting
        self._lifetime = lifetime_seconds
        self._slack = slack_seconds
        self.max_answer_bytes = max_answer_bytes
        self.room = room
        self._hold_seconds = hold_seconds
        self._gap = 0.0  # average time between connections becoming free while requests wait
        self._freed_at = 0.0
        self._tls = (tls or _constant(ssl.create_default_context())) if origin.secure else None
        self._open: set[Exchange] = set()
        self._idle: deque[Exchange] = deque()
        self._waiting: deque[Job] = deque()
        self._connecting: set[asyncio.Task[None]] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._active = False  # a request was sent since the last sweep
        self._fast = False
        self._closed = False
        self._never_reached = True
        self._hold_until: float | None = None
        self._tick = max(0.01, min(_FAST, timeout_seconds / 10))

    @property
    def busy(self) -> int:
        """Number of requests in flight or waiting."""
        return len(self._open) - len(self._idle) + len(self._waiting)

    @property
    def connections(self) -> int:
        """Number of open connections."""
        return len(self._open)

    def ask(
        self,
        method: bytes,
        target: bytes,
        headers: Sequence[bytes],
        body: bytes,
        then: Callable[[OriginAnswer], T],
        timeout: float | None = None,
    ) -> asyncio.Future[T]:
        """Send a request; the returned future holds the result of ``then`` for the response.

        ``headers`` are whole lines without line end. ``timeout`` (s) is the client's own, if it is
        shorter. Raises the explained exception if too many requests are waiting already. Cancel the
        future to abandon the request.
        """
        origin = self._origin
        lines = [
            b"%b %b%b HTTP/1.1\r\nhost: %b" % (method, origin.prefix, target, origin.authority),
            *headers,
        ]
        if body or method == b"POST":
            lines.append(b"content-length: %d" % len(body))
        future: asyncio.Future[T] = self.loop.create_future()
        now = self.loop.time()
        within = self._timeout
        if timeout is not None:
            if timeout <= 0.0:
                raise self.explain(TooManyWaiting())
            within = min(within, timeout + self._slack)
            lines.append(b"x-request-timeout: %.3f" % timeout)
        deadline = now + within
        job = Job(b"\r\n".join((*lines, b"\r\n")), body, future, then, deadline)
        self._active = True
        if not self._fast:
            self._hasten()
        exchange = self._take() if not self._waiting else None
        if exchange is not None:
            self.reused += 1
            exchange.start(job)
            return future
        if (
            self._closed
            or len(self._waiting) >= self._max_waiting
            or (len(self._waiting) + 1) * self._gap > within - self._slack
        ):
            raise self.explain(TooManyWaiting())
        self._waiting.append(job)
        self._connect()
        return future

    async def close(self) -> None:
        """Abandon the requests in flight and close all connections."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for task in self._connecting:
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        for exchange in list(self._open):
            exchange.abort(OriginUnreachable())
        while self._waiting:
            self._fail(self._waiting.popleft(), OriginUnreachable())

    # ---- callbacks of exchanges

    def release(self, exchange: Exchange) -> None:
        """Take back a free connection; the request that has waited longest gets it."""
        now = self.loop.time()
        if self._waiting:
            if self._freed_at:
                gap = now - self._freed_at
                self._gap += (gap - self._gap) * (_WEIGHT if self._gap else 1.0)
            self._freed_at = now
        else:
            self._gap = self._freed_at = 0.0
        if self._closed or exchange.closing or now > exchange.expires:
            exchange.close()
            return
        job = self._next(now) if self._waiting else None
        if job is not None:
            exchange.start(job)
        else:
            exchange.idle_since = now
            self._idle.append(exchange)

    def _next(self, now: float) -> Job | None:
        """Return the longest-waiting request that has a caller and time left."""
        while self._waiting:
            job = self._waiting.popleft()
            left = job.deadline - self._slack - now
            if job.future.done():
                continue
            if left <= 0.0:
                self._fail(job, TooManyWaiting())
                continue
            if self._slack and job.waits:
                header = b"x-request-timeout: %.3f\r\n\r\n" % left
                job.head = _without_timeout(job.head) + header
            return job
        return None

    def lost(self, exchange: Exchange) -> None:
        """Forget a connection that has ended."""
        self._open.discard(exchange)
        if exchange.job is None and exchange in self._idle:
            self._idle.remove(exchange)
        if self._waiting:
            self._connect()

    def again(self, job: Job) -> None:
        """Resend a request on a new connection: the server had closed the pooled one.

        It has most likely closed the others too.
        """
        self.retried += 1
        job.retried = True
        while self._idle:
            self._idle.popleft().close()
        self._waiting.appendleft(job)
        self._connect()

    # ---- connections

    def _take(self) -> Exchange | None:
        """Return the connection idle longest, so that all servers behind the name are used."""
        while self._idle:
            exchange = self._idle.popleft()
            if not exchange.closing and self.loop.time() <= exchange.expires:
                return exchange
            exchange.close()
        return None

    def _connect(self) -> None:
        """Open one connection per waiting request."""
        if self._closed:
            return
        wanted = min(len(self._waiting), self._most - len(self._open)) - len(self._connecting)
        for _ in range(wanted):
            task = self.loop.create_task(self._connect_once())
            self._connecting.add(task)
            task.add_done_callback(self._connected)

    def _connected(self, task: asyncio.Task[None]) -> None:
        self._connecting.discard(task)
        if self._waiting:
            self._connect()

    async def _connect_once(self) -> None:
        """Connect for the request that has waited longest, or fail it."""
        try:
            exchange = await self._opened()
        except (OSError, TimeoutError) as error:
            if self._waiting and not await self._held():
                self._fail(self._waiting.popleft(), OriginUnreachable(_cause(error)))
            return
        self._never_reached = False
        self._open.add(exchange)
        job = self._next(self.loop.time()) if not self._closed else None
        if job is not None:
            exchange.start(job)
        else:
            self.release(exchange)

    async def _held(self) -> bool:
        """Wait a moment, and return whether the request that has waited longest may wait on.

        A name may not resolve, or a new Service not be programmed on every node, for about a second
        after its first server is ready. No request was sent, so another attempt repeats nothing.
        """
        now = self.loop.time()
        if self._hold_until is None:
            self._hold_until = now + self._hold_seconds
        if not self._never_reached or now >= self._hold_until:
            return False
        await asyncio.sleep(HOLD_PAUSE_SECONDS)
        deadline = self._waiting[0].deadline if self._waiting else inf
        # Rather too early than after the deadline, which would be taken for a slow server.
        return self.loop.time() + 3 * HOLD_PAUSE_SECONDS < deadline

    async def _opened(self) -> Exchange:
        """Connect to one of the name's addresses, in random order to spread the load."""
        origin, loop = self._origin, self.loop
        tls = self._tls() if self._tls else None
        found = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(info[4][0] for info in found))
        random.shuffle(addresses)
        expires = loop.time() + self._lifetime * random.uniform(0.8, 1.2)  # noqa: S311
        for last, address in enumerate(addresses[:_ADDRESSES], 1 - len(addresses[:_ADDRESSES])):
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    _, exchange = await loop.create_connection(
                        lambda: Exchange(self, expires),
                        str(address),
                        origin.port,
                        ssl=tls,
                        server_hostname=origin.host if tls else None,
                    )
                    return exchange
            except (OSError, TimeoutError):
                if last == 0:
                    raise
        raise OSError("the name has no address")

    def _fail(self, job: Job, error: ClientError) -> None:
        future = cast("asyncio.Future[object]", job.future)
        if not future.done():
            future.set_exception(self.explain(error))

    # ---- timeouts

    def _hasten(self) -> None:
        self._fast = True
        if self._sweep is not None:
            self._sweep.cancel()
        self._sweep = self.loop.call_later(self._tick, self._look)

    def _look(self) -> None:
        """Abort what takes too long; close idle connections. One timer serves all requests."""
        now = self.loop.time()
        for exchange in [e for e in self._open if e.job is not None]:
            job = exchange.job
            if job is not None and (job.deadline < now or job.future.cancelled()):
                exchange.abort(TimedOut())  # closing the connection is how the server learns of it
        for _ in range(len(self._waiting)):
            job = self._waiting.popleft()
            if job.deadline < now:
                self._fail(job, TimedOut())
            elif not job.future.done():
                job.waits = True
                self._waiting.append(job)
        for exchange in [
            e for e in self._idle if e.expires < now or e.idle_since + IDLE_SECONDS < now
        ]:
            self._idle.remove(exchange)
            exchange.close()
        self._fast = self._active or self.busy > 0
        self._active = False
        if self._fast or self._open:
            self._sweep = self.loop.call_later(self._tick if self._fast else _SLOW, self._look)
        else:
            self._sweep = None


def _constant(context: ssl.SSLContext) -> Callable[[], ssl.SSLContext]:
    return lambda: context


def _cause(error: Exception) -> str:
    """Say why there is no connection, in words of this side: never the server's."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not accepted: {error.verify_message}"
    return type(error).__name__


def _without_timeout(head: bytes) -> bytes:
    """Return a head without its final empty line and without the client's timeout header."""
    start = head.rfind(b"\r\nx-request-timeout: ")
    if start < 0:
        return head[:-2]
    return head[: start + 2] + head[head.find(b"\r\n", start + 2) + 2 : -2]
