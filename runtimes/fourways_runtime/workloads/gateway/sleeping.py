"""Real-time deployments that scale to zero: requests wait until a replica is ready.

Owns the requests that are held, within bounds of time, bytes and number, and the question whether a
replica answers. It takes the deployment for awake until a connection is refused: nobody has to tell
it. A request is only passed on to a replica that says that it is ready, and held again if it cannot
be reached after all; a request that a replica may have seen is never sent again. Where the spec
says so, a stored prediction answers a request by entity key meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from ssl import SSLContext
from typing import Any

from prometheus_client import Counter

from fourways_api import Route
from fourways_http import (
    ByteRoom,
    ClientError,
    HttpError,
    Origin,
    OriginAnswer,
    OriginUnreachable,
    Pool,
    Request,
    Response,
    json_response,
)
from fourways_http.message import Answer, awaited
from fourways_runtime.v2.deadline import timeout_of

from .batch import BatchHandler
from .demand import DemandBoard
from .forward import RealtimeHandler
from .mode import RETRY, hold_version
from .observed import UpstreamGauges

PROBE_SECONDS = 1.0
"""A replica that does not answer the probe within this time is not ready."""

PAUSE_SECONDS, LONG_PAUSE_SECONDS = 0.02, 0.2
"""Time between two probes; the longer one after ``PATIENCE_SECONDS``."""

PATIENCE_SECONDS = 10.0
MAX_HELD = 4096
"""Requests that one deployment holds at most."""


class _Unreachable(Exception):
    """No replica took the request."""


class _Call:
    """A request on its way to a replica."""

    __slots__ = ("answer", "args", "expires", "inner", "stored", "timer", "within")

    def __init__(
        self, args: tuple[Any, ...], within: float, expires: float, answer: asyncio.Future[Response]
    ) -> None:
        self.args = args
        self.within = within  # when its client gives it up, in the loop's time
        self.expires = expires  # until when it may wait for a replica
        self.answer = answer
        self.inner: asyncio.Future[Response] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.stored: Callable[[], Answer] | None = None  # looks for a stored prediction

    @property
    def size(self) -> int:
        return len(self.args[3])


class SleepingHandler(RealtimeHandler):
    """Answers requests for one deployment that scales to zero, on the running event loop."""

    hold_seconds = 0.0  # what refuses a connection sleeps: it is held here, and not in the pool

    def __init__(
        self,
        route: Route,
        upstream: UpstreamGauges,
        faults: Counter,
        board: DemandBoard,
        room: ByteRoom,
        stored: BatchHandler | None,
        tls: Callable[[], SSLContext] | None = None,
        arriving: ByteRoom | None = None,
    ) -> None:
        """``stored`` answers by published runs while a replica starts; None: requests wait."""
        assert route.wake is not None, "the route says how its requests wait"  # noqa: S101
        super().__init__(route, upstream, faults, tls, arriving)
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._patience = route.wake.timeout_seconds
        self._demand = board.add(route.deployment, route.wake.idle_seconds)
        self._cold_starts = board.cold_starts.labels(route.deployment)
        self._expired = board.expired.labels(route.deployment)
        self._room = room
        self._stored = stored
        self._looks: Callable[[], Answer] | None = None
        self._looking: set[asyncio.Task[None]] = set()
        self._owed_until = -inf
        self._awake = False
        self._closing = False
        self._held: dict[_Call, None] = {}
        self._waking: asyncio.Task[None] | None = None
        self._prober: Pool | None = None

    def _in_flight(self) -> int:
        return super()._in_flight() + len(self._held)

    async def close(self) -> None:
        """Cancel everything in progress."""
        self._closing = True
        if self._waking is not None:
            self._waking.cancel()
        for task in self._looking:
            task.cancel()
        for call in list(self._held):
            self._let_go(call)
            self._fail(call, HttpError(503, "the gateway stops", RETRY))
        if self._prober is not None:
            await self._prober.close()
        await super().close()

    def model_ready(self, request: Request) -> Awaitable[Response]:
        """Return that the model is ready, also while it sleeps. It is not woken."""
        hold_version(request, self._route)
        return self._is_ready()

    async def _is_ready(self) -> Response:
        asked = self._reached().ask(b"GET", self._base + b"/ready", (), b"", self._passed)
        try:
            return await asked
        except _Unreachable:
            return json_response({"name": self._name, "ready": True, "asleep": True})

    # ---- requests

    def infer(self, request: Request) -> asyncio.Future[Response]:
        """Forward an inference request, once there is a replica."""
        if self._stored is None:
            return super().infer(request)
        stored = self._stored
        return self._looking_up(lambda: stored.infer(request), super().infer, request)

    def prediction(self, request: Request) -> asyncio.Future[Response]:
        """Request a prediction for one entity, once there is a replica."""
        if self._stored is None:
            return super().prediction(request)
        stored = self._stored
        return self._looking_up(lambda: stored.prediction(request), super().prediction, request)

    def _looking_up(
        self,
        stored: Callable[[], Answer],
        forward: Callable[[Request], asyncio.Future[Response]],
        request: Request,
    ) -> asyncio.Future[Response]:
        self._looks = stored  # for _send, which forward calls before it returns
        try:
            return forward(request)
        finally:
            self._looks = None

    def _within(self, request: Request) -> float | None:
        given = timeout_of(request)
        return None if given is None else given - request.waited

    def _send(
        self,
        method: bytes,
        target: bytes,
        headers: Sequence[bytes],
        body: bytes,
        then: Callable[[OriginAnswer], Response],
        within: float | None = None,
    ) -> asyncio.Future[Response]:
        self._reached()
        now = self._loop.time()
        until = inf if within is None else now + within
        answer: asyncio.Future[Response] = self._loop.create_future()
        args = (method, target, headers, body, then)
        call = _Call(args, until, min(until, now + self._patience), answer)
        call.stored = self._looks
        self._demand.begin()
        answer.add_done_callback(lambda _: self._ended(call))
        if self._awake:
            self._pass_on(call)
        else:
            self._hold(call)
        return answer

    def _ended(self, call: _Call) -> None:
        """Account for a request that is answered, or whose client has gone."""
        self._demand.end()
        self._let_go(call)
        if call.inner is not None and not call.inner.done():
            call.inner.cancel()

    def _pass_on(self, call: _Call) -> None:
        left = None if call.within == inf else call.within - self._loop.time()
        try:
            method, target, headers, body, then = call.args
            inner = self._reached().ask(method, target, headers, body, then, left)
        except HttpError as error:
            self._fail(call, error)
            return
        call.inner = inner
        inner.add_done_callback(lambda _: self._answered(call, inner))

    def _answered(self, call: _Call, inner: asyncio.Future[Response]) -> None:
        if call.answer.done() or inner.cancelled():
            call.answer.cancel()
            return
        error = inner.exception()
        if error is None:
            call.answer.set_result(inner.result())
        elif isinstance(error, _Unreachable):
            self._awake = False
            self._hold(call)
        else:
            call.answer.set_exception(error)

    def _explain(self, error: ClientError) -> Exception:
        if isinstance(error, OriginUnreachable) and not self._closing:
            return _Unreachable()
        return super()._explain(error)

    def _fail(self, call: _Call, error: Exception) -> None:
        if not call.answer.done():
            call.answer.set_exception(error)

    # ---- waiting for a replica

    def _hold(self, call: _Call) -> None:
        if len(self._held) >= MAX_HELD or not self._room.take(call.size):
            self._fail(call, HttpError(503, "too many requests wait for a replica", RETRY))
            return
        self._held[call] = None
        call.timer = self._loop.call_at(call.expires, self._expire, call)
        if call.stored is not None:
            task = self._loop.create_task(self._look(call, call.stored))
            self._looking.add(task)
            task.add_done_callback(self._looking.discard)
            call.stored = None
        if self._waking is None or self._waking.done():
            self._waking = self._loop.create_task(self._wake())

    async def _look(self, call: _Call, stored: Callable[[], Answer]) -> None:
        """Answer a request that is held from the store, if that has what it asks for."""
        if not self._demand.waiting and await self._replica_is_ready():
            return
        try:
            response = await awaited(stored())
        except HttpError:
            return  # nothing stored, another version, inputs of its own: it waits
        if not call.answer.done() and call in self._held:
            age = self._stored.age_seconds(self._name) if self._stored is not None else None
            response.headers = (*response.headers, b"age: %d" % (age or 0))
            self._owed_until = self._loop.time() + self._patience
            call.answer.set_result(response)

    def _let_go(self, call: _Call) -> None:
        if call in self._held:
            del self._held[call]
            self._room.give(call.size)
        if call.timer is not None:
            call.timer.cancel()
            call.timer = None

    def _expire(self, call: _Call) -> None:
        self._let_go(call)
        self._expired.inc()
        self._fail(call, HttpError(503, "no replica was ready in time: one is starting", RETRY))

    async def _wake(self) -> None:
        """Ask for a replica for as long as requests wait; let them go once it is ready."""
        began = self._loop.time()
        while self._held or self._loop.time() < self._owed_until:
            if await self._replica_is_ready():
                self._release(self._loop.time() - began if self._demand.waiting else None)
                return
            # What the store has answered asks for a replica as well.
            self._demand.waiting = max(1, len(self._held))
            waited = self._loop.time() - began
            await asyncio.sleep(PAUSE_SECONDS if waited < PATIENCE_SECONDS else LONG_PAUSE_SECONDS)
        self._demand.waiting = 0

    def _release(self, cold_start: float | None) -> None:
        """Pass on what waits. ``cold_start`` is None if there was a replica all the time."""
        self._awake, self._owed_until = True, -inf
        if cold_start is not None:
            self._demand.woken(cold_start)
            self._cold_starts.observe(cold_start)
        for call in list(self._held):
            self._let_go(call)
            self._pass_on(call)

    async def _replica_is_ready(self) -> bool:
        assert self._route.url is not None, "_send has looked"  # noqa: S101
        if self._prober is None:
            origin = Origin.parse(self._route.url)
            explain: Callable[[ClientError], Exception] = lambda _: _Unreachable()  # noqa: E731
            self._prober = Pool(
                origin, PROBE_SECONDS, explain, connections=1, hold_seconds=0.0, tls=self._tls
            )
        try:
            status: int = await self._prober.ask(
                b"GET", b"/v2/health/ready", (), b"", lambda answer: answer.status
            )
        except _Unreachable:
            return False
        return status == 200
