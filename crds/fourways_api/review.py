"""Validate one document of a file as kubectl, the API server and the operator would."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from .cron import clock_change_notes, step_notes
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
    """A document, its deployment if it could be read, and its problems."""

    document: Document
    deployment: ModelDeployment | None
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()
    """Valid but possibly surprising: runs that a clock change skips or repeats, a step longer than
    its field."""


def review(document: Document, now: datetime | None = None) -> Verdict:
    """Validate one document; the notes cover the year from ``now``."""
    problems = document.faults + _unknown_metadata(document)
    deployment = None
    try:
        deployment = parse(document.data)
        check(deployment)
    except InvalidSpec as error:
        problems += error.problems
    described = tuple(_as_written(p, document) for p in problems)
    notes = _notes(deployment, now or datetime.now(UTC)) if deployment and not problems else ()
    return Verdict(document, deployment, described, notes)


def _notes(deployment: ModelDeployment, now: datetime) -> tuple[str, ...]:
    batch = deployment.spec.batch
    if batch is None or deployment.spec.choice().mode != "batch":
        return ()
    notes = step_notes(batch.schedule) + clock_change_notes(batch.schedule, batch.time_zone, now)
    return tuple(f"spec.batch.schedule: {note}" for note in notes)


def _as_written(problem: Problem, document: Document) -> Problem:
    """Show a value that needs quotes as the file has it: 1.0, although it was read as 1."""
    text = document.text(problem.field) if problem.fix.startswith(f'{QUOTE}"') else None
    return problem if text is None else replace(problem, fix=f'{QUOTE}"{text}"')


def _unknown_metadata(document: Document) -> tuple[Problem, ...]:
    """Report unknown metadata, only here: a future API server may add fields to live objects."""
    metadata = document.data.get("metadata")
    names = set(metadata) - METADATA_FIELDS if isinstance(metadata, dict) else set()
    return tuple(
        Problem(f"metadata.{name}", "unknown field", "remove it, or make it a label or annotation")
        for name in sorted(map(str, names))
    )
