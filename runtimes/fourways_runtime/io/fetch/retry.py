"""Retries: transient failures are retried a few times, within the fetch's own time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_exponential, wait_random

from .source import Deadline, Interrupted

ATTEMPTS = 6
Sleep = Callable[[float], None]
T = TypeVar("T")


def retried(action: Callable[[], T], deadline: Deadline, sleep: Sleep) -> T:
    """Call ``action`` until it does not raise Interrupted, at most ATTEMPTS times.

    Raises the last Interrupted, or FetchFailed if the time is up before.
    """

    def pause(seconds: float) -> None:
        sleep(min(seconds, deadline.remaining()))
        deadline.remaining()

    retrying = Retrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential(multiplier=0.2, max=10) + wait_random(0, 0.2),
        retry=retry_if_exception_type(Interrupted),
        sleep=pause,
        reraise=True,
    )
    return retrying(action)
