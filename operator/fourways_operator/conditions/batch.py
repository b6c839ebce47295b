"""What is said of a batch deployment: by the runs of its CronJob."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from fourways_api import Batch, ModelDeployment, RunReport, RunStatus, Status
from fourways_api.cron import next_time

from ..facts import Facts, Json, rfc3339
from ..plan import RAY_JOB
from ..plan.parts import RUN_LABEL
from ..pods import MAX_MESSAGE, age
from ..runs import RunFacts, rollbacks_of, runs_of
from .common import (
    Verdict,
    View,
    apply_failed,
    constant,
    gateway_degraded,
    gateway_missing,
    gateway_unaware,
    kind_missing,
    model_refused,
    model_resolved,
    name_taken,
    nothing_wrong,
    refused,
)

KUBERAY_SECONDS = 30.0
"""After so long without a word nobody is there to say one."""

_FAILED = frozenset({"Failed", "ValidationFailed"})


@dataclass(frozen=True)
class BatchView(View):
    """The runs, and the moves back to an earlier one, latest first."""

    runs: list[RunFacts]
    rollbacks: list[RunFacts]

    @classmethod
    def of(cls, facts: Facts, deployment: ModelDeployment, old: Status) -> BatchView:
        """Return the facts, digested."""
        runs = runs_of(facts.jobs, facts.pods)
        return cls(deployment, facts, old, runs, rollbacks_of(facts.jobs, facts.pods))

    @property
    def latest(self) -> RunFacts | None:
        """The latest run."""
        return self.runs[0] if self.runs else None

    @property
    def ray_job(self) -> Json | None:
        """The Ray cluster's side of the latest run, while it is at work."""
        run = self.latest
        if run is None or run.status.outcome != "Running":
            return None
        job = run.status.job or run.status.name
        found = (
            child
            for child in self.facts.children
            if RAY_JOB.of(child) and child["metadata"]["labels"].get(RUN_LABEL) == job
        )
        return next(found, None)

    @property
    def finished(self) -> RunFacts | None:
        """The latest run that ended."""
        return next((r for r in self.runs if r.status.outcome != "Running"), None)

    @property
    def last_published(self) -> RunStatus | None:
        """The run that answers come from. Jobs are cleaned up; what is published stays."""
        done = (r.status for r in (*self.rollbacks, *self.runs) if r.status.outcome == "Succeeded")
        known = [r for r in (*done, self.old.last_published) if r is not None]
        # RFC 3339 in UTC: the later is the greater. Of equals what was seen, not what was said.
        return max(known, key=lambda r: r.finished_at or "", default=None)

    @property
    def version(self) -> str | None:
        """Version the published answers were made with."""
        return self.last_published.version if self.last_published else None

    @property
    def reports(self) -> Iterator[RunReport]:
        """What the runs' workers said."""
        return (r.report for r in self.runs if r.report)

    @property
    def latest_rollback_failed(self) -> RunFacts | None:
        """The latest move back, where it failed and no run has begun since."""
        move = next(iter(self.rollbacks), None)
        if move is None or move.status.outcome != "Failed":
            return None
        begun = self.latest.status.started_at if self.latest else None
        return None if (begun or "") > (move.status.started_at or "") else move

    def told(self) -> dict[str, Any]:
        """Return what is told of runs."""
        batch = self.deployment.spec.batch
        return {
            "last_run": self._last_run(),
            "last_published": self.last_published,
            "next_run": _next_run(batch, self.facts.now) if batch else None,
        }

    def _last_run(self) -> RunStatus | None:
        before = self.old.last_run
        if self.latest is None:
            return _ended_unseen(before, self.deployment.metadata.name) if before else None
        run = self.latest.status
        if run.outcome != "Running":
            return run
        told = self.facts.progress.get(run.name)
        if told is None and before and (before.name, before.job) == (run.name, run.job):
            # Until the gateway tells anew; the figures say of when they are.
            told = before.progress
        return run.model_copy(update={"progress": told})


def _ended_unseen(run: RunStatus, deployment: str) -> RunStatus:
    """Return the last run once its Job is gone: where that was still at work, as failed."""
    if run.outcome != "Running":
        return run
    message = (
        "its Job was taken away before it was seen to end; "
        f"fourways runs {deployment} tells what it recorded"
    )
    return run.model_copy(
        update={"outcome": "Failed", "message": message, "progress": None, "workers": None}
    )


def _next_run(batch: Batch, now: datetime) -> str | None:
    return None if batch.suspend else next_run(batch.schedule, batch.time_zone, now)


def next_run(schedule: str, time_zone: str, now: datetime) -> str | None:
    """Return when a CronJob starts next after ``now``, RFC 3339 in UTC; None if it never does."""
    due = next_time(schedule, time_zone, now)
    return rfc3339(due) if due else None


def _ray_failed(view: BatchView) -> Verdict | None:
    """The Ray cluster of the run at work has failed, or nobody makes one."""
    ray_job = view.ray_job
    if ray_job is None:
        return None
    name, status = ray_job["metadata"]["name"], ray_job.get("status") or {}
    if status.get("jobDeploymentStatus") in _FAILED:
        reason = str(status.get("reason") or "RayJobFailed")
        said = str(status.get("message") or "see its events")[-MAX_MESSAGE:]
        return Verdict("False", reason, f"RayJob {name}: {said}")
    waited = age(ray_job, view.facts.now)
    if status or waited is None or waited < KUBERAY_SECONDS:
        return None
    message = (
        f"no KubeRay operator answers: nobody took up RayJob {name} within {KUBERAY_SECONDS:g} s; "
        "is it running? (docs/modes/batch.md)"
    )
    return Verdict("False", "KubeRaySilent", message)


def _ray_degrades(view: BatchView) -> Verdict | None:
    verdict = _ray_failed(view)
    return replace(verdict, status="True") if verdict else None


def _nothing_published(view: BatchView) -> Verdict | None:
    if view.last_published is not None:
        return None
    if stopped := kind_missing(view) or apply_failed(view) or _ray_failed(view):
        return stopped
    if view.latest and view.latest.trouble:
        return Verdict(
            "False",
            view.latest.trouble.reason,
            f"no run was published yet: {view.latest.trouble.message}",
        )
    if under_way := _run_in_progress(view):
        return Verdict("False", "FirstRunInProgress", under_way.message)
    message = f"no run yet; start one now: fourways run {view.deployment.metadata.name}"
    return Verdict("False", "WaitingForFirstRun", message)


def _ready(view: BatchView) -> Verdict | None:
    run = view.last_published
    assert run is not None  # noqa: S101  (checked before)
    return Verdict("True", "Published", f"answers from run {run.name} ({run.rows} rows)")


def _run_in_progress(view: BatchView) -> Verdict | None:
    if view.latest and view.latest.status.outcome == "Running":
        run = view.latest.status
        if view.latest.waits:
            message = (
                f"run {run.name} has not begun: its Job is suspended, by Kueue until the queue "
                "has room, or by hand"
            )
            return Verdict("True", "RunSuspended", message)
        share = f", {run.workers} workers" if run.workers else ""
        return Verdict("True", "RunInProgress", f"run {run.name} is at work{share}")
    return None


def _running_badly(view: BatchView) -> Verdict | None:
    if view.latest and view.latest.status.outcome == "Running" and view.latest.trouble:
        return Verdict("True", view.latest.trouble.reason, view.latest.trouble.message)
    return None


def _last_run_failed(view: BatchView) -> Verdict | None:
    run = view.finished
    if run is None or run.status.outcome != "Failed" or run.trouble is None:
        return None
    return Verdict(
        "True", run.trouble.reason, f"run {run.status.name} failed: {run.trouble.message}"
    )


def _rollback_failed(view: BatchView) -> Verdict | None:
    move = view.latest_rollback_failed
    if move is None or move.trouble is None:
        return None
    message = f"rollback {move.status.job} failed: {move.trouble.message}"
    return Verdict("True", move.trouble.reason, message)


def _model_failed(view: BatchView) -> Verdict | None:
    return model_refused(view.latest.trouble if view.latest else None)


BatchView.conditions = {
    "Ready": (name_taken, gateway_missing, gateway_unaware, _nothing_published, _ready),
    "Progressing": (_run_in_progress, constant("False", "Idle", "nothing is under way")),
    "Degraded": (
        refused,
        _running_badly,
        _ray_degrades,
        _rollback_failed,
        _last_run_failed,
        gateway_degraded,
        nothing_wrong,
    ),
    "ModelResolved": (
        _model_failed,
        model_resolved,
        constant("Unknown", "NotFetchedYet", "the first run will fetch the model"),
    ),
}
