"""What is told as Kubernetes events: what is new between one status and the next. Pure.

An event is told once and forgotten after an hour: news for people, never a record. What is so is
in status.
"""

from __future__ import annotations

from dataclasses import dataclass

from .facts import Json


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a deployment, told once."""

    type: str
    reason: str
    message: str


_BEGINNINGS = frozenset(
    {
        "WaitingForFirstRun",
        "FirstRunInProgress",
        "WaitingForBuild",
        "BuildInProgress",
        "WaitingForKServe",
        "Starting",
    }
)
"""Reasons of not being ready that nobody need look into."""


def events_of(old: Json | None, new: Json) -> list[Event]:
    """Return an event for each condition that changed its status or its reason, and each run.

    A run is told of when it begins (the condition Progressing says so), at each quarter of its
    rows, and when it is published or failed.
    """
    before = {c["type"]: c for c in (old or {}).get("conditions", [])}
    events = []
    for condition in new["conditions"]:
        was = before.get(condition["type"])
        changed = was is None or (was["status"], was["reason"]) != (
            condition["status"],
            condition["reason"],
        )
        if (
            changed
            and condition["status"] != "Unknown"
            and not (was is None and _is_quiet(condition))
        ):
            kind = "Normal" if _is_good(condition) else "Warning"
            events.append(Event(kind, condition["reason"], condition["message"]))
    degraded = any(e.type == "Warning" for e in events)
    failed = [] if degraded else _failed(old or {}, new)
    return [*events, *_passed(old or {}, new), *failed, *_published(old or {}, new)]


def _passed(old: Json, new: Json) -> list[Event]:
    """Tell of the last quarter of its rows that a run at work has passed."""
    was, run = old.get("lastRun") or {}, new.get("lastRun") or {}
    before = _quarters(was) if _attempt(was) == _attempt(run) else 0
    if (now := _quarters(run)) <= before:
        return []
    progress = run["progress"]
    parts = [
        f"{progress['rows']:,} of {progress['totalRows']:,} rows",
        f"{progress['rowsPerSecond']:,.0f} rows/s",
        f"{progress['rejects']:,} refused",
    ]
    if due := progress.get("estimatedCompletion"):
        parts.append(f"done at about {due}")
    return [Event("Normal", "RunProgress", f"run {run['name']}: {now * 25}%: {', '.join(parts)}")]


def _quarters(run: Json) -> int:
    progress = run.get("progress") or {}
    total = progress.get("totalRows")
    # That all of it is done is told by what becomes of the run.
    return min(3, int(4 * progress["rows"] / total)) if total else 0


def _failed(old: Json, new: Json) -> list[Event]:
    """Tell of a run that failed as the one before did: the condition stays as it is."""
    was, run = old.get("lastRun") or {}, new.get("lastRun") or {}
    if run.get("outcome") != "Failed":
        return []
    if was.get("outcome") == "Failed" and _attempt(was) == _attempt(run):
        return []
    why = run.get("message") or "no reason is known"
    return [Event("Warning", "RunFailed", f"run {run['name']} failed: {why}")]


def _attempt(run: Json) -> tuple[str | None, str | None]:
    return run.get("name"), run.get("job")


def _published(old: Json, new: Json) -> list[Event]:
    """Tell of a run that answers come from now. Conditions stay as they are from run to run."""
    was, run = old.get("lastPublished") or {}, new.get("lastPublished")
    if run is None or _attempt(run) == _attempt(was):
        return []
    figures = f"{run.get('rows', 0)} rows, {run.get('rejects', 0)} refused"
    return [Event("Normal", "RunPublished", f"answers come from run {run['name']} ({figures})")]


def _is_good(condition: Json) -> bool:
    if condition["type"] == "Progressing":
        return True
    good = "False" if condition["type"] == "Degraded" else "True"
    return bool(condition["status"] == good) or condition["reason"] in _BEGINNINGS


def _is_quiet(condition: Json) -> bool:
    """Tell whether a first result is only the start of things, not news."""
    return condition["type"] in ("Progressing", "Degraded", "ModelResolved") and _is_good(condition)
