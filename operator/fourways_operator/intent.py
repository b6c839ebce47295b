"""What a deployment's spec asks for: its objects, or why there are none. Pure.

A fault in it is its deployment's: an exception is logged with its stack and reported in that
deployment's status.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from fourways_api import ModelDeployment, Problem

from .facts import Json, OperatorSettings
from .installation import admitted_spec
from .kinds import JOB
from .planning import plan, plan_runs, share_of
from .runs import is_under_way
from .specs import ParsedSpec
from .status import pinned_digest
from .texts import on_one_line

logger = logging.getLogger(__name__)

MAX_FAULT = 512
"""Maximum number of characters of an exception in the status."""


def described(error: Exception) -> str:
    """Return the type and text of an exception, for the status."""
    return on_one_line(f"{type(error).__name__}: {error}", MAX_FAULT)


@dataclass(frozen=True, slots=True)
class Intent:
    """The objects that a spec asks for, or why there are none.

    ``problems`` make the spec invalid; ``fault`` is why a valid spec could not be planned.
    """

    spec: ModelDeployment | None
    problems: tuple[Problem, ...] = ()
    wanted: tuple[Json, ...] = ()
    fault: str | None = None


def intent_of(deployment: Json, settings: OperatorSettings, children: Sequence[Json]) -> Intent:
    """Return what a deployment's spec asks for. ``children`` are its objects in the cluster."""
    try:
        found = admitted_spec(deployment, settings)
        if found.spec is None:
            return Intent(None, found.problems)
    except Exception as error:  # noqa: BLE001  (logged with its stack, and reported)
        return Intent(None, (_unreadable(deployment, error),))
    try:
        pinned = pinned_digest(deployment)
        jobs = [child for child in children if JOB.of(child) and is_under_way(child)]
        runs = plan_runs(found.spec, settings, pinned, jobs)
        return Intent(found.spec, (), (*_planned(found, settings, pinned), *runs))
    except Exception as error:
        meta = deployment["metadata"]
        logger.exception("%s/%s: cannot be planned", meta["namespace"], meta["name"])
        return Intent(found.spec, fault=described(error))


def _unreadable(deployment: Json, error: Exception) -> Problem:
    meta = deployment["metadata"]
    logger.exception("%s/%s: cannot be checked", meta["namespace"], meta["name"])
    return Problem("spec", f"cannot be checked: {described(error)}", "correct it, and report this")


def _planned(found: ParsedSpec, settings: OperatorSettings, pinned: str | None) -> tuple[Json, ...]:
    """Plan the objects, and check that the gateway's share can be planned. Pure, so done once."""
    spec = found.spec
    assert spec is not None  # noqa: S101  (the caller looked)

    def planned() -> tuple[Json, ...]:
        share_of(spec)
        return plan(spec, settings, pinned)

    return found.once((settings, pinned), planned)
