"""Work beside the work: done again and again on a thread of its own, which nothing ends.

What is done there is written and compared for people: predictions do not depend on it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from time import monotonic

_log = logging.getLogger("fourways.process")


class Repeated:
    """Tells whether work that is repeated goes on."""

    def __init__(self, first: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._due = clock() + first

    @property
    def late_seconds(self) -> float:
        """Time (s) since the call in progress began, or since one was due that has not begun."""
        return max(0.0, self._clock() - self._due)

    def due_in(self, pause: float) -> None:
        """Note that a call begins after a pause (s)."""
        self._due = self._clock() + pause


def repeat(
    name: str, act: Callable[[], float], first: float, clock: Callable[[], float] = monotonic
) -> Repeated:
    """Call ``act`` again and again, as long as the process lives.

    ``first`` is the pause (s) before the first call, and ``act`` returns the one before the next.
    An error that ``act`` does not handle is logged, and the pause stays what it was.
    """
    repeated = Repeated(first, clock)

    def work() -> None:
        pause, ended = first, threading.Event()
        while not ended.wait(pause):
            repeated.due_in(0)
            try:
                pause = act()
            except Exception:  # noqa: BLE001  (logged; the next call may succeed)
                _log.exception("%s failed; continuing", name)
            repeated.due_in(pause)

    threading.Thread(target=work, name=name, daemon=True).start()
    return repeated
