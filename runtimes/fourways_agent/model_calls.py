"""Calls into a model that return, or raise ModelHangs, in any program on the device.

A program that embeds the agent must not be ended by it, and no library offers a way to stop a
thread. So a call into the model runs on a thread of its own, and its caller waits no longer than
the watchdog allows for it. A thread that does not return is left behind; it ends with the process.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from fourways_runtime.errors import ModelHangs
from fourways_runtime.model_watch import LOOK_SECONDS, WATCH, ModelWatch
from fourways_runtime.process import leave

T = TypeVar("T")

MAX_LEFT_BEHIND = 4
"""Threads that may hang in the model before every further call raises at once."""


class BoundedCalls:
    """Threads for calls into models. Thread-safe, and usable in a forked child."""

    def __init__(self, watch: ModelWatch = WATCH) -> None:
        self._watch = watch
        self._renew()

    def _renew(self) -> None:
        self._pid = os.getpid()
        self._idle: deque[_CallThread] = deque()
        self._left_behind: set[_CallThread] = set()

    def run(self, work: Callable[[], T]) -> T:
        """Return the result of ``work``, which calls the model.

        Raises:
            ModelHangs: one of its calls into the model has exceeded its time, or too many of
                earlier ones have not returned yet.

        """
        if self._pid != os.getpid():
            self._renew()  # a fork has none of its parent's threads
        if len(self._left_behind) >= MAX_LEFT_BEHIND:
            raise ModelHangs(
                f"{MAX_LEFT_BEHIND} calls into the model have not returned; start this program"
                " again, and see which records it was given"
            )
        try:
            worker = self._idle.pop()
        except IndexError:
            worker = _CallThread(self._watch, self._returned)
        answer: Future[T] = Future()
        worker.inbox.put((answer, work))
        while True:
            try:
                return answer.result(LOOK_SECONDS)
            except TimeoutError:
                if answer.done():
                    raise
            call = self._watch.overdue(worker.ident)
            if call is not None:
                self._left_behind.add(worker)
                self._watch.abandon(call)
                raise call.hangs()

    @property
    def hang(self) -> bool:
        """Whether a call has not returned yet that nobody waits for any more."""
        return bool(self._left_behind)

    def _returned(self, worker: _CallThread) -> None:
        self._left_behind.discard(worker)
        self._idle.append(worker)


class _CallThread:
    """A thread that does one piece of work at a time."""

    def __init__(self, watch: ModelWatch, returned: Callable[[_CallThread], None]) -> None:
        self.inbox: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._watch = watch
        self._returned = returned
        # A daemon: one that hangs must not keep the program from ending.
        thread = threading.Thread(target=self._work, name="model-call", daemon=True)
        thread.start()
        self.ident = thread.ident or 0

    def _work(self) -> None:
        self._watch.bound_this_thread()
        while True:
            answer, work = self.inbox.get()
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001  (raised by who waits)
                self._returned(self)
                answer.set_exception(error)
            else:
                self._returned(self)
                answer.set_result(result)
            del answer, work  # or the last record stays in memory


CALLS = BoundedCalls()
"""The threads of this process."""


def ended(code: int) -> int:
    """Return the exit code of a program of ours; end at once if a thread hangs in a model.

    The interpreter would unload the libraries under that thread, and crash.
    """
    if CALLS.hang:
        sys.stdout.flush()
        leave(code)
    return code
