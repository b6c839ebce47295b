"""What a target tells of one deployment besides its status: its pods, events and logs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

Json = dict[str, Any]

MAX_SOURCES = 10
"""Number of pods whose logs are read at once."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """The pods of a deployment, and its events, the latest last.

    An event has the fields time, type, reason, object, message and count.
    """

    pods: Sequence[Json]
    events: Sequence[Json]


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which lines of which logs are wanted."""

    tail: int
    """Number of lines of each log, from its end."""

    pod: str | None = None
    """The pod (or on the host, the process or run); None: those that :func:`newest` chooses."""

    follow: bool = False
    previous: bool = False
    """Those of the container before its restart."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line, and the pod that wrote it."""

    source: str
    text: str


def newest(pods: Sequence[Json]) -> list[Json]:
    """Return the pods whose logs matter: of Jobs, those of the latest one only."""
    ordered = sorted(pods, key=_created, reverse=True)
    latest = next((job for pod in ordered if (job := job_of(pod))), None)
    chosen = (pod for pod in ordered if job_of(pod) in (None, latest))
    return list(islice(chosen, MAX_SOURCES))


def job_of(pod: Mapping[str, Any]) -> str | None:
    """Return the name of a pod's Job, if it has one."""
    from fourways_operator.runs import JOB_LABEL

    name: str | None = (pod["metadata"].get("labels") or {}).get(JOB_LABEL)
    return name


def _created(pod: Mapping[str, Any]) -> str:
    return str(pod["metadata"].get("creationTimestamp") or "")


def last_lines(text: str, count: int) -> Iterator[str]:
    """Yield the last lines of a text."""
    yield from text.splitlines()[-count:] if count else ()
