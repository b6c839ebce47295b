"""The conditions of a batch deployment, from the runs of its CronJob and the gateway."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from fourways_api import (
    Batch,
    DriftStatus,
    ModelDeployment,
    QualityStatus,
    RunReport,
    RunStatus,
    Status,
)
from fourways_api.reasons import Reason, known_or

from ..facts import Facts, Json, rfc3339
from ..kinds import CRON_JOB, RAY_JOB
from ..plan.parts import RUN_LABEL
from ..pods import MAX_MESSAGE, age
from ..runs import RunFacts, rollbacks_of, runs_of
from ..schedule import next_run, overdue_since
from .common import (
    ConditionChain,
    ConditionResult,
    ModeView,
    apply_failed,
    constant,
    degraded,
    gateway_degraded,
    gateway_missing,
    gateway_refuses,
    gateway_unaware,
    idle,
    kind_missing,
    model_resolved,
    model_unusable,
    name_taken,
    nothing_wrong,
    refused,
)
from .drift import drift_conditions

KUBERAY_SECONDS = 30.0
"""After this many seconds without a status, no KubeRay operator is running."""

_SETTLING = timedelta(seconds=5)
"""The gateway's response may lack a run that was published this shortly before the request."""

_FAILED = frozenset({"Failed", "ValidationFailed"})
"""States of a RayJob (its jobDeploymentStatus)."""


@dataclass(frozen=True)
class BatchView(ModeView):
    """The runs and the rollbacks, latest first."""

    runs: list[RunFacts]
    rollbacks: list[RunFacts]

    @classmethod
    def of(cls, facts: Facts, deployment: ModelDeployment, old: Status) -> BatchView:
        """Return the view of these facts."""
        runs = runs_of(facts.jobs, facts.pods, facts.refused_pods)
        rollbacks = rollbacks_of(facts.jobs, facts.pods, facts.refused_pods)
        return cls(deployment, facts, old, runs, rollbacks)

    @staticmethod
    def still_serves(facts: Facts, old: Status) -> bool:
        """Tell whether the last published run is still in the store, as far as is known."""
        emptied = facts.store is not None and facts.store.current is None
        return old.last_published is not None and not emptied

    def conditions(self) -> Mapping[str, ConditionChain[BatchView]]:
        """See ModeView."""
        return {
            "Ready": (
                name_taken,
                gateway_missing,
                gateway_unaware,
                _nothing_published,
                _gateway_refuses,
                _ready,
            ),
            "Progressing": (_run_in_progress, idle),
            "Degraded": (
                refused,
                _run_has_failures,
                _ray_degrades,
                _missing_degrades,
                _schedule_overdue,
                _rollback_failed,
                _last_run_failed,
                gateway_degraded,
                _gateway_refuses_degrades,
                nothing_wrong,
            ),
            "ModelResolved": (
                _model_unusable,
                model_resolved,
                constant("Unknown", Reason.NotFetchedYet, "the first run will fetch the model"),
            ),
            **drift_conditions(self.deployment),
        }

    @property
    def latest(self) -> RunFacts | None:
        """The latest run."""
        return self.runs[0] if self.runs else None

    @property
    def ray_job(self) -> Json | None:
        """The RayJob of the latest run, while that is in progress."""
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
    def cron_job(self) -> Json | None:
        """The live CronJob."""
        return next((child for child in self.facts.children if CRON_JOB.of(child)), None)

    @property
    def finished(self) -> RunFacts | None:
        """The latest run that ended."""
        return next((r for r in self.runs if r.status.outcome != "Running"), None)

    @cached_property
    def last_published(self) -> RunStatus | None:
        """The run that serves predictions.

        Its Job may be deleted; what it published stays. If the gateway was queried after the run
        was published, its response decides: the store may have been emptied or restored.
        """
        done = (r.status for r in (*self.rollbacks, *self.runs) if r.status.outcome == "Succeeded")
        known = [r for r in (*done, self.old.last_published) if r is not None]
        # RFC 3339 in UTC sorts by time. Between equal times, the live Job's run comes first.
        latest = max(known, key=lambda r: r.finished_at or "", default=None)
        store = self.facts.store
        if store is None:
            return None if latest and self._was_missing(latest) else latest
        if latest is None or (latest.finished_at or "") < rfc3339(store.at - _SETTLING):
            same = latest and store.current and latest.name == store.current.name
            return latest if same else store.current
        return latest

    def _was_missing(self, run: RunStatus) -> bool:
        """Tell whether a run was found missing in the store before the operator was restarted."""
        missing = self._missing_since
        return missing is not None and (run.finished_at or "") < missing

    @property
    def _missing_since(self) -> str | None:
        """Since when the status has said that the store has no run, RFC 3339."""
        ready = next((c for c in self.old.conditions if c.type == "Ready"), None)
        if ready is None or ready.reason != Reason.PredictionsMissing:
            return None
        return ready.last_transition_time

    @property
    def predictions_missing(self) -> bool:
        """Whether a run was published earlier, but the store has none now."""
        if self.last_published is not None:
            return False
        before = [*self.runs, *self.rollbacks]
        published = any(r.status.outcome == "Succeeded" for r in before)
        return published or self.old.last_published is not None or self._missing_since is not None

    @property
    def version(self) -> str | None:
        """Version of the model that made the published predictions."""
        return self.last_published.version if self.last_published else None

    @property
    def reports(self) -> Iterator[RunReport]:
        """See ModeView."""
        return (r.report for r in self.runs if r.report)

    @property
    def drift(self) -> DriftStatus | None:
        """That of the latest run that compared its records; its Job may be deleted."""
        return next((r.drift for r in self.reports if r.drift), self.old.drift)

    @property
    def latest_rollback_failed(self) -> RunFacts | None:
        """The latest rollback, if it failed and no run has started since."""
        move = next(iter(self.rollbacks), None)
        if move is None or move.status.outcome != "Failed":
            return None
        started = self.latest.status.started_at if self.latest else None
        return None if (started or "") > (move.status.started_at or "") else move

    def status_fields(self) -> dict[str, Any]:
        """Return the fields about runs."""
        batch = self.deployment.spec.batch
        return {
            "last_run": self._last_run(),
            "last_published": self.last_published,
            "quality": self._quality,
            "next_run": _next_run(batch, self.facts.now) if batch else None,
        }

    @property
    def _quality(self) -> QualityStatus | None:
        """What the latest run reported; its Job may be deleted."""
        if self.deployment.spec.quality is None:
            return None
        return next((r.quality for r in self.reports if r.quality), self.old.quality)

    def _last_run(self) -> RunStatus | None:
        before = self.old.last_run
        if self.latest is None:
            return _ended_unseen(before, self.deployment.metadata.name) if before else None
        run = self.latest.status
        if run.outcome != "Running":
            return run
        known = self.facts.progress.get(run.name)
        if known is None and before and (before.name, before.job) == (run.name, run.job):
            # Kept until the gateway answers again; the figures carry their time.
            known = before.progress
        return run.model_copy(update={"progress": known})


def _ended_unseen(run: RunStatus, deployment: str) -> RunStatus:
    """Return the last run after its Job was deleted: as failed if it was still in progress."""
    if run.outcome != "Running":
        return run
    message = (
        "its Job was deleted before it was seen to end; "
        f"fourways list-runs {deployment} shows what it recorded"
    )
    return run.model_copy(
        update={"outcome": "Failed", "message": message, "progress": None, "workers": None}
    )


def _next_run(batch: Batch, now: datetime) -> str | None:
    return None if batch.suspend else next_run(batch.schedule, batch.time_zone, now)


def _ray_failed(view: BatchView) -> ConditionResult | None:
    """The RayJob of the run in progress has failed, or no operator handles it."""
    ray_job = view.ray_job
    if ray_job is None:
        return None
    name, status = ray_job["metadata"]["name"], ray_job.get("status") or {}
    if status.get("jobDeploymentStatus") in _FAILED:
        reason = known_or(status.get("reason"), Reason.RayJobFailed)
        said = str(status.get("message") or "see its events")[-MAX_MESSAGE:]
        return ConditionResult("False", reason, f"RayJob {name}: {said}")
    waited = age(ray_job, view.facts.now)
    if status or waited is None or waited < KUBERAY_SECONDS:
        return None
    message = (
        f"no KubeRay operator has handled RayJob {name} within {KUBERAY_SECONDS:g} s: check that "
        "it is running (docs/modes/batch.md)"
    )
    return ConditionResult("False", Reason.KubeRaySilent, message)


def _ray_degrades(view: BatchView) -> ConditionResult | None:
    return degraded(_ray_failed(view))


def _nothing_published(view: BatchView) -> ConditionResult | None:
    if view.last_published is not None:
        return None
    if stopped := kind_missing(view) or apply_failed(view) or _ray_failed(view):
        return stopped
    if view.predictions_missing:
        return _predictions_missing(view)
    if view.latest and view.latest.failure:
        failure = view.latest.failure
        message = f"no run has been published yet: {failure.message}"
        return ConditionResult("False", failure.reason, message)
    if under_way := _run_in_progress(view):
        return ConditionResult("False", Reason.FirstRunInProgress, under_way.message)
    message = f"no run yet; start one now: fourways start-run {view.deployment.metadata.name}"
    return ConditionResult("False", Reason.WaitingForFirstRun, message)


def _predictions_missing(view: BatchView) -> ConditionResult | None:
    if not view.predictions_missing:
        return None
    name = view.deployment.metadata.name
    message = (
        "the prediction store has no published run of this deployment any more: it was emptied or "
        f"restored. Restore it, or start a run: fourways start-run {name}"
    )
    return ConditionResult("False", Reason.PredictionsMissing, message)


def _missing_degrades(view: BatchView) -> ConditionResult | None:
    return degraded(_predictions_missing(view))


def _gateway_refuses(view: BatchView) -> ConditionResult | None:
    """The gateway does not reach the store. A run missing from it is found otherwise."""
    return None if view.facts.gateway_answer == 404 else gateway_refuses(view)


def _gateway_refuses_degrades(view: BatchView) -> ConditionResult | None:
    return degraded(_gateway_refuses(view))


def _ready(view: BatchView) -> ConditionResult | None:
    run = view.last_published
    assert run is not None  # noqa: S101  (checked before)
    return ConditionResult(
        "True", Reason.Published, f"predictions come from run {run.name} ({run.rows} rows)"
    )


def _run_in_progress(view: BatchView) -> ConditionResult | None:
    if view.latest is None or view.latest.status.outcome != "Running":
        return None
    run = view.latest.status
    if view.latest.waits:
        message = (
            f"run {run.name} has not started: its Job is suspended, by Kueue until the queue has "
            "room, or by hand"
        )
        return ConditionResult("True", Reason.RunSuspended, message)
    share = f", {run.workers} workers" if run.workers else ""
    return ConditionResult("True", Reason.RunInProgress, f"run {run.name} is in progress{share}")


def _run_has_failures(view: BatchView) -> ConditionResult | None:
    if view.latest and view.latest.status.outcome == "Running" and view.latest.failure:
        return ConditionResult("True", view.latest.failure.reason, view.latest.failure.message)
    return None


def _schedule_overdue(view: BatchView) -> ConditionResult | None:
    """The CronJob did not start a run that was due."""
    if view.cron_job is None or (view.latest and view.latest.status.outcome == "Running"):
        return None
    ended = view.finished.status.finished_at if view.finished else None
    last_end = datetime.fromisoformat(ended) if ended else None
    due = overdue_since(view.cron_job, last_end, view.facts.now)
    if due is None:
        return None
    name = view.cron_job["metadata"]["name"]
    message = (
        f"the run due at {rfc3339(due)} was not started: see the events of CronJob {name}, and "
        "check that the controller manager is running"
    )
    return ConditionResult("True", Reason.ScheduleOverdue, message)


def _last_run_failed(view: BatchView) -> ConditionResult | None:
    run = view.finished
    if run is None or run.status.outcome != "Failed" or run.failure is None:
        return None
    message = f"run {run.status.name} failed: {run.failure.message}"
    return ConditionResult("True", run.failure.reason, message)


def _rollback_failed(view: BatchView) -> ConditionResult | None:
    move = view.latest_rollback_failed
    if move is None or move.failure is None:
        return None
    message = f"rollback {move.status.job} failed: {move.failure.message}"
    return ConditionResult("True", move.failure.reason, message)


def _model_unusable(view: BatchView) -> ConditionResult | None:
    return model_unusable(view.latest.failure if view.latest else None)
