"""Waiting for what nobody announces: polling with a deadline, and with a message if it passes.

A test sleeps nowhere else: tests/unit/test_tests.py holds that, with a list of exceptions.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any, TypeVar

T = TypeVar("T")

_SHOWN = 500
"""Characters of the last value that a failure shows."""

Message = str | Callable[[], object]
"""What was waited for, or what describes the state when the deadline has passed."""


def until(
    condition: Callable[[], T],
    message: Message,
    *,
    seconds: float = 20.0,
    interval: float = 0.02,
    ignoring: type[Exception] | tuple[type[Exception], ...] = (),
    meanwhile: Callable[[], object] = lambda: None,
) -> T:
    """Call ``condition`` until what it returns is true, and return that.

    Args:
        condition: What is waited for. It is called at least once.
        message: Completes the sentence "after 20 s still not: …".
        seconds: The deadline.
        interval: Seconds between two calls.
        ignoring: Errors of ``condition`` that mean "not yet".
        meanwhile: Called after each attempt that failed.

    Raises:
        AssertionError: The deadline has passed. It names the last value or error.

    """
    deadline = time.monotonic() + seconds
    while True:
        last: object
        try:
            if found := condition():
                return found
            last = found
        except ignoring as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(_failure(seconds, message, last))
        meanwhile()
        time.sleep(interval)


async def until_async(
    condition: Callable[[], T | Awaitable[T]],
    message: Message,
    *,
    seconds: float = 20.0,
    interval: float = 0.01,
    ignoring: type[Exception] | tuple[type[Exception], ...] = (),
) -> T:
    """Do the same in an event loop; ``condition`` may be a coroutine function.

    An attempt that takes longer than the deadline is cancelled.

    Raises:
        AssertionError: The deadline has passed. It names the last value or error.

    """
    last: object = None
    try:
        async with asyncio.timeout(seconds) as limit:
            while True:
                try:
                    found: Any = condition()
                    if isawaitable(found):
                        found = await found
                    if found:
                        return found  # type: ignore[no-any-return]
                    last = found
                except ignoring as error:
                    last = error
                await asyncio.sleep(interval)
    except TimeoutError:
        if not limit.expired():
            raise
        raise AssertionError(_failure(seconds, message, last)) from None


async def turns(count: int = 1) -> None:
    """Let the other tasks of the event loop run ``count`` times, without taking any time."""
    for _ in range(count):
        await asyncio.sleep(0)


def _failure(seconds: float, message: Message, last: object) -> str:
    described = message if isinstance(message, str) else message()
    return f"after {seconds:g} s still not: {described} (last: {repr(last)[:_SHOWN]})"
