"""Notices that a store, a sink or another folder stands still while a job uses it.

A server that is paused and a mount whose server is gone neither answer nor fail: a call into them
does not return, and no time limit of a library ends it. While a call lasts, this module asks the
place something small, on another thread. A place that does not answer for
:data:`QUIET_SECONDS` ends the process with an error that names the step and the place; the work is
then continued by another worker, or by the Job's next pod. A call that takes long while its place
answers, such as the building of an index, is not limited.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import monotonic

from fourways_runtime.errors import (
    PublishFailed,
    SinkUnavailable,
    StoreUnavailable,
    Unavailable,
)

STORE, SINK = "the prediction store", "the sink"
PUBLISH = "the folder of published bundles"
HSM = "the HSM with the signing key"
_KINDS = {
    STORE: StoreUnavailable,
    SINK: SinkUnavailable,
    PUBLISH: PublishFailed,
    HSM: Unavailable,
}

QUIET_SECONDS = 60.0
"""How long a place may not answer; as long as a worker waits for a store that is down."""

ASK_SECONDS = 10.0
"""Time between two questions, and the age of a call at which the first is asked."""

LOOK_SECONDS = 2.0
"""Time between two looks at the calls."""

Probe = Callable[[], object]
"""Asks a place something small. It may raise, and it may not return."""


@dataclass(frozen=True, slots=True)
class _PlaceStep:
    place: str
    what: str
    since: float


class PlaceWatch:
    """The calls in progress into places outside the process. Thread-safe."""

    def __init__(self) -> None:
        self._steps: dict[int, _PlaceStep] = {}
        self._numbers = itertools.count()
        self._probes: dict[str, Probe] = {}
        self._answered: dict[str, float] = {}
        self._asking: dict[str, threading.Thread] = {}

    @contextmanager
    def step(self, place: str, what: str) -> Iterator[None]:
        """Watch a call into ``place`` until the context ends; ``what`` names it in the error."""
        number = next(self._numbers)
        self._steps[number] = _PlaceStep(place, what, monotonic())
        try:
            yield
        finally:
            del self._steps[number]

    def ask_by(self, place: str, probe: Probe) -> None:
        """Ask a place by ``probe`` from now on. Calls into places without one are not watched."""
        self._probes[place] = probe

    def limit(self, place: str) -> None:
        """Allow each call into a place that cannot be asked :data:`QUIET_SECONDS`."""
        self.ask_by(place, _silent)

    def start(self, stuck: Callable[[Unavailable], object]) -> None:
        """Start to look; ``stuck`` is called once, on another thread, to end the process."""
        threading.Thread(target=self._look, args=(stuck,), name="place-watch", daemon=True).start()

    def _look(self, stuck: Callable[[Unavailable], object]) -> None:
        pause = threading.Event()
        while not pause.wait(LOOK_SECONDS):
            now = monotonic()
            for step in tuple(self._steps.values()):
                if step.place not in self._probes:
                    continue
                quiet = now - max(step.since, self._answered.get(step.place, 0.0))
                if quiet > QUIET_SECONDS:
                    message = f"{step.place} has not answered for {QUIET_SECONDS:.0f} s"
                    stuck(_KINDS[step.place](f"{step.what}: {message}"))
                    return
                if quiet >= ASK_SECONDS:
                    self._ask(step.place)

    def _ask(self, place: str) -> None:
        """Ask a place on a thread of its own, unless one still waits for its answer."""
        before = self._asking.get(place)
        if before is None or not before.is_alive():
            self._asking[place] = threading.Thread(
                target=self._one, args=(place,), name="place-probe", daemon=True
            )
            self._asking[place].start()

    def _one(self, place: str) -> None:
        with suppress(Exception):  # no answer; the call itself meets the error too
            self._probes[place]()
            self._answered[place] = monotonic()


def _silent() -> None:
    raise LookupError("nothing answers for this place")
