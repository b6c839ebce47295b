"""The queue: one worker a key, nothing lost, patience that grows. Time is the test's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from fourways_operator.errors import Invalid, Throttled
from fourways_operator.work_queue import BASE_PAUSE, LONGEST_PAUSE, Key, Result, WorkQueue
from tests.kit.waiting import turns

A, B = Key("ns", "a"), Key("ns", "b")


class Time:
    """A clock that stands still until it is moved; who sleeps is woken when it is their time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleepers: list[tuple[float, asyncio.Event]] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        event = asyncio.Event()
        self.sleepers.append((self.now + seconds, event))
        await event.wait()

    async def forward(self, seconds: float) -> None:
        self.now += seconds
        for due, event in self.sleepers:
            if due <= self.now:
                event.set()
        await settle()


async def settle() -> None:
    await turns(20)


class Bench:
    """A queue whose work the test holds in its hands."""

    def __init__(self, workers: int = 2, random: Callable[[], float] = lambda: 1.0) -> None:
        self.time = Time()
        self.started: list[Key] = []
        self.results: list[Result] = []
        self.gates: dict[Key, asyncio.Event] = {}
        self.outcome: Callable[[Key], Awaitable[None] | None] = lambda key: None
        self.queue = WorkQueue(
            self.work,
            workers=workers,
            clock=self.time.clock,
            sleep=self.time.sleep,
            random=random,
            on_result=lambda key, result, seconds: self.results.append(result),
        )
        self.task = asyncio.create_task(self.queue.run())

    async def work(self, key: Key) -> None:
        self.started.append(key)
        if key in self.gates:
            await self.gates[key].wait()
        self.outcome(key)

    def hold(self, key: Key) -> asyncio.Event:
        self.gates[key] = asyncio.Event()
        return self.gates[key]


def raising(error: BaseException) -> Callable[[Key], None]:
    def raise_it(key: Key) -> None:
        raise error

    return raise_it


async def test_a_key_that_waits_is_there_once() -> None:
    bench = Bench(workers=1)
    for _ in range(5):
        bench.queue.add(A)
    assert bench.queue.depth == 1
    await settle()
    assert bench.started == [A]
    assert bench.queue.idle


async def test_a_key_added_while_it_is_worked_on_is_worked_on_once_more() -> None:
    bench = Bench(workers=2)
    gate = bench.hold(A)
    bench.queue.add(A)
    await settle()
    for _ in range(3):
        bench.queue.add(A)
    await settle()
    assert bench.started == [A]
    gate.set()
    await settle()
    assert bench.started == [A, A]


async def test_no_more_keys_at_once_than_workers() -> None:
    bench = Bench(workers=2)
    keys = [Key("ns", str(n)) for n in range(4)]
    gates = [bench.hold(key) for key in keys]
    for key in keys:
        bench.queue.add(key)
    await settle()
    assert bench.started == keys[:2]
    gates[0].set()
    await settle()
    assert bench.started == keys[:3]


async def test_the_pause_after_a_failure_doubles_and_is_forgotten_on_success() -> None:
    bench = Bench()
    bench.outcome = raising(Invalid("no"))
    pauses = []
    bench.queue.add(A)
    await settle()
    for _ in range(10):
        due = bench.time.sleepers[-1][0]
        pauses.append(due - bench.time.now)
        await bench.time.forward(pauses[-1])
    expected = [min(LONGEST_PAUSE, BASE_PAUSE * 2**n) for n in range(10)]
    assert pauses == pytest.approx(expected)
    bench.outcome = lambda key: None
    await bench.time.forward(LONGEST_PAUSE)
    assert bench.results[-1] == "done"
    bench.outcome = raising(Invalid("again"))
    bench.queue.add(A)
    await settle()
    assert bench.time.sleepers[-1][0] - bench.time.now == pytest.approx(BASE_PAUSE)


async def test_the_pause_is_a_random_share() -> None:
    bench = Bench(random=lambda: 0.25)
    bench.outcome = raising(Invalid("no"))
    bench.queue.add(A)
    await settle()
    assert bench.time.sleepers[-1][0] == pytest.approx(BASE_PAUSE * 0.25)


async def test_a_pause_the_server_asked_for_is_kept() -> None:
    bench = Bench(random=lambda: 0.0)
    bench.outcome = raising(Throttled("slow down", 7.0))
    bench.queue.add(A)
    await settle()
    assert bench.time.sleepers[-1][0] == pytest.approx(7.0)
    await bench.time.forward(6.9)
    assert bench.started == [A]
    await bench.time.forward(0.2)
    assert bench.started == [A, A]


async def test_adding_a_key_skips_its_pause() -> None:
    bench = Bench()
    bench.outcome = raising(Invalid("no"))
    bench.queue.add(A)
    await settle()
    bench.outcome = lambda key: None
    bench.queue.add(A)
    await settle()
    assert bench.started == [A, A]
    await bench.time.forward(LONGEST_PAUSE)
    assert bench.started == [A, A], "the timer outlived its reason"


async def test_a_bug_is_told_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(workers=1)
    bench.outcome = lambda key: raising(ZeroDivisionError("bug"))(key) if key == A else None
    bench.queue.add(A)
    bench.queue.add(B)
    await settle()
    assert bench.results == ["bug", "done"]
    assert "ns/a" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert bench.queue.delayed == 1


async def test_the_sooner_of_two_delays_counts() -> None:
    bench = Bench()
    bench.queue.add_after(A, 10)
    bench.queue.add_after(A, 5)
    bench.queue.add_after(A, 20)
    await settle()
    await bench.time.forward(5)
    assert bench.started == [A]
    await bench.time.forward(20)
    assert bench.started == [A]


async def test_stopping_finishes_what_is_at_work_and_leaves_the_rest() -> None:
    bench = Bench(workers=1)
    gate = bench.hold(A)
    bench.queue.add(A)
    bench.queue.add(B)
    await settle()
    bench.queue.stop()
    await settle()
    assert not bench.task.done()
    gate.set()
    await asyncio.wait_for(bench.task, 30)
    assert bench.started == [A]
    assert bench.results == ["done"]


async def test_stopping_an_idle_queue_ends_it() -> None:
    bench = Bench(workers=3)
    await settle()
    bench.queue.stop()
    await asyncio.wait_for(bench.task, 30)


async def test_work_without_progress_is_seen() -> None:
    bench = Bench(workers=1)
    assert bench.queue.stuck_for() == 0
    await bench.time.forward(100)
    gate = bench.hold(A)
    bench.queue.add(A)
    await settle()
    await bench.time.forward(40)
    assert bench.queue.stuck_for() == pytest.approx(40)
    gate.set()
    await settle()
    await bench.time.forward(40)
    assert bench.queue.stuck_for() == 0


async def test_work_that_takes_too_long_is_given_up_and_tried_again() -> None:
    started: list[Key] = []

    async def hang(key: Key) -> None:
        started.append(key)
        await asyncio.Event().wait()

    results: list[Result] = []
    queue = WorkQueue(
        hang,
        workers=1,
        time_limit=0.01,
        random=lambda: 0.0,
        on_result=lambda key, result, seconds: (results.append(result), queue.stop())[0],
    )
    queue.add(A)
    await asyncio.wait_for(queue.run(), 30)
    assert results == ["retry"]
