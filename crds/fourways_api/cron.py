"""Schedules as Kubernetes reads them: which texts are valid, and when the next run is due.

CronJob parses schedules with robfig/cron: five fields, ``?`` for ``*``, names for months and days,
Sunday is 0 and never 7, no ``L``, ``W`` or ``#``. Any other line would pass the API server's check
of a ModelDeployment and then fail when its CronJob is created. Other cron libraries read the same
line differently when clocks change, and when ``*/1`` is combined with a weekday. So tests/oracle
compares this module with the Go module itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache, partial
from zoneinfo import ZoneInfo, available_timezones

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


_DESCRIPTORS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))


@dataclass(frozen=True, slots=True)
class CronSchedule:
    """A parsed schedule: the values that each field matches."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    """Sunday is 0."""

    either_day: bool
    """A match of the day or of the weekday suffices: neither has a star. ``*/1`` counts as one."""

    @classmethod
    def parse(cls, text: str) -> CronSchedule:
        """Parse a schedule that matches ``CRON_PATTERN``. Raises ValueError for other texts."""
        fields = _DESCRIPTORS.get(text, text).split()
        minutes, hours, days, months, weekdays = (
            _field_of(field, *bounds) for field, bounds in zip(fields, _BOUNDS, strict=True)
        )
        either_day = not (days[1] or weekdays[1])
        return cls(minutes[0], hours[0], days[0], months[0], weekdays[0], either_day)

    def matches_day(self, local: datetime) -> bool:
        """Tell whether a run is due on the day of a local time."""
        by_number = local.day in self.days
        by_weekday = local.isoweekday() % 7 in self.weekdays
        return (by_number or by_weekday) if self.either_day else (by_number and by_weekday)

    def matches(self, local: datetime) -> bool:
        """Tell whether a run is due in the minute of a local time."""
        return (
            local.month in self.months
            and self.matches_day(local)
            and local.hour in self.hours
            and local.minute in self.minutes
        )


def _field_of(text: str, low: int, high: int) -> tuple[frozenset[int], bool]:
    """Return the values of a field, and whether it contains a star."""
    values: set[int] = set()
    star = False
    for item in text.split(","):
        between, _, step = item.partition("/")
        first, dash, last = between.partition("-")
        if first in ("*", "?"):
            start, end = low, high
            star = star or int(step or 1) == 1
        else:
            start = _number(first)
            end = _number(last) if dash else high if step else start
        values.update(range(start, end + 1, int(step or 1)))
    return frozenset(values), star


def next_time(schedule: str, time_zone: str, after: datetime) -> datetime | None:
    """Return when a CronJob next starts after a moment, in UTC; None if not within five years.

    The steps are those of ``SpecSchedule.Next`` of robfig/cron v3, which Kubernetes uses, because
    they determine what happens when clocks change: a time that does not exist is skipped, and a
    time that occurs twice matches twice.
    """
    plan = CronSchedule.parse(schedule)
    clock = _Clock(zone_of(time_zone), int(after.timestamp()) + 1)
    parts = (
        _Step(lambda t: t.month in plan.months, clock.to_month, clock.add_month, "month", 1),
        _Step(plan.matches_day, clock.to_midnight, clock.add_day, "day", 1),
        _Step(lambda t: t.hour in plan.hours, clock.to_hour, partial(clock.add, 3600), "hour", 0),
        _Step(
            lambda t: t.minute in plan.minutes, clock.to_minute, partial(clock.add, 60), "minute", 0
        ),
        _Step(lambda t: t.second == 0, lambda: None, partial(clock.add, 1), "second", 0),
    )
    latest = clock.local.year + 5
    while clock.local.year <= latest and clock.steps < _MOST_STEPS:
        if all(clock.settle(part) for part in parts):
            return datetime.fromtimestamp(clock.unix, UTC)
    return None


_MOST_STEPS = 20_000
"""Five years have 1,830 days. If midnight does not exist, the original may search for ever."""


@dataclass(frozen=True, slots=True)
class _Step:
    """One part of a time: whether it matches, how to advance it, and where it wraps around."""

    matches: Callable[[datetime], bool]
    floor: Callable[[], None]
    advance: Callable[[], None]
    name: str
    first: int


class _Clock:
    """A moment that moves forward, with the arithmetic of Go's time package."""

    def __init__(self, zone: tzinfo, unix: int) -> None:
        self._zone = zone
        self._moved = False
        self.steps = 0
        self._go(unix)

    def settle(self, part: _Step) -> bool:
        """Advance until a part matches; False if it wrapped: check the larger parts again."""
        while not part.matches(self.local):
            self.steps += 1
            if self.steps > _MOST_STEPS:
                return False
            if not self._moved:
                self._moved = True
                part.floor()
            part.advance()
            if getattr(self.local, part.name) == part.first:
                return False
        return True

    def to_month(self) -> None:
        self._set(self.local.replace(day=1, hour=0, minute=0, second=0))

    def to_midnight(self) -> None:
        self._set(self.local.replace(hour=0, minute=0, second=0))

    def to_hour(self) -> None:
        self._set(self.local.replace(minute=0, second=0))

    def to_minute(self) -> None:
        self._go(self.unix - self.unix % 60)

    def add(self, seconds: int) -> None:
        self._go(self.unix + seconds)

    def add_month(self) -> None:
        # Days beyond the end of the month overflow into the next month.
        years, month = divmod(self.local.month, 12)
        first = self.local.replace(year=self.local.year + years, month=month + 1, day=1)
        self._set(first + timedelta(days=self.local.day - 1))

    def add_day(self) -> None:
        self._set(self.local + timedelta(days=1))
        # If clocks change at midnight, the day begins an hour earlier or later.
        if hour := self.local.hour:
            self.add(3600 * (24 - hour if hour > 12 else -hour))

    def _set(self, local: datetime) -> None:
        """Set a local time; one that does not exist gets the UTC offset that Go would use."""
        counted = int((local.replace(tzinfo=None) - datetime(1970, 1, 1)).total_seconds())
        offset = self._offset(counted)
        self._go(counted - self._offset(counted - offset) if offset else counted)

    def _go(self, unix: int) -> None:
        self.unix = unix
        self.local = datetime.fromtimestamp(unix, self._zone).replace(tzinfo=None)

    def _offset(self, unix: int) -> int:
        offset = datetime.fromtimestamp(unix, self._zone).utcoffset()
        return int(offset.total_seconds()) if offset else 0


def schedule_fault(schedule: str, now: datetime | None = None) -> str | None:
    """Say what is wrong with a line that matches the pattern; None if it is valid."""
    for field in schedule.split():
        for first, last in re.findall(r"(\w+)-(\w+)", field):
            if _number(first) > _number(last):
                return f"the range {first}-{last} is reversed"
    if next_time(schedule, "Etc/UTC", now or datetime.now(UTC)) is None:
        return "the schedule has no run within five years"
    return None


def clock_change_notes(schedule: str, time_zone: str, now: datetime) -> list[str]:
    """Say which runs of the coming year a clock change skips or repeats.

    An hourly schedule is ignored: it has a run in the hour before and in the hour after.
    """
    plan, notes = CronSchedule.parse(schedule), []
    if len(plan.hours) == 24:
        return []
    for moment, change in _clock_changes(zone_of(time_zone), now):
        # The first due time among those that are skipped or that occur twice.
        lost = change > timedelta(0)
        start = moment if lost else moment + change
        minutes = (start + timedelta(minutes=m) for m in range(int(abs(change) / _MINUTE)))
        due = next((local for local in minutes if plan.matches(local)), None)
        if due is not None:
            comes = (
                "does not exist, so that run is skipped"
                if lost
                else "comes twice, and so does the run"
            )
            notes.append(f"{due:%Y-%m-%d %H:%M} {comes} (clocks change in {time_zone})")
    return notes


def step_notes(schedule: str) -> list[str]:
    """Say which steps are longer than their field: ``*/90`` is not every 90 minutes, but hourly."""
    notes = []
    units = (("minute", "hour", 60), ("hour", "day", 24))
    fields = _DESCRIPTORS.get(schedule, schedule).split()
    for text, (unit, longer, size) in zip(fields, units, strict=False):
        for item in text.split(","):
            first, _, step = item.partition("/")
            if first in ("*", "?") and int(step or 1) >= size:
                notes.append(
                    f"{item} is not every {int(step)} {unit}s: it is {unit} 0 of every {longer}"
                )
    return notes


_MINUTE = timedelta(minutes=1)


def _clock_changes(zone: tzinfo, now: datetime) -> Iterator[tuple[datetime, timedelta]]:
    """Yield each clock change within a year: the local time just before it, and the shift."""
    none = timedelta(0)
    hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    before = hour.astimezone(zone).utcoffset() or none
    for _ in range(366 * 24):
        hour += timedelta(hours=1)
        after = hour.astimezone(zone).utcoffset() or none
        if after != before:
            yield (hour + before).replace(tzinfo=None), after - before
        before = after


def _number(value: str) -> int:
    name = value.lower()
    if name in _MONTHS:
        return _MONTHS.index(name) + 1
    return _DAYS.index(name) if name in _DAYS else int(value)


def zone_of(time_zone: str) -> tzinfo:
    """Return a time zone; UTC needs no zone data."""
    return UTC if time_zone == "Etc/UTC" else ZoneInfo(time_zone)


def zone_is_known(zone: str) -> bool:
    """Tell whether a time zone exists, according to this machine's zone data."""
    zones = _zones()
    return not zones or zone in zones


_OF_THE_MACHINE = {"localtime", "Factory", "posixrules"}
"""Files beside the zones: names of whatever zone a machine has. A CronJob's would be that of the
control plane."""


@cache
def _zones() -> frozenset[str]:
    """Return the zones of this machine; cached, since listing them walks the file system."""
    return frozenset(available_timezones() - _OF_THE_MACHINE)
