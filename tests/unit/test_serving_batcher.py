"""Which requests are scored together, where, and which are refused: queue in, batches out."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from fourways_http import HttpError, Promise, Response
from fourways_runtime.v2 import batcher as batchers
from fourways_runtime.v2 import placement
from fourways_runtime.v2.batch_times import BatchTimes
from fourways_runtime.v2.batcher import Batcher
from fourways_runtime.v2.observed import ServingMetrics
from fourways_runtime.v2.parts import RequestOutcome, ScoredPart
from fourways_runtime.v2.request import InferenceRequest
from tests.kit.waiting import turns


def request(rows: int = 1, name: str | None = None) -> InferenceRequest:
    return InferenceRequest(rows, name, None, False, None, None, {})


class Model:
    """A scorer that takes a time for each row, and notes what it was asked together."""

    def __init__(
        self, seconds_a_row: float = 0.0, passes: Callable[[float], None] | None = None
    ) -> None:
        self.seconds = seconds_a_row
        self.passes = passes
        self.batches: list[list[str | None]] = []
        self.threads: list[bool] = []
        self.hold = threading.Event()
        self.hold.set()
        self.entered = threading.Event()

    def score(self, asked: Sequence[Any]) -> list[RequestOutcome]:
        self.threads.append(threading.current_thread() is not threading.main_thread())
        self.batches.append([one.id for one in asked])
        self.entered.set()
        self.hold.wait(20)
        if self.passes is not None:
            self.passes(self.seconds * sum(one.rows for one in asked))
        return [ScoredPart({}, 0, one.rows, {}) for one in asked]


Make = Callable[..., Batcher]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    made: list[Batcher] = []

    def new(model: Any, **more: Any) -> Batcher:
        settings = {"max_rows": 1000, "timeout": 0.5} | more
        metrics = settings.pop("metrics", None) or ServingMetrics(CollectorRegistry())
        made.append(
            Batcher(
                model,
                lambda inference, part: Response(b"ok"),
                metrics,
                **settings,
            )
        )
        return made[-1]

    yield new
    for batcher in made:
        batcher.close()


class Clock:
    """Time that passes only when told, for the queue and for what batches are measured to take."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.monotonic()
        for module, names in {
            batchers: ("monotonic", "perf_counter", "thread_time"),
            placement: ("monotonic",),
        }.items():
            for name in names:
                monkeypatch.setattr(module, name, lambda: self.now)

    def passes(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def status(promise: Promise) -> int:
    try:
        return (await promise).status
    except HttpError as error:
        return error.response.status


def asked(batcher: Batcher, *args: Any, **more: Any) -> Promise | None:
    try:
        return batcher.ask(*args, **more)
    except HttpError as refused:
        response = refused.response
    assert (response.status, response.headers) == (503, (b"retry-after: 1",))
    return None


async def held(batcher: Batcher, model: Model) -> Promise:
    """Have a batch with the worker thread that does not end."""
    model.hold.clear()
    model.entered.clear()
    first = batcher.ask(request())
    await asyncio.to_thread(model.entered.wait, 10)
    return first


def test_a_line_through_what_batches_took() -> None:
    times = BatchTimes()
    assert times.seconds(5) == 0.0
    for rows in (1, 4, 16, 2, 8):
        times.note(rows, 0.002 + 0.001 * rows)
    assert times.seconds(32) == pytest.approx(0.034)
    for _ in range(200):
        times.note(8, 0.08)  # it has become slower, and all batches are of one size
    assert times.seconds(8) == pytest.approx(0.08, rel=0.05)
    assert times.seconds(16) > times.seconds(8) > 0


@pytest.mark.parametrize("measured", [[(1, 0.1), (10, 0.01)], [(10, 0.01), (20, 0.1)]])
def test_no_time_is_expected_to_be_negative(measured: list[tuple[int, float]]) -> None:
    times = BatchTimes()
    for rows, seconds in measured:
        times.note(rows, seconds)
    assert min(times.seconds(rows) for rows in (1, 10, 1000)) > 0


async def test_what_cannot_be_answered_in_time_is_refused_when_it_comes(
    make: Make, clock: Clock
) -> None:
    model = Model(0.01, clock.passes)
    batcher = make(model, warm_up=[(1, 0.01)])
    promises = []
    for n in range(200):
        clock.passes(0.00001)
        promises.append(asked(batcher, request(1, str(n))))
    await turns(1)
    open_ = [promise for promise in promises if promise is not None and not promise.done()]
    assert 20 <= len(open_) <= 50  # 0.5 s at 10 ms each
    assert open_ == promises[-len(open_) :], "the newest have most time left"
    statuses = [await status(promise) for promise in open_]
    assert statuses.count(200) >= 0.8 * len(open_)
    assert asked(batcher, request(60)) is not None, "one that is alone is scored"
    assert asked(batcher, request(60)) is None, "it has no time left, and nothing makes room"


async def test_a_request_that_waits_is_not_rejected_for_one_with_less_time(
    make: Make, clock: Clock
) -> None:
    model = Model()
    batcher = make(model, warm_up=[(1, 0.01)] * 50, timeout=2.0)
    first = await held(batcher, model)
    waiting = batcher.ask(request(100))
    assert asked(batcher, request(10), timeout=0.9) is None
    clock.passes(0.001)
    newer = batcher.ask(request(100))
    await turns(1)
    assert (waiting.done(), newer.done()) == (True, False)
    model.hold.set()
    assert [await status(promise) for promise in (first, waiting, newer)] == [200, 503, 200]


async def test_past_saturation_the_newest_are_scored_first(make: Make, clock: Clock) -> None:
    model = Model()
    batcher = make(model, warm_up=[(1, 0.01)] * 50, timeout=2.0)
    first = await held(batcher, model)
    old = batcher.ask(request(40, "old"), timeout=0.8)
    promises = []
    for n in range(5):
        clock.passes(0.001)
        promises.append(batcher.ask(request(40, str(n))))
    model.hold.set()
    assert await status(first) == 200
    assert [await status(promise) for promise in (old, promises[0])] == [503] * 2
    assert await status(promises[-1]) == 200
    assert model.batches[1][-2:] == ["3", "4"], "in the order they came, without the oldest"


async def test_requests_that_wait_and_that_run_are_counted(make: Make) -> None:
    registry = CollectorRegistry()
    model = Model()
    batcher = make(model, metrics=ServingMetrics(registry), timeout=20.0)
    first = await held(batcher, model)
    waiting = [batcher.ask(request()) for _ in range(3)]

    def counted() -> tuple[float | None, ...]:
        names = ("fourways_requests_waiting", "fourways_requests_running")
        return tuple(map(registry.get_sample_value, names))

    assert counted() == (3.0, 1.0)
    model.hold.set()
    assert [await status(promise) for promise in (first, *waiting)] == [200] * 4
    assert counted() == (0.0, 0.0)


async def test_what_a_batch_waited_is_counted_from_the_arrival_of_its_first(make: Make) -> None:
    registry = CollectorRegistry()
    batcher = make(Model(), metrics=ServingMetrics(registry), timeout=20.0)
    assert await status(batcher.ask(request(), since=time.monotonic() - 7.0)) == 200
    assert registry.get_sample_value("fourways_queue_seconds_count") == 1.0
    assert (registry.get_sample_value("fourways_queue_seconds_sum") or 0.0) >= 7.0


async def test_a_batch_holds_what_fits_the_time_of_its_first(make: Make, clock: Clock) -> None:
    model = Model()
    batcher = make(model, warm_up=[(1, 0.01)] * 50, timeout=1.0)
    first = await held(batcher, model)
    promises = [batcher.ask(request(10), timeout=0.4) for _ in range(3)]
    model.hold.set()
    assert [await status(promise) for promise in (first, *promises)] == [200] * 4
    assert [len(batch) for batch in model.batches] == [1, 3]
    model = Model()
    batcher = make(model, warm_up=[(1, 0.01)] * 50, timeout=10.0)
    first = await held(batcher, model)
    short = batcher.ask(request(10), timeout=0.5)
    rest = [batcher.ask(request(25)) for _ in range(4)]
    model.hold.set()
    assert [await status(promise) for promise in (first, short, *rest)] == [200] * 6
    assert len(model.batches[1]) == 2, "a third would have made the first one late"


async def test_a_slow_model_is_tried_again_when_nothing_waits(make: Make) -> None:
    model = Model()
    batcher = make(model, warm_up=[(1, 60.0)])  # no request of it could ever be in time
    for _ in range(3):
        assert await status(batcher.ask(request())) == 200
    assert [await status(p) for p in [batcher.ask(request())]] == [200]


async def test_who_has_left_is_not_scored_and_who_may_have_comes_last(make: Make) -> None:
    model = Model()
    batcher = make(model, timeout=5.0)
    first = await held(batcher, model)
    promises = {name: batcher.ask(request(1, name)) for name in ("gone", "half", "here")}
    promises["gone"].abandoned = True
    promises["half"].half_closed = True
    model.hold.set()
    assert [await status(promise) for promise in promises.values()] == [499, 200, 200]
    assert await status(first) == 200
    assert model.batches[1:] == [["here"], ["half"]]


async def test_batches_run_on_the_event_loop_once_real_ones_were_quick(
    make: Make, clock: Clock
) -> None:
    model = Model(passes=clock.passes)
    batcher = make(model, warm_up=[(1, 0.00001)])
    for _ in range(20):
        assert await status(batcher.ask(request())) == 200
    assert model.threads == [True] * 8 + [False] * 12
    model.seconds = 0.06  # it waits for something: once that may be the machine's doing
    for _ in range(3):
        assert await status(batcher.ask(request())) == 200
    assert model.threads[-3:] == [False] * 3
    model.seconds = 0.0
    for _ in range(5):
        assert await status(batcher.ask(request())) == 200
    assert model.threads[-5:] == [True] * 5, "it is not trusted for a while"


async def test_one_batch_that_takes_long_is_enough(make: Make, clock: Clock) -> None:
    model = Model(passes=clock.passes)
    batcher = make(model, warm_up=[(1, 0.00001)] * 50, proven=True)
    assert await status(batcher.ask(request())) == 200
    model.seconds = 0.25
    for _ in range(2):
        assert await status(batcher.ask(request())) == 200
    assert model.threads == [False, False, True]


async def test_a_large_answer_is_rendered_on_a_thread(make: Make) -> None:
    threads = []

    def render(inference: Any, part: ScoredPart) -> Response:
        threads.append(threading.current_thread() is not threading.main_thread())
        return Response(b"ok")

    model = Model()
    batcher = make(model, row_values=100)
    batcher._render = render
    for rows in (100, 101):
        assert await status(batcher.ask(request(rows))) == 200
    assert threads == [False, True]
