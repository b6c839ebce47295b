"""Demand for deployments that scale to zero, as this gateway sees it.

Owns what is counted, and the path on which the operator or the embedded host waits for news. The
gateway scales nothing itself: it has no rights to, and what it reports are numbers of requests.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import suppress
from math import inf

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from fourways_api.demand import MAX_WAIT_SECONDS, DeploymentDemand, GatewayDemand
from fourways_http import HttpError, Request, Response

from .views import rfc3339_now

MAX_READERS = 64
"""Readers that may wait at the same time; beyond it, they are answered at once."""

BUCKETS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)


class DemandRecord:
    """The requests for one deployment since this gateway started."""

    def __init__(self, name: str, idle_seconds: float, on_change: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._name = name
        self._idle_seconds = idle_seconds
        self._on_change = on_change
        self._open = 0
        # A gateway that has just started does not know how long there was no request.
        self._last = self._loop.time()
        self._waiting = 0
        self._cold_start: float | None = None
        self._woken_at: str | None = None

    def begin(self) -> None:
        """Count a request that has come."""
        self._open += 1

    def end(self) -> None:
        """Count a request that was answered or given up."""
        self._open -= 1
        self._last = self._loop.time()

    @property
    def waiting(self) -> int:
        """Requests that wait for a replica."""
        return self._waiting

    @waiting.setter
    def waiting(self, count: int) -> None:
        news = (count > 0) is not (self._waiting > 0)
        self._waiting = count
        if news:
            self._on_change()

    def woken(self, seconds: float) -> None:
        """Note that a replica is ready, and how long its first request waited."""
        self._cold_start, self._woken_at = seconds, rfc3339_now()
        self.waiting = 0

    def idle_in(self) -> float:
        """Return in how many seconds it will be idle without a request; 0: it is."""
        if self._open or self._waiting:
            return inf
        return max(0.0, self._last + self._idle_seconds - self._loop.time())

    def to_report(self) -> DeploymentDemand:
        """Return what the operator and KEDA read."""
        return DeploymentDemand(
            deployment=self._name,
            waiting=self._waiting,
            idle=self.idle_in() == 0.0,
            cold_start_seconds=self._cold_start,
            woken_at=self._woken_at,
        )


class DemandBoard:
    """The records of all deployments of a gateway that scale to zero, and their readers."""

    def __init__(self, registry: CollectorRegistry, draining: Callable[[], bool]) -> None:
        self._records: dict[str, DemandRecord] = {}
        self._draining = draining
        self._news = asyncio.Event()
        self._readers = 0
        self.cold_starts = Histogram(
            "fourways_cold_start_seconds",
            "From the first request for a sleeping deployment until a replica is ready.",
            ("deployment",),
            buckets=BUCKETS,
            registry=registry,
        )
        self.held = Gauge(
            "fourways_requests_held",
            "Requests that wait for a replica of a sleeping deployment.",
            ("deployment",),
            registry=registry,
        )
        self.expired = Counter(
            "fourways_held_requests_expired",
            "Requests that waited for a replica and were given up.",
            ("deployment",),
            registry=registry,
        )

    def add(self, name: str, idle_seconds: float) -> DemandRecord:
        """Return the record of a deployment."""
        record = self._records[name] = DemandRecord(name, idle_seconds, self._tell)
        self.held.labels(name).set_function(lambda: float(record.waiting))
        return record

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def report(self, request: Request) -> Response:
        """Answer ``/demand?mark=MARK&wait=SECONDS``: at once, or once MARK no longer names it."""
        query = request.query
        known, patience = query.get("mark"), _seconds(query.get("wait"))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        found = self._report(request)
        if known != found.mark or self._readers >= MAX_READERS:
            return _response(found)
        self._readers += 1
        try:
            while found.mark == known and not self._draining():
                left = deadline - loop.time()
                if left <= 0.0:
                    break
                await self._change(min(left, self._next_idle()))
                found = self._report(request)
        finally:
            self._readers -= 1
        return _response(found)

    def _next_idle(self) -> float:
        due = [record.idle_in() for record in self._records.values()]
        # What is idle already has been reported.
        return min((seconds for seconds in due if seconds > 0.0), default=inf) + 0.001

    async def _change(self, seconds: float) -> None:
        # Within a second, since the gateway may begin to drain.
        with suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), min(seconds, 1.0))

    def _report(self, request: Request) -> GatewayDemand:
        seen = (record for name, record in self._records.items() if request.sees(name))
        found = tuple(record.to_report() for record in seen)
        states = repr([(d.deployment, d.waiting > 0, d.idle, d.woken_at) for d in found])
        mark = hashlib.sha256(states.encode()).hexdigest()[:16]
        return GatewayDemand(mark=mark, deployments=found)


def _seconds(text: str | None) -> float:
    try:
        seconds = float(text or "0")
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds <= MAX_WAIT_SECONDS:
        raise HttpError(400, f"wait: must be seconds from 0 to {MAX_WAIT_SECONDS:g}")
    return seconds


def _response(found: GatewayDemand) -> Response:
    return Response(found.model_dump_json().encode())
