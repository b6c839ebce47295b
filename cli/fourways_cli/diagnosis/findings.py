"""A finding of `fourways doctor`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["ok", "note", "fault"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was looked at, how it is, and what to do. Its texts may quote foreign text."""

    level: Level
    """ok; note: some uses need more; fault: nothing works until it is mended."""

    about: str
    says: str
    fix: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the finding as plain data."""
        return asdict(self)


def ok(about: str, says: str) -> Diagnosis:
    """Return a finding that needs nothing."""
    return Diagnosis("ok", about, says)


def note(about: str, says: str, fix: str) -> Diagnosis:
    """Return a finding that matters to some uses."""
    return Diagnosis("note", about, says, fix)


def fault(about: str, says: str, fix: str) -> Diagnosis:
    """Return a finding that has to be mended."""
    return Diagnosis("fault", about, says, fix)
