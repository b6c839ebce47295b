"""What Kubernetes takes for a cron line, as a pattern and as a check of what no pattern can say.

CronJob reads schedules with robfig/cron: five fields, ``?`` for ``*``, names for months and days,
Sunday is 0 and never 7, no ``L``, ``W`` or ``#``. A line outside that would pass the API server's
check of our object only to fail when the CronJob is made from it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import cache
from zoneinfo import available_timezones

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


def _field(value: str) -> str:
    item = f"([*]|[?]|{value}(-{value})?)(/0*[1-9][0-9]?)?"
    return f"{item}(,{item})*"


_FIELDS = (
    _field("[0-5]?[0-9]"),
    _field("([01]?[0-9]|2[0-3])"),
    _field("(0?[1-9]|[12][0-9]|3[01])"),
    _field("(0?[1-9]|1[0-2]|" + "|".join(_MONTHS) + ")"),
    _field("(0?[0-6]|" + "|".join(_DAYS) + ")"),
)

CRON_PATTERN = (
    "^(@(yearly|annually|monthly|weekly|daily|midnight|hourly)|(?i:" + " +".join(_FIELDS) + "))$"
)


def schedule_fault(schedule: str, now: datetime | None = None) -> str | None:
    """Say what is wrong with a line that fits the pattern; None when nothing is."""
    for field in schedule.split():
        for first, last in re.findall(r"(\w+)-(\w+)", field):
            if _number(first) > _number(last):
                return f"{first}-{last} runs backwards"
    from croniter import croniter
    from croniter.croniter import CroniterBadDateError

    try:
        croniter(schedule, now or datetime.now(UTC)).get_next(datetime)
    except CroniterBadDateError:
        return "no such day ever comes"
    return None


def _number(value: str) -> int:
    name = value.lower()
    if name in _MONTHS:
        return _MONTHS.index(name) + 1
    return _DAYS.index(name) if name in _DAYS else int(value)


def zone_is_known(zone: str) -> bool:
    """Tell whether a time zone exists, as far as this machine's zone data can say."""
    zones = _zones()
    return not zones or zone in zones


@cache
def _zones() -> frozenset[str]:
    """Return the zones of this machine: asking walks its file system."""
    return frozenset(available_timezones())
