"""Growing pauses between attempts, for every loop that tries again."""

from __future__ import annotations

import random as random_module
from collections.abc import Callable


class Backoff:
    """The next pause: ``first``, then ``growth`` times the one before, at most ``longest``.

    It decides how long to wait, not whether to try again: loops that give up after a time also use
    ``fourways_runtime.retry``. Not thread-safe.
    """

    def __init__(
        self,
        first: float,
        longest: float,
        *,
        growth: float = 2.0,
        random: Callable[[], float] | None = None,
    ) -> None:
        """Pauses are in seconds. ``random``: take a random share of each (full jitter)."""
        self._first = first
        self._longest = longest
        self._growth = growth
        self._random = random
        self._next = first

    @classmethod
    def jittered(
        cls, first: float, longest: float, random: Callable[[], float] = random_module.random
    ) -> Backoff:
        """Return pauses with full jitter: what failed together is not tried again together."""
        return cls(first, longest, random=random)

    def pause(self, at_least: float = 0.0) -> float:
        """Return the seconds to wait now; the next pause is longer."""
        now = self._next
        self._next = min(self._longest, self._next * self._growth)
        return max(at_least, now if self._random is None else now * self._random())

    def reset(self) -> None:
        """Start again with the first pause, after a success."""
        self._next = self._first
