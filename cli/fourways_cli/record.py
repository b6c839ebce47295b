"""The record of runs as the gateway tells it, and what a run started from here comes to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from .targets import Target, TargetError

Json = dict[str, Any]
POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Record:
    """A deployment's runs."""

    target: Target
    namespace: str
    name: str

    def runs(self) -> list[Json]:
        """Return the runs, latest first."""
        found: list[Json] = self._ask("")["runs"]
        return found

    def difference(self, before: str, after: str) -> Json:
        """Return how two runs differ."""
        found: Json = self._ask("/diff?" + urlencode({"from": before, "to": after}))["difference"]
        return found

    def rejects(self, run: str, limit: int) -> list[Json]:
        """Return what a run refused."""
        found: list[Json] = self._ask(f"/{quote(run, safe='')}/rejects?limit={limit}")["rejects"]
        return found

    def progress(self, run: str) -> Json | None:
        """Return how far a run is; None while the store has not heard of it, or does not answer."""
        try:
            found: Json = self._ask(f"/{quote(run, safe='')}/progress")["progress"]
        except TargetError:
            return None
        return found

    def latest(self) -> str:
        """Return the latest run's name. Raises TargetError where there is none."""
        found = self.runs()
        if not found:
            raise TargetError(f"the store has no run of {self.name} yet")
        return str(found[0]["name"])

    def check_resumable(self, run: str) -> None:
        """See that a run can be gone on with. Raises TargetError where it is published.

        One the store has never heard of can: it failed before it had recorded anything.
        """
        if any(r["name"] == run and r["state"] == "published" for r in self.runs()):
            raise TargetError(
                f"run {run} is published already: fourways rollback {self.name} {run} has answers "
                "come from it"
            )

    def before_current(self) -> str:
        """Return the run to go back to: published before the one answers come from."""
        published = [r for r in self.runs() if r["state"] == "published"]
        current = next((r for r in published if r["current"]), None)
        if current is None:
            raise TargetError(f"no run of {self.name} is published")
        earlier = [r for r in published if r["published_at"] < current["published_at"]]
        if not earlier:
            raise TargetError(
                f"the store keeps no run of {self.name} from before {current['name']}"
            )
        return str(max(earlier, key=lambda r: r["published_at"])["name"])

    def status(self) -> Json:
        """Return the deployment's status. Raises TargetError where there is no such deployment."""
        found = (
            d for d in self.target.deployments(self.namespace) if d["metadata"]["name"] == self.name
        )
        document = next(found, None)
        if document is None:
            raise TargetError(f"no ModelDeployment {self.name} in namespace {self.namespace}")
        return document.get("status") or {}

    def await_run(
        self, job: str, seconds: float, meanwhile: Callable[[], None] = lambda: None
    ) -> Json | None:
        """Wait for the end of a Job's run and return what status says of it; None: not in time."""
        return self._await(lambda status: _ended(status, job), seconds, meanwhile)

    def await_rollback(self, job: str, seconds: float) -> Json | None:
        """Wait until a Job has moved answers back; return the run they come from then.

        Raises:
            TargetError: it could not.

        """

        def moved(status: Json) -> Json | None:
            for condition in status.get("conditions", []):
                if f"rollback {job} failed" in condition["message"]:
                    raise TargetError(condition["message"])
            published: Json = status.get("lastPublished") or {}
            return published if published.get("job") == job else None

        return self._await(moved, seconds, lambda: None)

    def _await(
        self,
        look: Callable[[Json], Json | None],
        seconds: float,
        meanwhile: Callable[[], None],
    ) -> Json | None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if (found := look(self.status())) is not None:
                return found
            meanwhile()
            time.sleep(POLL_SECONDS)
        return None

    def _ask(self, path: str) -> Json:
        return self.target.gateway(self.namespace, f"/runs/{quote(self.name, safe='')}{path}")


def _ended(status: Json, job: str) -> Json | None:
    last: Json = status.get("lastRun") or {}
    theirs = last.get("job") or last.get("name")
    return last if theirs == job and last["outcome"] != "Running" else None
