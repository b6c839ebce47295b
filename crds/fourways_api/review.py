"""The verdict on one document of a file: what kubectl, API server and operator would say to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from .cron import clock_change_notes
from .deployment import ModelDeployment
from .documents import Document
from .problems import InvalidSpec, Problem, check, parse
from .wording import QUOTE

METADATA_FIELDS = {
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """A document, the deployment it holds if it could be read, and what is wrong with it."""

    document: Document
    deployment: ModelDeployment | None
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()
    """What is valid and may still surprise: runs that a change of clocks skips or doubles."""


def review(document: Document, now: datetime | None = None) -> Verdict:
    """Judge one document; ``now`` is the moment from which the notes look a year ahead."""
    problems = document.faults + _unknown_metadata(document)
    deployment = None
    try:
        deployment = parse(document.data)
        check(deployment)
    except InvalidSpec as error:
        problems += error.problems
    told = tuple(_as_written(p, document) for p in problems)
    notes = _notes(deployment, now or datetime.now(UTC)) if deployment and not problems else ()
    return Verdict(document, deployment, told, notes)


def _notes(deployment: ModelDeployment, now: datetime) -> tuple[str, ...]:
    batch = deployment.spec.batch
    if batch is None or deployment.spec.choice().mode != "batch":
        return ()
    notes = clock_change_notes(batch.schedule, batch.time_zone, now)
    return tuple(f"spec.batch.schedule: {note}" for note in notes)


def _as_written(problem: Problem, document: Document) -> Problem:
    """Name what is to be quoted as the file has it: 1.0, where the value is the number 1."""
    text = document.text(problem.field) if problem.fix.startswith(f'{QUOTE}"') else None
    return problem if text is None else replace(problem, fix=f'{QUOTE}"{text}"')


def _unknown_metadata(document: Document) -> tuple[Problem, ...]:
    """Name misspelt metadata, here only: a server of tomorrow may add to what an operator reads."""
    metadata = document.data.get("metadata")
    names = set(metadata) - METADATA_FIELDS if isinstance(metadata, dict) else set()
    return tuple(
        Problem(f"metadata.{name}", "unknown field", "remove it, or make it a label or annotation")
        for name in sorted(map(str, names))
    )
