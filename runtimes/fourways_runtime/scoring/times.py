"""Dates and times as whole numbers since 1970-01-01 00:00 UTC, which is what models receive.

Owns the grammar of their texts: ISO 8601 with dashes, such as ``2026-01-31`` and
``2026-01-31T12:30:05.25Z``. A text without an offset is UTC. What is finer than the type's unit is
cut off towards the past, so that a moment belongs to the second or day in which it lies. Pure; no
library.
"""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from typing import Final

PER_SECOND: Final = {
    "timestamp_s": 1,
    "timestamp_ms": 10**3,
    "timestamp_us": 10**6,
    "timestamp_ns": 10**9,
}
"""Units of a second, by contract type; a ``date`` counts days."""

DAY = 86_400
_EPOCH = date(1970, 1, 1).toordinal()
_EPOCH_TIME = datetime(1970, 1, 1)
_MOST = 2**63
_FORM = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})"
    r"(?:[Tt ](\d{2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)? ?([Zz]|[+-]\d{2}(?::?\d{2})?)?)?",
    re.ASCII,
)


def is_time(kind: str) -> bool:
    """Return whether a contract type is a date or a time."""
    return kind in PER_SECOND or kind == "date"


def example(kind: str) -> str:
    """Return a text of the type."""
    return "2026-01-31" if kind == "date" else "2026-01-31T12:30:00Z"


def outside(value: object, kind: str) -> str:
    """Return the message for a moment that 64 bits of the unit cannot hold."""
    return f"{value} is outside {kind}; choose a coarser unit"


def count_of(kind: str, text: str) -> int:
    """Parse a text to the units since 1970 UTC. Raises ValueError, whose text is the fault."""
    found = _FORM.fullmatch(text)
    try:
        if found is None:
            raise ValueError
        days = date(int(found[1]), int(found[2]), int(found[3])).toordinal() - _EPOCH
        hours, minutes, seconds = (int(part or 0) for part in found.group(4, 5, 6))
        ahead = _offset(found[8] or "Z")
        if hours > 23 or minutes > 59 or seconds > 59:
            raise ValueError
    except ValueError:
        shown = repr(text if len(text) <= 60 else text[:57] + "...")
        raise ValueError(f"{shown} is not a date or time such as {example(kind)}") from None
    moment = days * DAY + hours * 3600 + minutes * 60 + seconds - ahead
    if kind == "date":
        return moment // DAY
    per = PER_SECOND[kind]
    count = moment * per + int((found[7] or "0").ljust(9, "0")) * per // 10**9
    if not -_MOST <= count < _MOST:
        raise ValueError(outside(text, kind))
    return count


def in_utc(text: str) -> str:
    """Return a date or time as RFC 3339 in UTC. Raises ValueError, whose text is the fault."""
    try:
        moment = _EPOCH_TIME + timedelta(microseconds=count_of("timestamp_us", text))
    except OverflowError:
        raise ValueError(f"{text!r} is outside the years 1 to 9999") from None
    return moment.isoformat() + "Z"


def _offset(text: str) -> int:
    """Return seconds ahead of UTC."""
    if text in "Zz":
        return 0
    hours, minutes = int(text[1:3]), int(text[3:].removeprefix(":") or 0)
    if hours > 23 or minutes > 59:
        raise ValueError
    return (-1 if text[0] == "-" else 1) * (hours * 3600 + minutes * 60)
