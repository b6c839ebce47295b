"""The runs of a batch deployment from the gateway, and the outcome of new ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

from .targets import Target, TargetError, named

Json = dict[str, Any]
POLL_SECONDS = 0.5
LATEST = 3
"""Number of runs that a message about an unknown run lists."""


@dataclass(frozen=True, slots=True)
class DeploymentRuns:
    """The runs of one deployment."""

    target: Target
    namespace: str
    name: str

    def runs(self) -> list[Json]:
        """Return the runs, latest first."""
        found: list[Json] = self._get("")["runs"]
        return found

    def existing(self) -> list[Json]:
        """Return the runs. Raises TargetError if there is neither a run nor a deployment.

        Runs of a deleted deployment are listed as long as the store has them.
        """
        found = self.runs()
        if not found:
            self.require_batch()
        return found

    def difference(self, before: str, after: str) -> Json:
        """Return the differences between two runs."""
        query = urlencode({"from": before, "to": after})
        found: Json = self._get(f"/diff?{query}")["difference"]
        return found

    def rejects(self, run: str, limit: int) -> list[Json]:
        """Return the rows a run rejected."""
        path = f"/{quote(run, safe='')}/rejects?limit={limit}"
        found: list[Json] = self._get(path)["rejects"]
        return found

    def progress(self, run: str) -> Json | None:
        """Return a run's progress; None while the store lacks the run or is unavailable."""
        try:
            found: Json = self._get(f"/{quote(run, safe='')}/progress")["progress"]
        except TargetError:
            return None
        return found

    def latest(self) -> str:
        """Return the latest run's name. Raises TargetError if there is none."""
        found = self.existing()
        if not found:
            raise TargetError(f"the store has no run of {self.name} yet")
        return str(found[0]["name"])

    def check_resumable(self, run: str) -> None:
        """Check that a run can be resumed.

        Raises:
            TargetError: there is no such run, or it is published.

        """
        runs = self.runs()
        if any(r["name"] == run and r["state"] == "published" for r in runs):
            raise TargetError(
                f"run {run} is published already, so there is nothing to resume: "
                f"fourways rollback {self.name} {run} serves it again"
            )
        # A run that failed before it recorded anything is known only from the status.
        last = self.status().get("lastRun") or {}
        known = [str(r["name"]) for r in runs]
        if run not in (*known, last.get("name"), last.get("job")):
            raise TargetError(f"there is no run {run} of {self.name}; {_latest_of(known)}")

    def before_current(self) -> str:
        """Return the run to roll back to: the one published before the current one."""
        return self.newest_two()[0]

    def newest_two(self) -> tuple[str, str]:
        """Return the run published before the current one, and the current one."""
        published = [r for r in self.runs() if r["state"] == "published"]
        current = next((r for r in published if r["current"]), None)
        if current is None:
            raise TargetError(f"no run of {self.name} is published")
        earlier = [r for r in published if r["published_at"] < current["published_at"]]
        if not earlier:
            raise TargetError(
                f"the store keeps no run of {self.name} published before {current['name']}"
            )
        before = max(earlier, key=lambda r: r["published_at"])
        return str(before["name"]), str(current["name"])

    def status(self) -> Json:
        """Return the deployment's status. Raises TargetError if there is no such deployment."""
        found = named(self.target.deployments(self.namespace), self.namespace, self.name)
        return found.get("status") or {}

    def require_batch(self) -> None:
        """Check that the deployment exists and has runs. Raises TargetError."""
        mode = self.status().get("mode")
        if mode is not None and mode != "batch":
            raise TargetError(
                f"{self.name} is a {mode} deployment: only batch deployments have runs"
            )

    def await_run(
        self, job: str, seconds: float, meanwhile: Callable[[], None] = lambda: None
    ) -> Json | None:
        """Wait for the end of a Job's run; return its status, or None if it takes longer."""
        return self._await(lambda status: _ended(status, job), seconds, meanwhile)

    def await_rollback(self, job: str, seconds: float) -> Json | None:
        """Wait until a rollback Job is done; return the run that then serves predictions.

        Raises:
            TargetError: the rollback failed.

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

    def _get(self, path: str) -> Json:
        """Query the gateway about the deployment's runs.

        The gateway knows runs, not deployments: if it does not know the run, a deployment that is
        unknown or of another mode is reported as the cause.
        """
        try:
            return self.target.gateway(self.namespace, f"/runs/{quote(self.name, safe='')}{path}")
        except TargetError as error:
            if error.code == HTTPStatus.NOT_FOUND:
                self.require_batch()
            raise


def _latest_of(names: list[str]) -> str:
    if not names:
        return "the store has no run of it yet"
    return f"the latest are {', '.join(names[:LATEST])}"


def _ended(status: Json, job: str) -> Json | None:
    last: Json = status.get("lastRun") or {}
    job_of_last = last.get("job") or last.get("name")
    return last if job_of_last == job and last["outcome"] != "Running" else None
