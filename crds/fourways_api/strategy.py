"""``mode: auto``: choose one of the four modes from the requirements, and say why.

The decision tree is an ordered list of questions. The first yes decides::

    offline needed?                                        -> edge
    inputs arrive as events?                               -> streaming
    staleness of minutes acceptable, inputs known ahead?   -> batch
    low and bursty traffic that can wait for a cold start? -> realtime, scaled to zero
    otherwise                                              -> realtime

It is pure: the operator, the command line and the embedded host share it. :data:`TREE_IN_CEL` is
the same tree for the API server; a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .requirements import Requirements
from .values import seconds

Mode = Literal["batch", "realtime", "streaming", "edge"]
RoutedMode = Literal["realtime", "streaming", "edge"]
"""The modes that have routes in the gateway: the store alone answers for batch runs."""

BATCH_MIN_STALENESS = 60.0
"""Seconds of staleness below which a scheduled run cannot keep up."""

COLD_START = 5.0
"""Seconds that a caller must be able to wait before scaling to zero is considered."""

LOW_RATE = 1.0
"""Requests per second below which a replica mostly idles."""


_STALE_IS_FINE_IN_CEL = (
    "has(self.requirements.staleness)"
    " ? duration(self.requirements.staleness) >= duration('1m')"
    " && (self.requirements.inputsKnownAhead || self.requirements.arrival == 'Scheduled')"
    " : self.requirements.arrival == 'Scheduled'"
)

TREE_IN_CEL: dict[Mode, str] = {
    "edge": "self.requirements.offline",
    "streaming": "!self.requirements.offline && self.requirements.arrival == 'Continuous'",
    "batch": "!self.requirements.offline && self.requirements.arrival != 'Continuous'"
    f" && ({_STALE_IS_FINE_IN_CEL})",
    "realtime": "!self.requirements.offline && self.requirements.arrival != 'Continuous'"
    f" && !({_STALE_IS_FINE_IN_CEL})",
}
"""By mode, the condition on a spec under which the tree chooses it."""


@dataclass(frozen=True, slots=True)
class Step:
    """One question of the tree with its answer."""

    question: str
    answer: bool
    because: str
    mode: Mode
    """The mode that a yes leads to."""
    otherwise: str
    """What would have to change for the other answer."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The mode chosen, why, and the path through the tree."""

    mode: Mode
    reason: str
    path: tuple[Step, ...]
    scale_to_zero: bool = False


class Contradiction(ValueError):
    """Settings that contradict each other; the text names them and the fix."""


def choose(needs: Requirements) -> Choice:
    """Walk the decision tree."""
    path: list[Step] = []
    for ask in (_offline, _events, _stale_is_fine, _rare_and_patient):
        step = ask(needs)
        path.append(step)
        if step.answer:
            zero = ask is _rare_and_patient
            return Choice(step.mode, step.because, tuple(path), zero)
    return Choice("realtime", "the input is known only when the request arrives", tuple(path))


def _offline(needs: Requirements) -> Step:
    return Step(
        "Is the answer needed without a network?",
        needs.offline,
        "offline answers are needed" if needs.offline else "a network is available",
        "edge",
        "remove requirements.offline" if needs.offline else "set requirements.offline to true",
    )


def _events(needs: Requirements) -> Step:
    yes = needs.arrival == "Continuous"
    return Step(
        "Do inputs arrive as events?",
        yes,
        "inputs arrive as events" if yes else f"arrival is {needs.arrival}",
        "streaming",
        "set requirements.arrival to OnRequest"
        if yes
        else "set requirements.arrival to Continuous",
    )


def _stale_is_fine(needs: Requirements) -> Step:
    scheduled = needs.arrival == "Scheduled"
    known = needs.inputs_known_ahead or scheduled
    # A schedule without a limit on staleness accepts whatever staleness the schedule gives.
    stale = seconds(needs.staleness) if needs.staleness else BATCH_MIN_STALENESS * scheduled
    yes = known and stale >= BATCH_MIN_STALENESS
    if yes:
        age = f"{needs.staleness} old" if needs.staleness else "as old as the last run"
        because = f"inputs are known ahead and answers may be {age}"
        otherwise = (
            "set requirements.arrival to OnRequest, and inputsKnownAhead to false"
            if scheduled
            else "set requirements.inputsKnownAhead to false, or staleness below 1m"
        )
    elif known:
        because = f"answers may be only {needs.staleness or '0s'} old"
        otherwise = "set requirements.staleness to 1m or more"
    else:
        because = "inputs are not known ahead"
        otherwise = "set requirements.inputsKnownAhead and a staleness of 1m or more"
    return Step(
        "Is staleness of minutes acceptable, and are inputs known ahead?",
        yes,
        because,
        "batch",
        otherwise,
    )


def _rare_and_patient(needs: Requirements) -> Step:
    rare = needs.bursty and (needs.requests_per_second or 0.0) <= LOW_RATE
    patient = needs.latency is None or seconds(needs.latency) >= COLD_START
    yes = rare and patient
    if yes:
        because, otherwise = (
            "traffic is low and bursty, and callers can wait for a cold start",
            "set requirements.bursty to false",
        )
    elif rare:
        because, otherwise = (
            f"callers wait at most {needs.latency}, less than a cold start takes",
            "set requirements.latency to 5s or more",
        )
    else:
        because, otherwise = (
            f"traffic is more than {LOW_RATE:g} request per second"
            if needs.bursty
            else "traffic is steady",
            "set requirements.bursty with requestsPerSecond of 1 or less",
        )
    return Step(
        "Is traffic low and bursty, and can callers wait?", yes, because, "realtime", otherwise
    )
