"""``mode: auto``: from what the users need to one of the four modes, and the reason in words.

The decision tree is a list of questions asked in order; the first that says yes decides::

    offline needed?                                        -> edge
    inputs arrive on their own, as events?                 -> streaming
    minutes of staleness fine, and inputs known ahead?     -> batch
    low and bursty traffic that can wait for a cold start? -> realtime, scaled to zero
    otherwise                                              -> realtime

It is pure: the operator, the command line and the embedded host ask it the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .requirements import Requirements
from .values import seconds

Mode = Literal["batch", "realtime", "streaming", "edge"]

BATCH_MIN_STALENESS = 60.0
"""Seconds of staleness below which a scheduled run cannot keep up."""

COLD_START = 5.0
"""Seconds a caller must be willing to wait before scale to zero is thought of."""

LOW_RATE = 1.0
"""Requests per second below which a replica mostly idles."""


@dataclass(frozen=True, slots=True)
class Step:
    """One question of the tree with its answer."""

    question: str
    answer: bool
    because: str
    mode: Mode
    """Where a yes leads."""
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
    """Requirements that no mode can meet; the text names them and the way out."""


def choose(needs: Requirements) -> Choice:
    """Walk the decision tree.

    Raises:
        Contradiction: two requirements exclude each other.

    """
    _refuse_contradictions(needs)
    path: list[Step] = []
    for ask in (_offline, _events, _stale_is_fine, _rare_and_patient):
        step = ask(needs)
        path.append(step)
        if step.answer:
            zero = ask is _rare_and_patient
            return Choice(step.mode, step.because, tuple(path), zero)
    return Choice("realtime", "the input exists only at the moment of asking", tuple(path))


def _refuse_contradictions(needs: Requirements) -> None:
    latency = seconds(needs.latency) if needs.latency else None
    staleness = seconds(needs.staleness) if needs.staleness else None
    checks: list[tuple[bool, Callable[[], str]]] = [
        (
            needs.arrival == "Scheduled"
            and staleness is not None
            and staleness < BATCH_MIN_STALENESS,
            lambda: (
                f"arrival Scheduled cannot keep answers younger than {needs.staleness}: "
                "allow staleness of 1m or more, or set arrival to OnRequest or Continuous"
            ),
        ),
        (
            needs.arrival == "Continuous" and staleness is not None and staleness < 1.0,
            lambda: (
                f"a stream cannot promise answers younger than {needs.staleness}: "
                "allow staleness of 1s or more, or set arrival to OnRequest"
            ),
        ),
        (
            latency is not None and latency < 0.001 and not needs.offline,
            lambda: (
                f"no answer crosses a network within {needs.latency}: "
                "set offline to true, or allow latency of 1ms or more"
            ),
        ),
        (
            needs.offline and needs.arrival == "Scheduled",
            lambda: (
                "an offline device cannot be reached by a scheduled run: "
                "drop offline, or set arrival to OnRequest"
            ),
        ),
    ]
    for contradicts, explain in checks:
        if contradicts:
            raise Contradiction(explain())


def _offline(needs: Requirements) -> Step:
    return Step(
        "Is the answer needed without a network?",
        needs.offline,
        "offline answers are needed" if needs.offline else "a network is there",
        "edge",
        "drop requirements.offline" if needs.offline else "set requirements.offline to true",
    )


def _events(needs: Requirements) -> Step:
    yes = needs.arrival == "Continuous"
    return Step(
        "Do inputs arrive on their own, as events?",
        yes,
        "inputs arrive as events" if yes else f"arrival is {needs.arrival}",
        "streaming",
        "set requirements.arrival to OnRequest"
        if yes
        else "set requirements.arrival to Continuous",
    )


def _stale_is_fine(needs: Requirements) -> Step:
    known = needs.inputs_known_ahead or needs.arrival == "Scheduled"
    stale = seconds(needs.staleness) if needs.staleness else 0.0
    if needs.arrival == "Scheduled" and not needs.staleness:
        stale = BATCH_MIN_STALENESS
    yes = known and stale >= BATCH_MIN_STALENESS
    if yes:
        because = f"inputs are known ahead and answers may be {needs.staleness or 'as old as the schedule'} old"
        otherwise = "set requirements.inputsKnownAhead to false, or staleness below 1m"
    elif known:
        because = f"answers may be only {needs.staleness or '0s'} old"
        otherwise = "allow requirements.staleness of 1m or more"
    else:
        because = "inputs are not known ahead"
        otherwise = "set requirements.inputsKnownAhead and a staleness of 1m or more"
    return Step(
        "Are minutes of staleness fine, and inputs known ahead?", yes, because, "batch", otherwise
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
            f"callers wait {needs.latency} at the most, less than a cold start",
            "allow requirements.latency of 5s or more",
        )
    else:
        because, otherwise = (
            "traffic is steady",
            "set requirements.bursty with requestsPerSecond of 1 or less",
        )
    return Step(
        "Is traffic low and bursty, with callers who can wait?", yes, because, "realtime", otherwise
    )
