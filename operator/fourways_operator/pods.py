"""What a pod says of itself. Pure.

A worker's last words are the pod's termination message, a ``RunReport``. Where a worker could not
speak (killed for memory, image missing, volume missing) the pod's own state is put into words.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from fourways_api import RunReport
from fourways_api.runtime_config import CONFIG_VARIABLE

from .facts import Json

MAX_MESSAGE = 1024
MAX_REPORT = 3072
SLOW_START_SECONDS = 15.0

_CLAIM = "persistentVolumeClaim"

_IMAGE_FAILURES = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
)
"""The kubelet goes back and forth between these; to people they are one."""

_START_FAILURES = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
)


@dataclass(frozen=True, slots=True)
class PodFailure:
    """Why something does not work: one word for programs, a sentence for people."""

    reason: str
    message: str


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


def failure_of(pod: Json) -> PodFailure | None:
    """Say why a pod does not run, or did not end well; None where it does or did."""
    for condition in pod.get("status", {}).get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return PodFailure(
                "Unschedulable", _short(f"no node takes the pod: {condition.get('message', '')}")
            )
    for status in pod.get("status", {}).get("containerStatuses", []):
        waiting = status.get("state", {}).get("waiting", {})
        reason = waiting.get("reason")
        if reason in _IMAGE_FAILURES:
            image = status.get("image") or "the image"
            return PodFailure(
                "ImageUnavailable", f"{image} cannot be pulled: does it exist, and may it be?"
            )
        if reason in _START_FAILURES:
            return PodFailure(reason, _short(waiting.get("message") or reason))
    for state in _container_states(pod):
        ended = state.get("terminated", {})
        if ended and ended.get("exitCode") != 0:
            return _failure_of_exit(ended, report_of(pod))
    if _waits_for(pod) == "CrashLoopBackOff":
        return PodFailure("WorkerEnded", "the worker ends again and again without saying why")
    return None


def server_failure_of(pod: Json) -> PodFailure | None:
    """Say why a pod that should answer does not; what it got over is no failure any more."""
    return None if is_ready(pod) or is_going(pod) else failure_of(pod)


def slow_start_of(pod: Json, now: datetime) -> PodFailure | None:
    """Say what a pod waits for that nobody has complained of, once it has waited for long.

    A volume that does not come is told in events only, so what it may be is named.
    """
    waited = age(pod, now)
    if waited is None or waited < SLOW_START_SECONDS:
        return None
    if _runs(pod):
        message = (
            "its pod runs and is not ready: it loads the model, or waits for what it depends on"
        )
        return PodFailure("NotReady", message)
    if _waits_for(pod) != "ContainerCreating":
        return None
    waits = [*_mounted(pod), "its image"]
    return PodFailure("PodNotStarted", f"its pod is not started; it waits for {' or '.join(waits)}")


def _mounted(pod: Json) -> list[str]:
    """Return, in words, the volumes without which a pod does not start."""
    volumes = pod.get("spec", {}).get("volumes", [])
    claims = [v[_CLAIM]["claimName"] for v in volumes if _CLAIM in v]
    secrets = [v["secret"] for v in volumes if "secret" in v]
    return [
        *(f"the claim {claim}" for claim in claims),
        *(f"the Secret {s['secretName']}" for s in secrets if not s.get("optional")),
    ]


def age(obj: Json, now: datetime) -> float | None:
    """Return for how many seconds an object has been there."""
    created = obj["metadata"].get("creationTimestamp")
    return (now - datetime.fromisoformat(created)).total_seconds() if created else None


def is_ready(pod: Json) -> bool:
    """Tell whether a pod answers and is to be asked."""
    conditions = pod.get("status", {}).get("conditions", [])
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and not is_going(pod)


def is_going(pod: Json) -> bool:
    """Tell whether a pod was told to stop."""
    return "deletionTimestamp" in pod["metadata"]


def container_of(obj: Json) -> Json:
    """Return the worker's container of a pod, or of what makes pods; empty when it has none."""
    spec = obj.get("spec") or {}
    spec = (spec.get("template") or {}).get("spec") or spec.get("predictor") or spec
    containers: list[Json] = spec.get("containers") or [{}]
    # Others put containers of theirs beside it, even before it.
    return next((c for c in containers if _config_in(c)), containers[0])


def config_text(obj: Json) -> str:
    """Return what the worker of a pod, or of what makes pods, is told; empty for nothing."""
    return _config_in(container_of(obj))


def _config_in(container: Json) -> str:
    variables = container.get("env") or []
    return next((str(v.get("value", "")) for v in variables if v["name"] == CONFIG_VARIABLE), "")


def _runs(pod: Json) -> bool:
    statuses = pod.get("status", {}).get("containerStatuses", [])
    return any("running" in status.get("state", {}) for status in statuses)


def _waits_for(pod: Json) -> str | None:
    for status in pod.get("status", {}).get("containerStatuses", []):
        reason: str | None = status.get("state", {}).get("waiting", {}).get("reason")
        return reason
    return None


def _failure_of_exit(ended: Json, report: RunReport | None) -> PodFailure:
    if ended.get("reason") == "OOMKilled":
        return PodFailure(
            "OOMKilled", "the worker took more memory than its limit: raise resources.memory"
        )
    if report:
        # In its own lines: it may be a table.
        return PodFailure(report.reason, report.message.strip()[:MAX_REPORT])
    return PodFailure(
        "WorkerFailed", f"the worker ended with exit code {ended.get('exitCode')} and no word"
    )


def _container_states(pod: Json) -> list[Json]:
    """Return the containers' states, what they are now before what they were."""
    statuses = pod.get("status", {}).get("containerStatuses", [])
    return [s[key] for s in statuses for key in ("state", "lastState") if s.get(key)]


def _short(text: str) -> str:
    return " ".join(text.split())[:MAX_MESSAGE]
