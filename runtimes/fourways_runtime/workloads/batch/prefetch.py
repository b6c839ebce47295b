"""Read, score and write concurrently and in order, with a bounded number of items in flight.

Reading and writing have one thread each; scoring has one thread per core (onnxruntime, Arrow and
COPY release the GIL). Because the number in flight is bounded, memory does not grow with the table.

An error on one thread also interrupts the wait for another: a hanging source does not hide a
write that the store has rejected.
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
"""How long a stopped run waits for the running statement before it cleans up."""


WATCH_SECONDS = 1.0
"""Interval between calls of ``watch`` while waiting."""


def _nothing() -> None:
    pass


def overlapped(
    items: Iterator[A],
    score: Callable[[A], B],
    write: Callable[[B], C],
    threads: int,
    watch: Callable[[], None] = _nothing,
) -> Generator[C]:
    """Score and write each item; yield the results of ``write`` in order.

    The first error in any of the three stages ends the generator. While it waits, it calls
    ``watch`` every WATCH_SECONDS; an error raised there (a failed heartbeat, a model that does not
    return) ends it too. If the generator is closed early, items in flight are dropped, and writes
    that have started get up to DRAIN_SECONDS to finish.
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
                    break  # Write what is scored in the meantime: reading may take long.
                item = upcoming.result()
                more = item is not None
                if item is not None:
                    upcoming = reading.submit(next, items, None)
                    under_way.append(scoring.submit(score, item))
            if under_way:
                scored = _result(under_way.popleft(), (upcoming, *under_way, *written), watch)
                if len(written) > 1:
                    yield _oldest(written, (upcoming, *under_way), watch)
                written.append(writing.submit(write, scored))
        while written:
            yield _oldest(written, (), watch)
    finally:
        for pool in (reading, scoring, writing):
            pool.shutdown(wait=False, cancel_futures=True)
        _settle(written)


def _oldest(
    written: deque[Future[C]], others: Iterable[Future[Any]], watch: Callable[[], None]
) -> C:
    """Return the result of the oldest write.

    It stays in ``written`` until it is done: if another future fails meanwhile, the statement that
    is running is still waited for before its connection is closed.
    """
    done = _result(written[0], (*others, *written), watch)
    written.popleft()
    return done


def _result(future: Future[A], others: Iterable[Future[Any]], watch: Callable[[], None]) -> A:
    """Return a future's result; raise any error of another future or of ``watch`` meanwhile."""
    _wait((future,), others, watch)
    return future.result()


def _wait(
    wanted: Sequence[Future[Any]], others: Iterable[Future[Any]], watch: Callable[[], None]
) -> None:
    """Wait until one of ``wanted`` is done. Raises the error of any other that fails meanwhile."""
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
