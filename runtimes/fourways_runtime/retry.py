"""Trying again while something outside is unavailable, for a bounded time.

One rule for all of a workload's loops: ``Unavailable`` may pass and is tried again, anything else
ends the loop; what the last attempt failed with is what the caller gets. Downloads have a backoff
of their own (``io.fetch.retry``), since servers ask for pauses.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from .errors import Unavailable

T = TypeVar("T")

START_SECONDS = 15.0
"""How long a worker tries what it cannot start without, before it ends and says why."""

PAUSE_SECONDS = 0.5
"""Between two attempts."""


class Outage:
    """How long something has been unavailable, and when to give up on it."""

    def __init__(self, patience: float, now: Callable[[], float] = time.monotonic) -> None:
        """``patience``: seconds that it may last."""
        self._patience = patience
        self._now = now
        self.since: float | None = None
        """When it began, by ``now``; None while there is none."""

    def failed(self, error: Unavailable) -> None:
        """Note a failed attempt. Raises ``error`` where the outage has lasted too long."""
        now = self._now()
        if self.since is None:
            self.since = now
        if now - self.since > self._patience:
            raise error

    def ended(self) -> None:
        """Note an attempt that succeeded."""
        self.since = None


def retry_until_available(
    attempt: Callable[[], T],
    seconds: float,
    *,
    pause: float = PAUSE_SECONDS,
    sleep: Callable[[float], object] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> T:
    """Call ``attempt`` until it is not Unavailable, for at most ``seconds``.

    Raises:
        Unavailable: what the last attempt failed with.
        WorkloadError: an attempt found out that trying again is pointless.

    """
    outage = Outage(seconds - pause, now)
    while True:
        try:
            return attempt()
        except Unavailable as error:
            outage.failed(error)
        sleep(pause)


async def await_available(attempt: Callable[[], Awaitable[T]], seconds: float = START_SECONDS) -> T:
    """Do on an event loop what :func:`retry_until_available` does; a hung attempt counts too.

    Raises:
        Unavailable: what the last attempt failed with, or that none answered in time.
        WorkloadError: an attempt found out that trying again is pointless.

    """
    deadline = time.monotonic() + seconds
    outage = Outage(seconds - PAUSE_SECONDS)
    last: Unavailable | None = None
    while True:
        try:
            left = max(0.1, deadline - time.monotonic())
            return await asyncio.wait_for(attempt(), left)
        except TimeoutError:
            raise last or Unavailable(f"no answer in {seconds:g} s") from None
        except Unavailable as error:
            last = error
            outage.failed(error)
        await asyncio.sleep(PAUSE_SECONDS)
