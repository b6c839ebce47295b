"""Retries while an external dependency is unavailable, for a limited time.

All loops of a workload follow one rule: ``Unavailable`` may be temporary and is retried, any other
error ends the loop; the caller gets the error of the last attempt. Downloads have their own backoff
(``io.fetch.retry``), since servers may request a pause.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from .errors import Unavailable, WorkloadError

T = TypeVar("T")

START_SECONDS = 15.0
"""How long a worker retries what it needs to start, before it ends with the cause."""

PAUSE_SECONDS = 0.5
"""Seconds between two attempts."""


class Outage:
    """Tracks how long a dependency has been unavailable, and when to stop retrying."""

    def __init__(self, patience: float, now: Callable[[], float] = time.monotonic) -> None:
        """``patience``: maximum seconds that it may last."""
        self._patience = patience
        self._now = now
        self.since: float | None = None
        """When it began, by ``now``; None if there is no outage."""

    def failed(self, error: WorkloadError) -> None:
        """Record a failed attempt. Raises ``error`` if the outage has lasted too long."""
        now = self._now()
        if self.since is None:
            self.since = now
        if now - self.since > self._patience:
            raise error

    def ended(self) -> None:
        """Record a successful attempt."""
        self.since = None


def retry_until_available(
    attempt: Callable[[], T],
    seconds: float,
    *,
    pause: float = PAUSE_SECONDS,
    sleep: Callable[[float], object] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> T:
    """Call ``attempt`` until it does not raise Unavailable, for at most ``seconds``.

    Raises:
        Unavailable: the error of the last attempt.
        WorkloadError: an attempt failed in a way that a retry cannot help.

    """
    outage = Outage(seconds - pause, now)
    while True:
        try:
            return attempt()
        except Unavailable as error:
            outage.failed(error)
        sleep(pause)


async def await_available(attempt: Callable[[], Awaitable[T]], seconds: float) -> T:
    """Await ``attempt`` like :func:`retry_until_available`; a hung attempt counts too.

    Raises:
        Unavailable: the error of the last attempt, or none returned in time.
        WorkloadError: an attempt failed in a way that a retry cannot help.

    """
    deadline = time.monotonic() + seconds
    outage = Outage(seconds - PAUSE_SECONDS)
    last: Unavailable | None = None
    while True:
        try:
            left = max(0.1, deadline - time.monotonic())
            return await asyncio.wait_for(attempt(), left)
        except TimeoutError:
            raise last or Unavailable(f"no response in {seconds:g} s") from None
        except Unavailable as error:
            last = error
            outage.failed(error)
        await asyncio.sleep(PAUSE_SECONDS)
