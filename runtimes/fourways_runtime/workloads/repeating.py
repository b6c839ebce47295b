"""Work beside the work: done again and again on a thread of its own, which nothing ends.

What is done there is written and compared for people: predictions do not depend on it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_log = logging.getLogger("fourways.process")


def repeat(name: str, act: Callable[[], float], first: float) -> None:
    """Call ``act`` again and again, as long as the process lives.

    ``first`` is the pause (s) before the first call, and ``act`` returns the one before the next.
    An error that ``act`` does not handle is logged, and the pause stays what it was.
    """

    def work() -> None:
        pause, ended = first, threading.Event()
        while not ended.wait(pause):
            try:
                pause = act()
            except Exception:  # noqa: BLE001  (logged; the next call may succeed)
                _log.exception("%s failed; continuing", name)

    threading.Thread(target=work, name=name, daemon=True).start()
