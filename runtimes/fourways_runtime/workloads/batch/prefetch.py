"""Reading, scoring and writing at the same time, in order, with a bounded number under way.

Reading and writing have a thread each, scoring one a core (onnxruntime, Arrow and COPY let go of
the interpreter); so memory does not grow with the table.

An error on one of the threads wakes whoever waits for another: a source that hangs does not hide
that the store has refused a write.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")

DRAIN_SECONDS = 5.0
"""How long a stopped run waits for the statement under way, to clean up behind itself."""


WATCH_SECONDS = 1.0
"""How often whoever watches the work is asked while it is waited for."""


def _nothing() -> None:
    pass


def overlapped(
    items: Iterator[A],
    score: Callable[[A], B],
    write: Callable[[B], C],
    threads: int,
    watch: Callable[[], None] = _nothing,
) -> Generator[C]:
    """Take items, score each and write it; yield what writing returned, in order.

    The first error of any of the three ends it. ``watch`` is called while there is nothing to do
    but wait, every WATCH_SECONDS; what it raises ends it as well (a heartbeat that failed, a model
    that does not come back). Left early, what is under way is dropped, and what is being written is
    waited for, for a while.
    """
    reading = ThreadPoolExecutor(1, thread_name_prefix="read")
    scoring = ThreadPoolExecutor(threads, thread_name_prefix="score")
    writing = ThreadPoolExecutor(1, thread_name_prefix="write")
    under_way: deque[Future[B]] = deque()
    written: deque[Future[C]] = deque()
    try:
        upcoming: Future[A | None] = reading.submit(next, items, None)
        more = True
        while more or under_way:
            while more and len(under_way) <= threads:
                _wait((upcoming, *list(under_way)[:1]), (*under_way, *written), watch)
                if not upcoming.done():
                    break  # What is scored is written meanwhile: reading may take long.
                item = upcoming.result()
                more = item is not None
                if item is not None:
                    upcoming = reading.submit(next, items, None)
                    under_way.append(scoring.submit(score, item))
            if under_way:
                scored = _result(under_way.popleft(), (upcoming, *under_way, *written), watch)
                if len(written) > 1:
                    yield _result(written.popleft(), (upcoming, *under_way, *written), watch)
                written.append(writing.submit(write, scored))
        while written:
            yield _result(written.popleft(), written, watch)
    finally:
        for pool in (reading, scoring, writing):
            pool.shutdown(wait=False, cancel_futures=True)
        _settle(written)


def _result(future: Future[A], others: Iterable[Future[Any]], watch: Callable[[], None]) -> A:
    """Wait for a future's result; raise what another ends with meanwhile, or ``watch`` raises."""
    _wait((future,), others, watch)
    return future.result()


def _wait(
    wanted: Sequence[Future[Any]], others: Iterable[Future[Any]], watch: Callable[[], None]
) -> None:
    """Wait until one of the ``wanted`` is done. Raises what one of the others ends with."""
    pending = [other for other in others if other not in wanted]
    while not any(future.done() for future in wanted):
        done, _ = wait([*wanted, *pending], WATCH_SECONDS, FIRST_COMPLETED)
        for other in pending:
            if other in done:
                other.result()
        pending = [other for other in pending if other not in done]
        if not done:
            watch()


def _settle(written: deque[Future[C]]) -> None:
    deadline = time.monotonic() + DRAIN_SECONDS
    for writes in written:
        if not writes.cancelled():
            try:
                writes.exception(timeout=max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                return
