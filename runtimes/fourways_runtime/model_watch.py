"""A watchdog for calls into a model: detects a call that does not return in time.

Loading, warm-up, golden vectors and scoring go through it in every mode: a model's library may loop
forever on one record without raising an error. What happens then is up to the process
(:mod:`.process` ends it with ``ModelHangs``); this module only records which calls run since when.
The watchdog has its own thread, because a model may hang on the thread of the event loop. A library
that hangs while it holds the interpreter lock also stops this thread and every other response of
the process: in that case the liveness probe or the Job's deadline ends it.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

from .errors import ModelHangs

LOAD_SECONDS = 300.0
"""Maximum seconds for loading a local model file."""

MODEL_SECONDS = 20.0
"""Maximum seconds for one call with a single row."""

ALIKE = 64
"""Number of rows for which a call gets another MODEL_SECONDS."""

LOOK_SECONDS = 0.5
"""Time between two checks."""

_SCORING = ("scoring", "")


def seconds_for(rows: int, model_seconds: float = MODEL_SECONDS) -> float:
    """Return the maximum seconds for one call with this many rows."""
    return model_seconds * (1 + rows / ALIKE)


@dataclass(slots=True)
class ModelCall:
    """A call into a model that has not returned."""

    stage: str
    """Its stage, as a verb: loading, checking the golden vectors, warming up, scoring."""

    about: str
    """What it works on, such as ``chunk 3``; without keys or values, because status shows it."""

    rows: int
    since: float
    limit: float
    thread: int = 0
    """The thread it runs on, if another one waits for it no longer than this; else 0."""

    def hangs(self) -> ModelHangs:
        """Return the error that names the stage and what the call works on."""
        rows = f"{self.rows} row{'' if self.rows == 1 else 's'}" if self.rows else ""
        what = " of ".join(part for part in (rows, self.about) if part)
        return ModelHangs(
            f"{self.stage}{': ' if what else ''}{what}; the model has not returned for "
            f"{self.limit:.0f} s; correct the model, or narrow the contract so that such records "
            "are rejected"
        )


class ModelWatch:
    """The calls in progress in this process. Thread-safe."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._calls: dict[int, ModelCall] = {}
        self._numbers = itertools.count()
        self._doing = threading.local()
        self._thread: threading.Thread | None = None

    @contextmanager
    def doing(self, stage: str, about: str = "") -> Iterator[None]:
        """Set the stage of this thread's calls until the context ends."""
        before = getattr(self._doing, "what", None)
        self._doing.what = (stage, about)
        try:
            yield
        finally:
            self._doing.what = before

    @contextmanager
    def call(self, rows: int = 0, seconds: float | None = None) -> Iterator[None]:
        """Watch a call into the model with this many rows until the context ends.

        ``seconds`` is its maximum, by default :func:`seconds_for` its rows. Concurrent calls may be
        waiting for each other, so each gets the time of all of them.
        """
        number = self.begin(rows, seconds_for(rows) if seconds is None else seconds)
        try:
            yield
        finally:
            self.end(number)

    def begin(self, rows: int, seconds: float) -> int:
        """Record a call, as :meth:`call` does, and return its number.

        A context manager costs two microseconds, which is noticeable for a request with a single
        row.
        """
        stage, about = getattr(self._doing, "what", None) or _SCORING
        number = next(self._numbers)
        limit = seconds * (len(self._calls) + 1)
        thread = getattr(self._doing, "thread", 0)
        self._calls[number] = ModelCall(stage, about, rows, self._now(), limit, thread)
        return number

    def end(self, number: int) -> None:
        """Record that a call has returned, or failed."""
        self._calls.pop(number, None)

    def longest(self) -> float:
        """Return the age in seconds of the oldest call that is not bound; 0 if there is none."""
        since = [call.since for call in tuple(self._calls.values()) if not call.thread]
        return self._now() - min(since) if since else 0.0

    def bound_this_thread(self) -> None:
        """Leave the calls of this thread to who waits for them, by :meth:`overdue`."""
        self._doing.thread = threading.get_ident()

    def overdue(self, thread: int = 0) -> ModelCall | None:
        """Return a call that has exceeded its time, or None.

        ``thread``: one that is bound (:meth:`bound_this_thread`); 0: any that is not.
        """
        now = self._now()
        for call in tuple(self._calls.values()):
            if call.thread == thread and now - call.since > call.limit:
                return call
        return None

    def abandon(self, call: ModelCall) -> None:
        """Stop watching a call that nobody waits for any more."""
        for number, it in tuple(self._calls.items()):
            if it is call:
                self._calls.pop(number, None)

    def start(self, hung: Callable[[ModelHangs], object]) -> None:
        """Start the watchdog thread; it calls ``hung`` once, on that thread."""
        self._thread = threading.Thread(
            target=self._look, args=(hung,), name="model-watch", daemon=True
        )
        self._thread.start()

    def _look(self, hung: Callable[[ModelHangs], object]) -> None:
        pause = threading.Event()
        while True:
            call = self.overdue()
            if call is not None:
                hung(call.hangs())
                return
            pause.wait(LOOK_SECONDS)


WATCH = ModelWatch()
"""The watchdog of this process. Calls are recorded from the beginning;
:func:`fourways_runtime.process` starts it, because only the owner of the process may end it.
"""
