"""Disturb a stream worker's broker and store, under load and while it is quiet; count every write.

``python -m tools.torture.stream [--short] [--broker B] [--times N] [--pause SECONDS]
[--only WHAT]``

Each disturbance comes once amid a stream of events, and once while there are none, with one event
after it:

* store: PostgreSQL is stopped at once and started again;
* crash: PostgreSQL ends without a word to its clients, and recovers from its log;
* broker: it is killed and started again;
* cut: the connection to the store is cut after a commit, before its reply;
* pause: all processes of PostgreSQL stand still for a while;
* full: PostgreSQL refuses each write of predictions for want of room (SQLSTATE 53100) until the
  worker has backed off for a while;
* remake: the topic or stream is deleted and made anew, once all its events have answers.

No event may be lost or scored twice, and none may become a dead letter. While the store stands
still or is full, the worker must tell that it is not ready and how many events wait; afterwards,
that it is ready and none waits. The seconds from the end of a disturbance, or from the last event
if that comes later, until all events have answers are printed. Exits with 1 if something is wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .stream_brokers import Stuck
from .stream_rig import StreamRig

_EVENTS = 2000
_LATE, _LATE_SECONDS = 10, 5.0
"""Events that come shortly before the end of a pause, and how long before it."""

_LOOK_SECONDS = 3.0
"""Longer than a worker takes between two looks at its lag."""

DISTURBANCES = ("store", "crash", "broker", "cut", "pause", "full", "remake")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done, and how often."""

    broker: str = "nats"
    times: int = 10
    pause: float = 20.0
    full: float = 10.0
    """Seconds without room, in which the worker backs off."""

    events: int = _EVENTS
    only: Sequence[str] = DISTURBANCES


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it."""

    faults: list[str]
    recoveries: dict[str, list[float]]
    """Seconds until all events had answers, by disturbance and occasion."""

    events: int
    starts: int


def run(plan: Plan, say: Callable[[str], None] = lambda line: None) -> Result:
    """Do all of a plan. Raises Stuck where events get no answers."""
    recoveries: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, StreamRig(Path(folder), plan.broker) as rig:
        rig.send(100)
        rig.settle()
        for number in range(plan.times):
            for what in plan.only:
                for busy in (True, False):
                    name = f"{what}, {'under load' if busy else 'while quiet'}"
                    try:
                        seconds = _disturb(rig, plan, what, busy)
                        rig.until_told(ready=True, waiting=lambda count: count == 0)
                    except Stuck as error:
                        told = f"{number + 1}: {name}: {error}; {rig.worker_story()}"
                        raise Stuck(told) from None
                    recoveries.setdefault(name, []).append(seconds)
                    faults = rig.check()
                    say(
                        f"{number + 1}: {name}: {seconds:.1f} s, {rig.starts} starts; "
                        f"{', '.join(faults) or 'all well'}"
                    )
                    if faults:
                        return Result(faults, recoveries, len(rig.sent), rig.starts)
        return Result([], recoveries, len(rig.sent), rig.starts)


def _disturb(rig: StreamRig, plan: Plan, what: str, busy: bool) -> float:
    """Disturb once; return the seconds it took to recover."""
    if what == "remake":
        rig.broker.remake()  # All of its events have answers: what is deleted is done.
        rig.send(plan.events if busy else 1)
        ended = time.monotonic()
        rig.settle()
        return time.monotonic() - ended
    failures: list[Exception] = []

    def load() -> None:
        try:
            rig.send(plan.events // 2)
        except Exception as error:  # noqa: BLE001  (raised below)
            failures.append(error)

    before = len(rig.sent)
    loading = threading.Thread(target=load)
    if busy:
        rig.send(plan.events // 2)
        if what != "broker":  # A publisher of events needs one.
            loading.start()
    if what == "store":
        rig.restart_store()
    elif what == "crash":
        rig.crash_store()
    elif what == "broker":
        rig.broker.restart()
    elif what == "pause":
        with rig.postgres.paused():
            end = time.monotonic() + plan.pause
            _joined(loading)
            told = _standing_lag(rig, busy)
            time.sleep(max(0.0, end - _LATE_SECONDS - time.monotonic()))
            if busy:
                rig.send(_LATE)
                rig.until_told(ready=False, waiting=lambda count: count == told + _LATE)
            time.sleep(max(0.0, end - time.monotonic()))
    elif what == "full":
        with rig.full_store():
            if not busy:
                rig.send(1)  # Only a write finds that there is no room.
            time.sleep(plan.full)
            _joined(loading)
            left = len(rig.sent) - rig.answered()
            rig.until_told(ready=False, waiting=lambda count: count == left)
    else:
        rig.line.arm()
    _joined(loading)
    ended = time.monotonic()
    if failures:
        raise failures[0]
    if not busy or len(rig.sent) < before + plan.events:
        rig.send(1)
    rig.settle()
    if what == "cut" and not rig.line.cut.wait(30):
        raise Stuck("the line was not cut")
    return time.monotonic() - ended


def _standing_lag(rig: StreamRig, busy: bool) -> int:
    """Return how many events wait while the store stands still; the worker looks at intervals."""
    told = -1
    while True:
        before = told
        told = rig.until_told(ready=False, waiting=lambda count: (count > 0) == busy)
        if told == before:
            return told
        time.sleep(_LOOK_SECONDS)


def _joined(thread: threading.Thread) -> None:
    """Wait for a thread, if it was started."""
    if thread.ident is not None:
        thread.join()


def main() -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.torture.stream")
    parser.add_argument("--short", action="store_true", help="once each, with a short pause")
    parser.add_argument("--broker", choices=("nats", "kafka"), action="append")
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--pause", type=float, default=20.0)
    parser.add_argument("--only", choices=DISTURBANCES, action="append")
    given = parser.parse_args()
    bad = 0
    for broker in given.broker or ("nats", "kafka"):
        plan = Plan(broker, given.times, given.pause, only=given.only or DISTURBANCES)
        if given.short:
            plan = replace(plan, times=1, pause=8.0)
        print(
            f"{broker}: each disturbance {plan.times} times, under load and while quiet", flush=True
        )
        try:
            result = run(plan, lambda line: print(f"  {line}", flush=True))
        except Stuck as error:
            print(f"  {error}")
            bad += 1
            continue
        bad += bool(result.faults)
        print(f"  {result.events} events, {result.starts} starts of the worker")
        for name, seconds in result.recoveries.items():
            print(f"  {name}: at most {max(seconds):.1f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
