"""Reading, scoring and writing at the same time, in order, with a bounded number under way.

Reading and writing have a thread each, scoring one a core (onnxruntime, Arrow and COPY let go of
the interpreter); so memory does not grow with the table.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")

DRAIN_SECONDS = 5.0
"""How long a stopped run waits for the statement under way, to clean up behind itself."""


def overlapped(
    items: Iterator[A], score: Callable[[A], B], write: Callable[[B], C], threads: int
) -> Generator[C]:
    """Take items, score each and write it; yield what writing returned, in order.

    The first error of any of the three ends it. Left early, what is under way is dropped, and what
    is being written is waited for, for a while.
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
                item = upcoming.result()
                more = item is not None
                if item is not None:
                    upcoming = reading.submit(next, items, None)
                    under_way.append(scoring.submit(score, item))
            if under_way:
                scored = under_way.popleft().result()
                if len(written) > 1:
                    yield written.popleft().result()
                written.append(writing.submit(write, scored))
        while written:
            yield written.popleft().result()
    finally:
        for pool in (reading, scoring, writing):
            pool.shutdown(wait=False, cancel_futures=True)
        _settle(written)


def _settle(written: deque[Future[C]]) -> None:
    deadline = time.monotonic() + DRAIN_SECONDS
    for writes in written:
        if not writes.cancelled():
            try:
                writes.exception(timeout=max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                return
