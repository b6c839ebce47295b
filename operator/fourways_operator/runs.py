"""The runs of a batch deployment, from its Jobs and their pods. Pure.

A worker's termination message is a ``RunReport``; without one, the pod's state says what happened.
A run is published exactly when one of its workers reports so; failures of its other workers are
reported in addition.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from fourways_api import RunReport, RunStatus
from fourways_api.reasons import Reason, known_or

from .facts import Json
from .plan.parts import ROLLBACK_LABEL, RUN_LABEL
from .plan.ray import run_name
from .pods import (
    MAX_MESSAGE,
    PodFailure,
    ended_silently,
    eviction_of,
    failure_of,
    is_going,
    pods_refused,
    report_of,
)
from .texts import on_one_line

JOB_LABEL = "batch.kubernetes.io/job-name"
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A run, the report of its latest pod that wrote one, and its failure."""

    status: RunStatus
    report: RunReport | None
    failure: PodFailure | None
    waits: bool = False
    """Whether its Job is suspended: by Kueue until there is capacity, or by hand."""


_EVICTIONS = 2
"""Number of evicted pods of a run from which on they are reported."""

NONE_REFUSED: Mapping[str, str] = {}


def runs_of(
    jobs: Iterable[Json], pods: Iterable[Json], refused: Mapping[str, str] = NONE_REFUSED
) -> list[RunFacts]:
    """Return the runs, latest first.

    ``refused`` maps the name of a Job to why the API server refuses its pods.
    """
    return [
        run_of(job, own, refused.get(job["metadata"]["name"]))
        for job, own in _latest_first(jobs, pods)
        if not _is_rollback(job)
    ]


def rollbacks_of(
    jobs: Iterable[Json], pods: Iterable[Json], refused: Mapping[str, str] = NONE_REFUSED
) -> list[RunFacts]:
    """Return the rollbacks, latest first, each as the earlier run that it restores."""
    return [
        _rollback_of(job, own, refused.get(job["metadata"]["name"]))
        for job, own in _latest_first(jobs, pods)
        if _is_rollback(job)
    ]


def job_of(pod: Json) -> str:
    """Return the name of the Job that a pod or its run belongs to; empty if there is none."""
    labels = pod["metadata"].get("labels", {})
    return str(labels.get(JOB_LABEL) or labels.get(RUN_LABEL, ""))


def is_under_way(job: Json) -> bool:
    """Tell whether a Job is a run that has not ended."""
    ended = {"Complete", "SuccessCriteriaMet", "Failed", "FailureTarget"}
    conditions = (job.get("status") or {}).get("conditions") or []
    over = any(c["type"] in ended and c["status"] == "True" for c in conditions)
    return not over and "deletionTimestamp" not in job["metadata"] and not _is_rollback(job)


def without_pods(jobs: Iterable[Json], pods: Iterable[Json]) -> list[Json]:
    """Return the Jobs in progress that have no pod, although nothing suspends them."""
    with_pods = {job_of(pod) for pod in pods}
    return [
        job
        for job in jobs
        if is_under_way(job)
        and not job.get("spec", {}).get("suspend")
        and job["metadata"]["name"] not in with_pods
    ]


def run_of(job: Json, pods: Iterable[Json], refused: str | None = None) -> RunFacts:
    """Return the run of a Job and its pods; ``refused`` is why its pods cannot be created."""
    status = job.get("status", {})
    finished = {c["type"]: c for c in status.get("conditions", []) if c["status"] == "True"}
    latest_first = sorted(
        pods, key=lambda p: str(p["metadata"].get("creationTimestamp")), reverse=True
    )
    report = _decisive_report(latest_first)
    workers = job.get("spec", {}).get("completions") or 1
    failure = _failure_of_workers(latest_first, workers)
    ended = None
    # The Job's conditions decide: its pods end later, within their grace period.
    if done := finished.get("Complete") or finished.get("SuccessCriteriaMet"):
        failure = _silence(latest_first) if report is None else None
        outcome = "Failed" if failure else "Succeeded"
        ended = status.get("completionTime") or done.get("lastTransitionTime")
    elif "Failed" in finished:
        outcome = "Failed"
        ended = finished["Failed"].get("lastTransitionTime")
        failure = failure or _failure_of_job(finished["Failed"])
    else:
        outcome = "Running"
        failure = failure or (pods_refused(refused) if refused else _evictions(latest_first))
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


def _is_rollback(job: Json) -> bool:
    return ROLLBACK_LABEL in (job["metadata"].get("labels") or {})


def _rollback_of(job: Json, pods: Sequence[Json], refused: str | None) -> RunFacts:
    found = run_of(job, pods, refused)
    run = found.report.run if found.report else None
    name = run or found.status.name
    moved = {"name": name, "job": job["metadata"]["name"]}
    return replace(found, status=found.status.model_copy(update=moved))


def _at_work(status: Json, workers: int) -> str | None:
    return f"{status.get('active', 0)}/{workers}" if workers > 1 else None


def _lost(status: Json) -> str | None:
    """Return which workers failed for good without preventing the run from succeeding."""
    lost = status.get("failedIndexes")
    return (
        f"without worker {lost}, which failed more often than backoffLimit allows" if lost else None
    )


def _decisive_report(latest_first: Sequence[Json]) -> RunReport | None:
    """Return the report of the worker that published the run or caused its end."""
    reports = [r for r in map(report_of, latest_first) if r]
    by_weight = (
        *(r for r in reports if r.outcome == "Succeeded"),
        *(r for r in reports if not _is_bystander(r.reason)),
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
    return next((t for t in found if not _is_bystander(t.reason)), next(iter(found), None))


def _evictions(latest_first: Sequence[Json]) -> PodFailure | None:
    """Return that a run makes no headway because its pods are evicted again and again.

    One eviction is no failure of the run: the Job creates the pod anew, on another node.
    """
    found = [failure for failure in map(eviction_of, latest_first) if failure]
    if len(found) < _EVICTIONS:
        return None
    message = f"{len(found)} of its pods were evicted; the last: {found[0].message}"
    return PodFailure(found[0].reason, message)


def _silence(pods: Sequence[Json]) -> PodFailure | None:
    """Return that the workers said nothing although they ended well: no run ends so.

    A model's own code can end the process, with any code.
    """
    if not any(ended_silently(pod) for pod in pods if RUN_LABEL not in pod["metadata"]["labels"]):
        return None
    message = (
        "the worker exited with code 0 without a termination message, so nothing shows that it"
        " published the run; see its log"
    )
    return PodFailure(Reason.WorkerFailed, message)


def _is_bystander(text: str) -> bool:
    """Tell whether a worker ended only because it was stopped, usually after another failed."""
    reason = Reason.known(text)
    return reason is not None and reason.is_bystander


def _disrupted(pod: Json) -> bool:
    """Tell whether a pod was disrupted (node drain, preemption), which is no failure of the run."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "DisruptionTarget" and c["status"] == "True" for c in conditions)


def _over(pod: Json) -> bool:
    """Tell whether a Ray cluster's pod is being deleted, as all are at the end of a run."""
    return RUN_LABEL in pod["metadata"].get("labels", {}) and is_going(pod)


_JOB_FAILURES = {
    Reason.DeadlineExceeded: "the run took longer than activeDeadlineSeconds",
    Reason.BackoffLimitExceeded: "the run failed more often than backoffLimit allows",
    Reason.FailedIndexes: "the run failed more often than backoffLimit allows",
}


def _failure_of_job(condition: Json) -> PodFailure:
    reason = known_or(condition.get("reason"), Reason.JobFailed)
    known = Reason.known(reason)
    message = _JOB_FAILURES.get(known) if known else None
    return PodFailure(reason, message or on_one_line(condition.get("message", ""), MAX_MESSAGE))
