"""Trying again while something is unavailable, for a bounded time."""

from __future__ import annotations

import pytest

from fourways_runtime.errors import ConfigError, StoreUnavailable, Unavailable
from fourways_runtime.retry import Outage, await_available, retry_until_available


class World:
    """A clock, and something that is unavailable until a moment."""

    def __init__(self, until: float) -> None:
        self.now = 0.0
        self.until = until
        self.attempts = 0

    def attempt(self) -> str:
        self.attempts += 1
        if self.now < self.until:
            raise StoreUnavailable(f"away at {self.now:g}")
        return "here"

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_what_comes_back_in_time_is_waited_for() -> None:
    world = World(until=2.0)
    found = retry_until_available(
        world.attempt, 5.0, pause=0.5, sleep=world.sleep, now=lambda: world.now
    )
    assert (found, world.attempts) == ("here", 5)


def test_what_does_not_ends_with_the_last_failure() -> None:
    world = World(until=99.0)
    with pytest.raises(StoreUnavailable, match=r"away at 3$"):
        retry_until_available(
            world.attempt, 3.0, pause=0.5, sleep=world.sleep, now=lambda: world.now
        )
    assert world.now <= 3.0


def test_what_trying_again_cannot_help_ends_at_once() -> None:
    def attempt() -> None:
        raise ConfigError("no such table")

    with pytest.raises(ConfigError):
        retry_until_available(attempt, 60.0)


def test_an_outage_lasts_from_its_first_failure_and_ends_with_a_success() -> None:
    now = [0.0]
    outage = Outage(10.0, lambda: now[0])
    outage.failed(Unavailable("one"))
    now[0] = 10.0
    outage.failed(Unavailable("two"))
    outage.ended()
    assert outage.since is None
    now[0] = 15.0
    outage.failed(Unavailable("three"))
    now[0] = 25.5
    with pytest.raises(Unavailable, match="four"):
        outage.failed(Unavailable("four"))


async def test_an_attempt_that_hangs_counts_too() -> None:
    import asyncio

    with pytest.raises(Unavailable, match=r"no response in 0\.05 s"):
        await await_available(asyncio.Event().wait, 0.05)
