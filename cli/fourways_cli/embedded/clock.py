"""The host's clock, and times in the format of Kubernetes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from fourways_operator.facts import rfc3339

Clock = Callable[[], datetime]


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


def stamp(clock: Clock) -> str:
    """Return the time as RFC 3339, to the second."""
    return rfc3339(clock())
