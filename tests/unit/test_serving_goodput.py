"""Goodput past saturation, in simulated time: the machine's own load has no part in it."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from fourways_http import HttpError, Promise, Response
from fourways_runtime.v2 import batcher as batchers
from fourways_runtime.v2.batcher import Batcher
from fourways_runtime.v2.observed import ServingMetrics
from fourways_runtime.v2.request import InferenceRequest
from fourways_runtime.v2.scorer import RequestOutcome, ScoredPart

CALL, ROW = 0.012, 0.0046
"""Seconds of a call and of each of its rows, as `make bench-overload`'s model takes."""

SECONDS = 10.0


class Simulation:
    """An event loop whose time is that of its next event."""

    def __init__(self) -> None:
        self.now = 1.0
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0

    def at(self, when: float, do: Callable[[], object]) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, do))

    def call_soon(self, do: Callable[..., object], *args: Any, context: Any = None) -> None:
        self.at(self.now, lambda: do(*args))

    def call_later(self, seconds: float, do: Callable[..., object], *args: Any) -> Any:
        timer = asyncio.TimerHandle(0, do, args, self)  # type: ignore[arg-type]
        self.at(self.now + seconds, lambda: None if timer.cancelled() else do(*args))
        return timer

    def get_debug(self) -> bool:
        return False

    def _timer_handle_cancelled(self, timer: object) -> None:
        pass

    def run_in_executor(self, executor: object, do: Callable[..., object], *args: Any) -> Any:
        done: asyncio.Future[Any] = asyncio.Future(loop=self)  # type: ignore[arg-type]
        rows = args[1]
        outcomes = do(*args)[0]  # type: ignore[index]
        took = CALL + ROW * rows
        self.at(self.now + took, lambda: done.set_result((outcomes, took, took)))
        return done

    def call_exception_handler(self, context: Any) -> None:
        raise AssertionError(context)

    def run(self) -> None:
        while self._events:
            self.now, _, do = heapq.heappop(self._events)
            do()


class Scorer:
    def score(self, asked: Sequence[Any]) -> list[RequestOutcome]:
        return [ScoredPart({}, 0, one.rows, {}) for one in asked]


def goodput(monkeypatch: pytest.MonkeyPatch, rate: float, timeout: float) -> float:
    """Return the answers in time a second if requests of one row come at a steady rate."""
    world = Simulation()
    monkeypatch.setattr(batchers, "monotonic", lambda: world.now)
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: world)
    batcher = Batcher(
        Scorer(),  # type: ignore[arg-type]
        lambda inference, part: Response(b"ok"),
        ServingMetrics(CollectorRegistry()),
        max_rows=1024,
        warm_up=[(1, CALL + ROW), (8, CALL + 8 * ROW)],
        timeout=timeout,
    )
    good = 0

    def ask() -> None:
        sent = world.now

        def told(response: Response | None, error: Exception | None) -> None:
            nonlocal good
            good += response is not None and world.now - sent <= timeout

        try:
            promise: Promise = batcher.ask(InferenceRequest(1, None, None, False, None, None, {}))
        except HttpError:
            return
        promise.then(told)

    for n in range(int(rate * SECONDS)):
        world.at(1.0 + n / rate, ask)
    world.run()
    batcher.close()
    return good / SECONDS


@pytest.mark.parametrize("timeout", [0.1, 0.5])
def test_goodput_does_not_fall_past_saturation(
    monkeypatch: pytest.MonkeyPatch, timeout: float
) -> None:
    capacity = 1 / (CALL / 16 + ROW)
    curve = [goodput(monkeypatch, load * capacity, timeout) for load in (0.5, 0.8, 1, 2, 5, 10)]
    assert max(curve) > 0.95 * capacity
    assert curve[0] == pytest.approx(capacity / 2, rel=0.02), "nobody is refused below capacity"
    assert min(curve[2:]) >= 0.85 * max(curve), curve
