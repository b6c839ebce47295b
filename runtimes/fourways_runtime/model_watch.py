"""A watchdog for calls into a model: detects a call that does not return in time.

Loading, warm-up, golden vectors and scoring go through it in every mode: a model's library may loop
forever on one record without raising an error. What happens then is up to the process
(:mod:`.process` ends it with ``ModelHangs``); this module only records which calls run since when.
The watchdog has its own thread, because a model may hang on the thread of the event loop. A library
that hangs while it holds the interpreter lock also stops this thread. For that case it keeps a
timer of :mod:`faulthandler` running, which needs no lock: once the timer is not wound up again, it
writes the stacks of Python as the process's termination message, and ends the process.
"""

from __future__ import annotations

import faulthandler
import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from time import monotonic

from .errors import ModelHangs

LOAD_SECONDS = 300.0
"""Maximum seconds for loading a local model file."""

MODEL_SECONDS = 20.0
"""Maximum seconds for one call with a single row."""

ALIKE = 64
"""Number of rows for which a call gets another MODEL_SECONDS."""

PATIENCE = 100.0
"""How many times longer than measured a call with many rows may take."""

LOOK_SECONDS = 0.5
"""Time between two checks."""

HELD_SECONDS = 60.0
"""How long the interpreter lock may be held, or longer while a call may take longer."""

_WIND_SECONDS = 5.0
"""Time between two starts of the timer for a held lock."""

_NOTE_SECONDS = 3.0
"""How long the note of a call that hangs may take before the process ends."""


def _nothing() -> None:
    pass


_SCORING = ("scoring", "", _nothing)


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

    note: Callable[[], object] = _nothing
    """What to do before the process ends because of it."""

    def hangs(self) -> ModelHangs:
        """Return the error that names the stage and what the call works on."""
        rows = f"{self.rows} row{'' if self.rows == 1 else 's'}" if self.rows else ""
        what = " of ".join(part for part in (rows, self.about) if part)
        return ModelHangs(
            f"{self.stage}{': ' if what else ''}{what}; the model has not returned for "
            f"{self.limit:.0f} s; correct the model, narrow the contract so that such records are "
            "rejected, or raise model.callTimeout"
        )


class _Doing(threading.local):
    """What a thread does with the model."""

    what: tuple[str, str, Callable[[], object]] = _SCORING
    thread = 0


class ModelWatch:
    """The calls in progress in this process. Thread-safe."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._calls: dict[int, ModelCall] = {}
        self._numbers = itertools.count()
        self._measured: dict[int, float] = {}
        """The most seconds per row of calls with more than ALIKE rows, by the length in bits of
        the number of rows: a call with few rows says little about one with many."""

        self._held: int | None = None
        """The file for the stacks of a process whose interpreter lock is held."""

        self._doing = _Doing()
        self._thread: threading.Thread | None = None

    @contextmanager
    def doing(
        self, stage: str, about: str = "", note: Callable[[], object] = _nothing
    ) -> Iterator[None]:
        """Set the stage of this thread's calls until the context ends.

        ``note`` is called on another thread if one of them hangs, before the process ends; it must
        not call the model.
        """
        before = self._doing.what
        self._doing.what = (stage, about, note)
        try:
            yield
        finally:
            self._doing.what = before

    def at(self, about: str) -> AbstractContextManager[None]:
        """Set what this thread's calls work on, within the stage."""
        stage, _, note = self._doing.what
        return self.doing(stage, about, note)

    @contextmanager
    def call(self, rows: int = 0, seconds: float | None = None) -> Iterator[None]:
        """Watch a call into the model with this many rows until the context ends.

        ``seconds`` is its maximum, by default :func:`seconds_for` its rows. Concurrent calls may be
        waiting for each other, so each gets the time of all of them.
        """
        number = self.begin(rows, seconds_for(rows) if seconds is None else seconds)
        if seconds is not None:
            self._wind()  # It may hold the lock longer than the timer expects.
        try:
            yield
        finally:
            self.end(number)

    def begin(self, rows: int, seconds: float) -> int:
        """Record a call, as :meth:`call` does, and return its number.

        A context manager costs two microseconds, which is noticeable for a request with a single
        row.
        """
        doing = self._doing
        stage, about, note = doing.what
        number = next(self._numbers)
        if rows > ALIKE and self._measured:
            seconds = min(seconds, self._seconds_measured(rows, seconds))
        limit = seconds * (len(self._calls) + 1)
        self._calls[number] = ModelCall(stage, about, rows, self._now(), limit, doing.thread, note)
        return number

    def end(self, number: int) -> None:
        """Record that a call has returned, or failed."""
        call = self._calls.pop(number, None)
        if call is not None and call.rows > ALIKE:
            size, each = call.rows.bit_length(), (self._now() - call.since) / call.rows
            self._measured[size] = max(each, self._measured.get(size, 0.0))

    @property
    def measured(self) -> bool:
        """Tell whether a call with many rows has returned."""
        return bool(self._measured)

    def _seconds_measured(self, rows: int, seconds: float) -> float:
        """Return the maximum for many rows by the measured calls of the next smaller size.

        One slow call of a busy machine does not condemn the next: a call always gets the time of a
        single row, and :data:`PATIENCE` times what was measured.
        """
        sizes = [size for size in tuple(self._measured) if size <= rows.bit_length()]
        each = self._measured[max(sizes)] if sizes else max(self._measured.values())
        return seconds / (1 + rows / ALIKE) + PATIENCE * rows * each

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

    def start(self, hung: Callable[[ModelHangs], object], held: int | None = None) -> None:
        """Start the watchdog thread; it calls ``hung`` once, on that thread.

        ``held`` is the file to which the stacks are written if the interpreter lock is held (a
        descriptor); by default the standard error.
        """
        if held is None and sys.__stderr__ is not None:
            held = sys.__stderr__.fileno()
        self._held = held
        self._thread = threading.Thread(
            target=self._look, args=(hung,), name="model-watch", daemon=True
        )
        self._thread.start()

    def _look(self, hung: Callable[[ModelHangs], object]) -> None:
        pause = threading.Event()
        wound = 0.0
        while True:
            call = self.overdue()
            if call is not None:
                if self._held is not None:
                    faulthandler.cancel_dump_traceback_later()
                self._held = None
                noting = threading.Thread(target=call.note, name="model-hangs", daemon=True)
                noting.start()
                noting.join(_NOTE_SECONDS)
                hung(call.hangs())
                return
            if monotonic() - wound >= _WIND_SECONDS:
                wound = monotonic()
                self._wind()
            pause.wait(LOOK_SECONDS)

    def _wind(self) -> None:
        """Start the timer for a held lock again, for as long as the calls in progress may take."""
        if self._held is None:
            return
        now = self._now()
        left = (call.since + call.limit - now for call in tuple(self._calls.values()))
        seconds = max(HELD_SECONDS, *left, 0.0) + _WIND_SECONDS
        faulthandler.dump_traceback_later(seconds, exit=True, file=self._held)


WATCH = ModelWatch()
"""The watchdog of this process. Calls are recorded from the beginning;
:func:`fourways_runtime.process` starts it, because only the owner of the process may end it.
"""
