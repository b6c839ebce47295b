"""What a batch deployment's Jobs and pods say of its runs. Pure.

A worker's last words are the pod's termination message, a ``RunReport``. Where a worker could not
speak (killed for memory, image missing, volume missing) the pod's own state is put into words.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fourways_api import RunReport, RunStatus

from .facts import Json

MAX_MESSAGE = 1024

_IMAGE_TROUBLE = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
)
"""The kubelet goes back and forth between these; to people they are one."""

_START_TROUBLE = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why something does not work: one word for programs, a sentence for people."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A run, the report of its latest pod that left one, and its trouble."""

    status: RunStatus
    report: RunReport | None
    trouble: Trouble | None


def runs_of(jobs: Iterable[Json], pods: Iterable[Json]) -> list[RunFacts]:
    """Return the runs, latest first."""
    by_job: dict[str, list[Json]] = {}
    for pod in pods:
        name = pod["metadata"].get("labels", {}).get("batch.kubernetes.io/job-name", "")
        by_job.setdefault(name, []).append(pod)
    ordered = sorted(jobs, key=_started, reverse=True)
    return [_run(job, by_job.get(job["metadata"]["name"], [])) for job in ordered]


def _started(job: Json) -> str:
    return str(
        job.get("status", {}).get("startTime") or job["metadata"].get("creationTimestamp", "")
    )


def _run(job: Json, pods: list[Json]) -> RunFacts:
    status = job.get("status", {})
    finished = {
        c["type"]: c for c in status.get("conditions", []) if c["status"] == "True"
    }  # fmt: skip
    latest_first = sorted(
        pods, key=lambda p: str(p["metadata"].get("creationTimestamp")), reverse=True
    )
    report = next((r for r in map(report_of, latest_first) if r), None)
    trouble = next((t for t in map(trouble_of, latest_first) if t), None)
    ended = None
    if "Complete" in finished:
        outcome, trouble = "Succeeded", None
        ended = status.get("completionTime")
    elif "Failed" in finished:
        outcome = "Failed"
        ended = finished["Failed"].get("lastTransitionTime")
        trouble = trouble or _trouble_of_job(finished["Failed"])
    else:
        outcome = "Running"
    run = RunStatus(
        name=job["metadata"]["name"],
        outcome=outcome,
        started_at=status.get("startTime"),
        finished_at=ended,
        version=report.version if report else None,
        rows=report.rows if report and outcome == "Succeeded" else None,
        rejects=report.rejects if report else None,
        message=trouble.message if trouble else None,
    )
    return RunFacts(run, report, trouble)


def _trouble_of_job(condition: Json) -> Trouble:
    words = {
        "DeadlineExceeded": "the run took longer than activeDeadlineSeconds",
        "BackoffLimitExceeded": "the run failed more often than backoffLimit allows",
    }
    reason = str(condition.get("reason", "JobFailed"))
    return Trouble(reason, words.get(reason, str(condition.get("message", ""))[:MAX_MESSAGE]))


def report_of(pod: Json) -> RunReport | None:
    """Return the report a pod's worker left, if it is one."""
    for state in _container_states(pod):
        text = state.get("terminated", {}).get("message", "")
        if text.startswith("{"):
            try:
                return RunReport.model_validate_json(text)
            except ValueError:
                return None
    return None


def trouble_of(pod: Json) -> Trouble | None:
    """Say why a pod does not run, or did not end well; None where it does or did."""
    for condition in pod.get("status", {}).get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return Trouble(
                "Unschedulable", _short(f"no node takes the pod: {condition.get('message', '')}")
            )
    for status in pod.get("status", {}).get("containerStatuses", []):
        waiting = status.get("state", {}).get("waiting", {})
        reason = waiting.get("reason")
        if reason in _IMAGE_TROUBLE:
            image = status.get("image") or "the image"
            return Trouble(
                "ImageUnavailable", f"{image} cannot be pulled: does it exist, and may it be?"
            )
        if reason in _START_TROUBLE:
            return Trouble(reason, _short(waiting.get("message") or reason))
    for state in _container_states(pod):
        ended = state.get("terminated", {})
        if ended and ended.get("exitCode") != 0:
            return _trouble_of_exit(ended, report_of(pod))
    return None


def _trouble_of_exit(ended: Json, report: RunReport | None) -> Trouble:
    if ended.get("reason") == "OOMKilled":
        return Trouble(
            "OOMKilled", "the worker took more memory than its limit: raise resources.memory"
        )
    if report:
        return Trouble(report.reason, _short(report.message))
    return Trouble(
        "WorkerFailed", f"the worker ended with exit code {ended.get('exitCode')} and no word"
    )


def _container_states(pod: Json) -> list[Json]:
    """Return the containers' states, what they are now before what they were."""
    statuses = pod.get("status", {}).get("containerStatuses", [])
    return [s[key] for s in statuses for key in ("state", "lastState") if s.get(key)]


def _short(text: str) -> str:
    return " ".join(text.split())[:MAX_MESSAGE]
