"""When a CronJob is due, and whether it missed a due run. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from fourways_api.cron import next_time

from .facts import FIELD_MANAGER, Json, rfc3339

OVERDUE_SECONDS = 120.0
"""Maximum time for the CronJob controller to start a run that is due."""


def next_run(schedule: str, time_zone: str, now: datetime) -> str | None:
    """Return when a CronJob next starts after ``now``, RFC 3339 in UTC; None if never."""
    due = next_time(schedule, time_zone, now)
    return rfc3339(due) if due else None


def overdue_since(cron_job: Json, ended: datetime | None, now: datetime) -> datetime | None:
    """Return when the run that a live CronJob failed to start was due; None if none is overdue.

    ``ended`` is when its last run ended: runs due before that were skipped, since only one run at a
    time is allowed. A suspended CronJob, and one with a run in progress, is not overdue. Runs due
    before the CronJob last changed do not count either: the schedule was a different one.
    """
    spec, status = cron_job["spec"], cron_job.get("status") or {}
    if spec.get("suspend") or status.get("active"):
        return None
    moments = [
        cron_job["metadata"].get("creationTimestamp"),
        status.get("lastScheduleTime"),
        *_changes(cron_job),
    ]
    known = [datetime.fromisoformat(moment) for moment in moments if moment]
    if not known:
        return None
    since = max(known if ended is None else [*known, ended])
    due = next_time(spec["schedule"], spec.get("timeZone") or "Etc/UTC", since)
    if due is None or now - due <= timedelta(seconds=OVERDUE_SECONDS):
        return None
    return due


def _changes(cron_job: Json) -> list[str]:
    """Return when the operator changed the spec."""
    entries = cron_job["metadata"].get("managedFields") or []
    return [
        entry["time"]
        for entry in entries
        if entry.get("manager") == FIELD_MANAGER and entry.get("time")
    ]
