"""When a CronJob is due, and whether a due run was not started. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from croniter import croniter

from .facts import FIELD_MANAGER, Json, rfc3339

OVERDUE_SECONDS = 120.0
"""Time the CronJob controller has to start a run that is due."""


def next_run(schedule: str, time_zone: str, now: datetime) -> str:
    """Return when a schedule is due next after ``now``, RFC 3339 in UTC."""
    return rfc3339(_next(schedule, time_zone, now))


def overdue_since(cron_job: Json, ended: datetime | None, now: datetime) -> datetime | None:
    """Return when the run was due that a live CronJob did not start; None where none is overdue.

    ``ended`` is when its last run ended: what was due before that was skipped, since one run at a
    time is allowed. A suspended CronJob, and one whose run is in progress, is not overdue. Neither
    is what was due before the CronJob last changed: its schedule was another one.
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
    due = _next(spec["schedule"], spec.get("timeZone") or "Etc/UTC", since)
    return due if now - due > timedelta(seconds=OVERDUE_SECONDS) else None


def _changes(cron_job: Json) -> list[str]:
    """Return when the operator changed the spec."""
    entries = cron_job["metadata"].get("managedFields") or []
    return [
        entry["time"]
        for entry in entries
        if entry.get("manager") == FIELD_MANAGER and entry.get("time")
    ]


def _next(schedule: str, time_zone: str, after: datetime) -> datetime:
    zone: tzinfo = UTC if time_zone == "Etc/UTC" else ZoneInfo(time_zone)
    due: datetime = croniter(schedule, after.astimezone(zone)).get_next(datetime)
    return due.astimezone(UTC)
