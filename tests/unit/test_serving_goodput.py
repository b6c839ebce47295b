"""Goodput past saturation, in simulated time: the machine's own load has no part in it."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from fourways_http import ClientError, HttpError, Origin, OriginAnswer, Pool, Response, exchange
from fourways_runtime.v2 import batcher as batchers
from fourways_runtime.v2.batcher import Batcher
from fourways_runtime.v2.observed import ServingMetrics
from fourways_runtime.v2.parts import RequestOutcome, ScoredPart
from fourways_runtime.v2.request import InferenceRequest
from fourways_runtime.workloads.gateway.forward import MARGIN_SECONDS

CALL, ROW = 0.012, 0.0046
"""Seconds of a call and of each of its rows, as `make bench-overload`'s model takes."""

SECONDS = 3.0
NETWORK = 0.0005
"""Seconds from the gateway to the model server, and back."""


class Clock(selectors.DefaultSelector):
    """Lets time pass as soon as nothing is to be done before it."""

    now = 1.0

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "nothing would ever happen again"
        self.now += max(0.0, timeout)
        return super().select(0)


class Simulation(asyncio.SelectorEventLoop):
    """An event loop whose time is that of its next event, and whose model takes no real time."""

    def __init__(self) -> None:
        self.clock = Clock()
        super().__init__(self.clock)
        self.servers: dict[int, Callable[[asyncio.Protocol], Any]] = {}

    def time(self) -> float:
        return self.clock.now

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, do: Callable[..., Any], *args: Any
    ) -> Any:
        done = self.create_future()
        rows = args[1]
        outcomes = do(*args)[0]
        took = CALL + ROW * rows
        self.call_later(took, lambda: done.set_result((outcomes, took, took)))
        return done

    async def until(self, when: float) -> None:
        passed = self.create_future()
        self.call_at(when, passed.set_result, None)
        await passed

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        return [(0, 0, 0, "", (host, port))]

    async def create_connection(  # type: ignore[override]
        self, made: Any, host: Any, port: Any, **options: Any
    ) -> Any:
        await self.until(self.time() + 2 * NETWORK)
        protocol = made()
        transport = self.servers[port](protocol)
        protocol.connection_made(transport)
        return transport, protocol


class Connection(asyncio.Transport):
    """A connection to a simulated model server: requests in, HTTP responses out."""

    def __init__(self, loop: Simulation, batcher: Batcher, client: asyncio.Protocol) -> None:
        super().__init__()
        self._loop, self._batcher, self._client = loop, batcher, client
        self._promise: Any = None
        self._closed = False

    def is_closing(self) -> bool:
        return self._closed

    def write(self, data: Any) -> None:
        self._loop.call_later(NETWORK, self._ask, bytes(data))

    def _ask(self, data: bytes) -> None:
        told = data.partition(b"x-request-timeout: ")[2].partition(b"\r\n")[0]
        try:
            self._promise = asked(self._batcher, float(told) if told else None)
        except HttpError:
            self._answer(503)
            return
        self._promise.then(lambda response, error: self._answer(503 if error else 200))

    def _answer(self, status: int) -> None:
        text = b"HTTP/1.1 %d X\r\ncontent-length: 2\r\n\r\nok" % status
        self._loop.call_later(NETWORK, self._deliver, text)

    def _deliver(self, text: bytes) -> None:
        if not self._closed:
            self._client.data_received(text)

    def abort(self) -> None:
        if not self._closed:
            self._closed = True
            if self._promise is not None:
                self._promise.abandoned = True
            self._loop.call_soon(self._client.connection_lost, None)

    def close(self) -> None:
        self.abort()


class Scorer:
    def score(self, asked: Sequence[Any]) -> list[RequestOutcome]:
        return [ScoredPart({}, 0, one.rows, {}) for one in asked]


def asked(batcher: Batcher, timeout: float | None) -> Any:
    one = InferenceRequest(1, None, None, False, None, None, {})
    return batcher.ask(one, None, timeout)


def model_server(timeout: float) -> Batcher:
    return Batcher(
        Scorer(),  # type: ignore[arg-type]
        lambda inference, part: Response(b"ok"),
        ServingMetrics(CollectorRegistry()),
        max_rows=1024,
        warm_up=[(1, CALL + ROW), (8, CALL + 8 * ROW)],
        timeout=timeout,
    )


@contextmanager
def simulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulation]:
    loop = Simulation()
    for module in (batchers, exchange):
        monkeypatch.setattr(module, "monotonic", loop.time)
    with asyncio.Runner(loop_factory=lambda: loop):
        asyncio.set_event_loop(loop)
        yield loop


async def direct(rate: float, limit: float) -> float:
    """Return the answers in time a second if requests of one row come at a steady rate."""
    batcher = model_server(limit)

    async def ask() -> bool:
        done = asyncio.get_running_loop().create_future()
        try:
            promise = asked(batcher, None)
        except HttpError:
            return False
        promise.then(lambda response, error: done.set_result(error is None))
        return bool(await done)

    good = await at_rate(rate, limit, ask)
    batcher.close()
    return good


async def through_gateway(rate: float, limit: float) -> float:
    """Return the same for clients of a gateway in front of the model server, who leave when due."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Simulation)
    batcher = model_server(limit)
    loop.servers[1] = lambda client: Connection(loop, batcher, client)
    pool = Pool(
        Origin.parse("http://model:1"),
        limit + MARGIN_SECONDS,
        lambda error: error,
        slack_seconds=MARGIN_SECONDS,
    )

    def good(answer: OriginAnswer) -> bool:
        return answer.status == 200

    async def ask() -> bool:
        try:
            async with asyncio.timeout(limit):
                return await pool.ask(b"POST", b"/infer", (), b"{}", good)
        except (ClientError, TimeoutError):
            return False

    told = await at_rate(rate, limit, ask)
    await pool.close()
    batcher.close()
    return told


async def at_rate(rate: float, limit: float, ask: Callable[[], Coroutine[Any, Any, bool]]) -> float:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Simulation)
    good, began = 0, loop.time()
    tasks = []

    async def one() -> None:
        nonlocal good
        sent = loop.time()
        answered = await ask()
        good += answered and loop.time() - sent <= limit

    for n in range(int(rate * SECONDS)):
        await loop.until(began + n / rate)
        tasks.append(asyncio.ensure_future(one()))
    await asyncio.gather(*tasks)
    return good / SECONDS


@pytest.mark.thorough
@pytest.mark.parametrize("timeout", [0.1, 0.5])
@pytest.mark.parametrize("way", [direct, through_gateway])
def test_goodput_does_not_fall_past_saturation(
    way: Callable[[float, float], Coroutine[Any, Any, float]],
    monkeypatch: pytest.MonkeyPatch,
    timeout: float,
) -> None:
    capacity = 1 / (CALL / 16 + ROW)
    curve = {}
    for load in (0.5, 1, 2, 5, 10):
        with simulated(monkeypatch) as loop:
            curve[load] = loop.run_until_complete(way(load * capacity, timeout))
    peak = max(curve.values())
    assert peak > 0.95 * capacity
    assert curve[0.5] == pytest.approx(capacity / 2, rel=0.02), "nobody is refused below capacity"
    for load in (1, 2, 5, 10):
        assert curve[load] >= 0.85 * min(peak, load * capacity), curve
