"""One watch over every call into a model: a call that does not return in its time is noticed.

Loading, warm-up, golden vectors and scoring go through it in every mode: a model's library may loop
for ever on one record, and no error tells. What then happens is the process's own affair
(:mod:`.process` ends it with ``ModelHangs``); here is only who calls what since when. The watch
looks from a thread of its own, because a model may hang on the thread of the event loop. A library
that hangs and holds the interpreter's lock stops this thread too, and every other answer of the
process: there the liveness probe or the Job's deadline ends it.
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
"""Maximum seconds for loading a model file that is already here."""

MODEL_SECONDS = 20.0
"""Maximum seconds for one call over a single row."""

ALIKE = 64
"""A call may take MODEL_SECONDS once more for every so many rows."""

LOOK_SECONDS = 0.5
"""Between two looks."""

_SCORING = ("scoring", "")


def seconds_for(rows: int, model_seconds: float = MODEL_SECONDS) -> float:
    """Return the maximum seconds for one call over so many rows."""
    return model_seconds * (1 + rows / ALIKE)


@dataclass(slots=True)
class ModelCall:
    """A call into a model that has not returned."""

    stage: str
    """What it belongs to, as a verb: loading, checking the golden vectors, warming up, scoring."""

    about: str
    """What it is about, such as ``chunk 3``; without keys or values: it is shown in status."""

    rows: int
    since: float
    limit: float

    def hangs(self) -> ModelHangs:
        """Return the error that names the stage and what the call is about."""
        rows = f"{self.rows} row{'' if self.rows == 1 else 's'}" if self.rows else ""
        what = " of ".join(part for part in (rows, self.about) if part)
        return ModelHangs(
            f"{self.stage}{': ' if what else ''}{what}; the model has not returned for "
            f"{self.limit:.0f} s; correct the model, or narrow the contract so that such records "
            "are refused"
        )


class ModelWatch:
    """The calls under way in this process. Safe to use from any thread."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._calls: dict[int, ModelCall] = {}
        self._numbers = itertools.count()
        self._doing = threading.local()
        self._thread: threading.Thread | None = None

    @contextmanager
    def doing(self, stage: str, about: str = "") -> Iterator[None]:
        """Name what this thread's calls belong to, until the context ends."""
        before = getattr(self._doing, "what", None)
        self._doing.what = (stage, about)
        try:
            yield
        finally:
            self._doing.what = before

    @contextmanager
    def call(self, rows: int = 0, seconds: float | None = None) -> Iterator[None]:
        """Watch a call into the model over so many rows until the context ends.

        ``seconds`` is its maximum, :func:`seconds_for` its rows unless given. Calls that run side
        by side may be waiting for each other, so each has the time of all of them.
        """
        number = self.begin(rows, seconds_for(rows) if seconds is None else seconds)
        try:
            yield
        finally:
            self.end(number)

    def begin(self, rows: int, seconds: float) -> int:
        """Note a call, as :meth:`call` does, and return its number.

        A context of its own costs two microseconds, which a request for a single row notices.
        """
        stage, about = getattr(self._doing, "what", None) or _SCORING
        number = next(self._numbers)
        limit = seconds * (len(self._calls) + 1)
        self._calls[number] = ModelCall(stage, about, rows, self._now(), limit)
        return number

    def end(self, number: int) -> None:
        """Note that a call has returned, or failed."""
        del self._calls[number]

    def longest(self) -> float:
        """Return for how many seconds the oldest call has not returned; 0 where there is none."""
        since = [call.since for call in tuple(self._calls.values())]
        return self._now() - min(since) if since else 0.0

    def overdue(self) -> ModelCall | None:
        """Return a call that has not returned in its time."""
        now = self._now()
        late = (call for call in tuple(self._calls.values()) if now - call.since > call.limit)
        return next(late, None)

    def start(self, hung: Callable[[ModelHangs], object]) -> None:
        """Look from now on, from a thread of its own, and call ``hung`` once, on that thread."""
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
"""The watch of this process. Calls are noted from the beginning; :func:`fourways_runtime.process`
starts it, because only who owns the process may end it."""
