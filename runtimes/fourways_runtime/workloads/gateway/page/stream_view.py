"""What the page shows of a stream: the present reports of its workers, and what they come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class StreamView:
    """The workers of a stream, as ``/deployments/NAME/workers`` lists them.

    Of a real-time deployment, it is the worker that compares answers with labels.
    """

    workers: tuple[Mapping[str, Any], ...]
    error: str
    """Why they are not known; empty if they are."""

    @property
    def lag(self) -> int:
        """Number of events that have no prediction yet, over all partitions."""
        return sum(sum(each["report"]["lag"].values()) for each in self.workers)

    @property
    def oldest_event_seconds(self) -> float:
        """Age of the oldest event that waits; 0 if none does."""
        return max((each["report"]["oldest_event_seconds"] for each in self.workers), default=0.0)

    @property
    def drift(self) -> dict[str, Any] | None:
        """That of the worker whose records differ most."""
        found = [(each["report"].get("drift"), each["worker"]) for each in self.workers]
        known = [(drift, worker) for drift, worker in found if drift]
        if not known:
            return None
        drift, worker = max(known, key=lambda each: _severity(each[0]))
        return {"run": f"worker {worker}", "found": drift}

    @property
    def quality(self) -> dict[str, Any] | None:
        """The latest comparison with labels."""
        found = [each["report"]["quality"] for each in self.workers if each["report"]["quality"]]
        return max(found, key=lambda quality: str(quality["measuredAt"]), default=None)


def _severity(drift: Mapping[str, Any]) -> tuple[bool, float]:
    return drift["drifted"] > 0, max((each["psi"] for each in drift["fields"]), default=0.0)
