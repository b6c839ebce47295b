"""What a batch deployment's Jobs and pods say of its runs. Pure.

A worker's last words are the pod's termination message, a ``RunReport``. Where a worker could not
speak (killed for memory, image missing, volume missing) the pod's own state is put into words.
A run is published exactly when one of its workers has said so; that others failed is told beside.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from fourways_api import RunReport, RunStatus

from .facts import Json
from .plan.parts import ROLLBACK_LABEL, RUN_LABEL
from .plan.ray import run_name
from .pods import MAX_MESSAGE, PodFailure, failure_of, is_going, report_of

JOB_LABEL = "batch.kubernetes.io/job-name"
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"

_BYSTANDER = "Terminated"
"""Reason of a worker that was told to stop, mostly because another has failed."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A run, the report of its latest pod that left one, and its failure."""

    status: RunStatus
    report: RunReport | None
    failure: PodFailure | None
    waits: bool = False
    """Whether its Job is suspended: by Kueue until there is room for it, or by hand."""


def runs_of(jobs: Iterable[Json], pods: Iterable[Json]) -> list[RunFacts]:
    """Return the runs, latest first."""
    return [run_of(job, pods) for job, pods in _latest_first(jobs, pods) if not _moves_back(job)]


def rollbacks_of(jobs: Iterable[Json], pods: Iterable[Json]) -> list[RunFacts]:
    """Return the moves back to an earlier run, latest first, each told as the run moved to."""
    return [_move_of(job, pods) for job, pods in _latest_first(jobs, pods) if _moves_back(job)]


def job_of(pod: Json) -> str:
    """Return the name of the Job a pod tries, or whose run it is part of; empty for others."""
    labels = pod["metadata"].get("labels", {})
    return str(labels.get(JOB_LABEL) or labels.get(RUN_LABEL, ""))


def is_under_way(job: Json) -> bool:
    """Tell whether a Job is a run that has not ended."""
    ended = {"Complete", "SuccessCriteriaMet", "Failed", "FailureTarget"}
    conditions = (job.get("status") or {}).get("conditions") or []
    over = any(c["type"] in ended and c["status"] == "True" for c in conditions)
    return not over and "deletionTimestamp" not in job["metadata"] and not _moves_back(job)


def run_of(job: Json, pods: Iterable[Json]) -> RunFacts:
    """Return what a Job and its pods say."""
    status = job.get("status", {})
    finished = {c["type"]: c for c in status.get("conditions", []) if c["status"] == "True"}
    latest_first = sorted(
        pods, key=lambda p: str(p["metadata"].get("creationTimestamp")), reverse=True
    )
    report = _telling(latest_first)
    workers = job.get("spec", {}).get("completions") or 1
    failure = _failure_of_workers(latest_first, workers)
    ended = None
    # The Job is told apart from its pods' end: that takes their grace period.
    if done := finished.get("Complete") or finished.get("SuccessCriteriaMet"):
        outcome, failure = "Succeeded", None
        ended = status.get("completionTime") or done.get("lastTransitionTime")
    elif "Failed" in finished:
        outcome = "Failed"
        ended = finished["Failed"].get("lastTransitionTime")
        failure = failure or _failure_of_job(finished["Failed"])
    else:
        outcome = "Running"
    name, job_name = run_name(job), job["metadata"]["name"]
    run = RunStatus(
        name=name,
        job=job_name if job_name != name else None,
        outcome=outcome,
        started_at=status.get("startTime"),
        finished_at=ended,
        workers=_at_work(status, workers) if outcome == "Running" else None,
        version=report.version if report else None,
        rows=report.rows if report and outcome == "Succeeded" else None,
        rejects=report.rejects if report and outcome != "Running" else None,
        message=failure.message if failure else _lost(status),
    )
    waits = outcome == "Running" and bool(job.get("spec", {}).get("suspend"))
    return RunFacts(run, report, failure, waits)


def _latest_first(jobs: Iterable[Json], pods: Iterable[Json]) -> list[tuple[Json, list[Json]]]:
    by_job: dict[str, list[Json]] = {}
    for pod in pods:
        by_job.setdefault(job_of(pod), []).append(pod)
    ordered = sorted(jobs, key=_started, reverse=True)
    return [(job, by_job.get(job["metadata"]["name"], [])) for job in ordered]


def _started(job: Json) -> str:
    return str(
        job.get("status", {}).get("startTime") or job["metadata"].get("creationTimestamp", "")
    )


def _moves_back(job: Json) -> bool:
    return ROLLBACK_LABEL in (job["metadata"].get("labels") or {})


def _move_of(job: Json, pods: Sequence[Json]) -> RunFacts:
    found = run_of(job, pods)
    run = found.report.run if found.report else None
    name = run or found.status.name
    moved = {"name": name, "job": job["metadata"]["name"]}
    return replace(found, status=found.status.model_copy(update=moved))


def _at_work(status: Json, workers: int) -> str | None:
    return f"{status.get('active', 0)}/{workers}" if workers > 1 else None


def _lost(status: Json) -> str | None:
    """Tell of workers that are lost for good, and did not keep the run from its end."""
    lost = status.get("failedIndexes")
    return (
        f"without worker {lost}, which failed more often than backoffLimit allows" if lost else None
    )


def _telling(latest_first: Sequence[Json]) -> RunReport | None:
    """Return the report that tells how the run went: of whoever published, or ended it."""
    reports = [r for r in map(report_of, latest_first) if r]
    by_weight = (
        *(r for r in reports if r.outcome == "Succeeded"),
        *(r for r in reports if r.reason != _BYSTANDER),
        *reports,
    )
    return next(iter(by_weight), None)


def _failure_of_workers(latest_first: Sequence[Json], workers: int) -> PodFailure | None:
    found = []
    for pod in latest_first:
        failure = None if _disrupted(pod) or _over(pod) else failure_of(pod)
        if failure is None:
            continue
        index = pod["metadata"].get("labels", {}).get(INDEX_LABEL)
        if workers > 1 and index is not None:
            failure = PodFailure(failure.reason, f"worker {index}: {failure.message}")
        found.append(failure)
    return next((t for t in found if t.reason != _BYSTANDER), next(iter(found), None))


def _disrupted(pod: Json) -> bool:
    """Tell whether a pod was taken away (a drained node, a preemption): no failure of the run."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "DisruptionTarget" and c["status"] == "True" for c in conditions)


def _over(pod: Json) -> bool:
    """Tell whether a Ray cluster's pod is on its way out: it is told to, when all is done."""
    return RUN_LABEL in pod["metadata"].get("labels", {}) and is_going(pod)


def _failure_of_job(condition: Json) -> PodFailure:
    words = {
        "DeadlineExceeded": "the run took longer than activeDeadlineSeconds",
        "BackoffLimitExceeded": "the run failed more often than backoffLimit allows",
        "FailedIndexes": "the run failed more often than backoffLimit allows",
    }
    reason = str(condition.get("reason", "JobFailed"))
    return PodFailure(reason, words.get(reason, str(condition.get("message", ""))[:MAX_MESSAGE]))
