"""The Kubernetes events of a deployment: what changed from one status to the next. Pure.

An event is emitted once, and Kubernetes deletes it after an hour: it informs people and is not a
record. The state is in status.

One cause makes one event, however many conditions it changes. A Warning means that something is
wrong; what is usual for a deployment that was just created or changed is Normal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fourways_api.reasons import Reason

from .facts import Json

_CONDITIONS = ("SpecValid", "Degraded", "Ready", "ModelResolved", "Progressing", "Drifted")
"""Conditions that cause events. If several have the same cause, the first one reports it.

Reconciling and Stalled only repeat the cause of another condition."""


_BAD = ("Degraded", "Drifted")
"""Conditions of which True says that something is wrong."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a deployment."""

    type: str
    reason: str
    message: str


def events_of(old: Json | None, new: Json) -> list[Event]:
    """Return an event for each cause of changed conditions, and those of runs.

    A run causes an event when it starts (the condition Progressing), at each quarter of its rows,
    and when it is published or fails.
    """
    old = old or {}
    before = {c["type"]: c for c in old.get("conditions", [])}
    events = list(_of_conditions(before, {c["type"]: c for c in new["conditions"]}))
    degraded = any(e.type == "Warning" for e in events)
    failed = [] if degraded else _failed(old, new)
    return [*events, *_passed(old, new), *failed, *_published(old, new)]


def _of_conditions(before: dict[str, Json], now: dict[str, Json]) -> Iterator[Event]:
    # A cause that the earlier status contained is not new, whichever condition has it now.
    causes = {c["reason"] for kind, c in before.items() if not _is_good(kind, c)}
    for kind in _CONDITIONS:
        condition, was = now.get(kind), before.get(kind)
        if condition is None or condition["status"] == "Unknown" or not _changed(was, condition):
            continue
        good = _is_good(kind, condition)
        if good and was is None and kind in ("Progressing", *_BAD, "ModelResolved"):
            continue  # every deployment begins like this
        if good and kind == "Drifted" and (was is None or was["status"] != "True"):
            continue  # too few records, and enough again: that comes and goes with the load
        cause = {condition["reason"], condition["message"]}
        if not good and cause & causes:
            continue
        if not good:
            causes |= cause
        elif kind == "Progressing" and condition["status"] == "False" and cause & causes:
            continue  # the cause that stopped the rollout is reported already
        warns = not good and not _is_usual(condition, was)
        yield Event("Warning" if warns else "Normal", condition["reason"], condition["message"])


def _changed(was: Json | None, condition: Json) -> bool:
    return was is None or (was["status"], was["reason"]) != (
        condition["status"],
        condition["reason"],
    )


def _is_good(kind: str, condition: Json) -> bool:
    if kind == "Progressing":
        return True
    good = "False" if kind in _BAD else "True"
    return bool(condition["status"] == good)


def _is_usual(condition: Json, was: Json | None) -> bool:
    """Tell whether it is usual not to be ready: after a change, or before the first time."""
    reason = Reason.known(condition["reason"])
    if reason is None or not reason.is_beginning:
        return False
    lost = (
        was is not None
        and was["status"] == "True"
        and was.get("observedGeneration") == condition.get("observedGeneration")
    )
    return not lost


def _passed(old: Json, new: Json) -> list[Event]:
    """Return the event for the latest quarter of its rows that a run in progress has passed."""
    was, run = old.get("lastRun") or {}, new.get("lastRun") or {}
    before = _quarters(was) if _attempt(was) == _attempt(run) else 0
    if (now := _quarters(run)) <= before:
        return []
    progress = run["progress"]
    parts = [
        f"{progress['rows']:,} of {progress['totalRows']:,} rows",
        f"{progress['rowsPerSecond']:,.0f} rows/s",
        f"{progress['rejects']:,} rejected",
    ]
    if due := progress.get("estimatedCompletion"):
        parts.append(f"done at about {due}")
    message = f"run {run['name']}: {now * 25}%: {', '.join(parts)}"
    return [Event("Normal", Reason.RunProgress, message)]


def _quarters(run: Json) -> int:
    progress = run.get("progress") or {}
    total = progress.get("totalRows")
    # The fourth quarter has no event: the run is then published or fails.
    return min(3, int(4 * progress["rows"] / total)) if total else 0


def _failed(old: Json, new: Json) -> list[Event]:
    """Return the event for a run that failed like the previous one: no condition changed."""
    was, run = old.get("lastRun") or {}, new.get("lastRun") or {}
    if run.get("outcome") != "Failed":
        return []
    if was.get("outcome") == "Failed" and _attempt(was) == _attempt(run):
        return []
    why = run.get("message") or "the cause is not known"
    return [Event("Warning", Reason.RunFailed, f"run {run['name']} failed: {why}")]


def _attempt(run: Json) -> tuple[str | None, str | None]:
    return run.get("name"), run.get("job")


def _published(old: Json, new: Json) -> list[Event]:
    """Return the event for a newly published run: no condition changed."""
    was, run = old.get("lastPublished") or {}, new.get("lastPublished")
    if run is None or _attempt(run) == _attempt(was):
        return []
    figures = f"{run.get('rows', 0)} rows, {run.get('rejects', 0)} rejected"
    message = f"predictions come from run {run['name']} ({figures})"
    return [Event("Normal", Reason.RunPublished, message)]
