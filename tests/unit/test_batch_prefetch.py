"""Reading, scoring and writing at once: the order, the first error, and who is woken by it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from typing import Any

import pytest

from fourways_runtime.workloads.batch import prefetch
from fourways_runtime.workloads.batch.claims import Heartbeat
from fourways_runtime.workloads.batch.prefetch import overlapped

SOON = 10.0


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """An event that lets go of whatever still hangs at a test's end."""
    event = threading.Event()
    yield event
    event.set()


def hanging(first: int, released: threading.Event) -> Iterator[int]:
    """Read ``first`` items, and then hang."""
    yield from range(first)
    released.wait()


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_order(threads: int) -> None:
    def score(item: int) -> int:
        time.sleep(0.001 * (item % 3))
        return item * 2

    assert list(overlapped(iter(range(50)), score, str, threads)) == [
        str(item * 2) for item in range(50)
    ]


@pytest.mark.parametrize("fails", ["score", "write"])
def test_an_error_wakes_whoever_waits_for_a_source_that_hangs(
    fails: str, released: threading.Event
) -> None:
    def failing(item: int) -> int:
        raise ValueError(f"{fails} {item}")

    score = failing if fails == "score" else int
    write = failing if fails == "write" else int
    with (
        pytest.raises(ValueError, match=f"{fails} 0"),
        closing(overlapped(hanging(1, released), score, write, 4)) as results,
    ):
        list(results)


def test_an_error_of_the_source_wakes_whoever_waits_for_a_model_that_hangs(
    released: threading.Event,
) -> None:
    def items() -> Iterator[int]:
        yield from range(2)
        raise ValueError("the source is gone")

    def score(item: int) -> bool:
        return released.wait()

    with (
        pytest.raises(ValueError, match="the source is gone"),
        closing(overlapped(items(), score, bool, 1)) as results,
    ):
        list(results)


def test_whoever_watches_can_end_a_wait(
    monkeypatch: pytest.MonkeyPatch, released: threading.Event
) -> None:
    monkeypatch.setattr(prefetch, "WATCH_SECONDS", 0.01)
    asked = []

    def watch() -> None:
        asked.append(True)
        if len(asked) == 3:
            raise TimeoutError("the model hangs")

    with (
        pytest.raises(TimeoutError, match="the model hangs"),
        closing(overlapped(hanging(0, released), int, int, 1, watch)) as results,
    ):
        list(results)


def test_a_write_that_runs_is_waited_for_when_the_source_fails(
    monkeypatch: pytest.MonkeyPatch, released: threading.Event
) -> None:
    """Else its connection is closed under it."""
    settle, waits = prefetch._settle, threading.Event()
    scored: list[int] = []
    settled: list[bool] = []

    def items() -> Iterator[int]:
        yield from range(3)
        assert waits.wait(SOON), "the caller waits for the first write"
        raise ValueError("the source is gone")

    def watch() -> None:
        if len(scored) == 3:
            waits.set()

    def settling(written: deque[Future[Any]]) -> None:
        settled.extend(future.running() for future in written)
        released.set()
        settle(written)

    monkeypatch.setattr(prefetch, "WATCH_SECONDS", 0.01)
    monkeypatch.setattr(prefetch, "_settle", settling)
    with (
        pytest.raises(ValueError, match="the source is gone"),
        closing(
            overlapped(items(), scored.append, lambda _: released.wait(SOON), 1, watch)
        ) as results,
    ):
        list(results)
    assert settled[0], "the first write runs, and is waited for"


def test_a_heartbeat_that_fails_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def renew(self) -> None:
            raise RuntimeError("no such column")

    monkeypatch.setattr("fourways_runtime.workloads.batch.claims.LEASE_SECONDS", 0.01)
    with Heartbeat(Broken()) as heartbeat:  # type: ignore[arg-type]
        heartbeat._thread.join(SOON)
        with pytest.raises(RuntimeError, match="no such column"):
            heartbeat.check()
