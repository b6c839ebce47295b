"""The host's clock, and how Kubernetes writes a moment."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


def stamp(clock: Clock) -> str:
    """Return the time as RFC 3339, to the second."""
    return clock().strftime("%Y-%m-%dT%H:%M:%SZ")
