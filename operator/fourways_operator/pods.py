"""Why a pod has failed, from its state and its termination message. Pure.

A worker's termination message is a ``RunReport``. If a worker could not write one (out of memory,
image missing, volume missing), the message is made from the pod's state.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from fourways_api import RunReport
from fourways_api.reasons import Reason, known_or
from fourways_api.runtime_config import CONFIG_VARIABLE

from .facts import Json
from .texts import on_one_line, shortened

MAX_MESSAGE = 1024
MAX_REPORT = 3072
SLOW_START_SECONDS = 15.0

_CLAIM = "persistentVolumeClaim"

_IMAGE_FAILURES = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
    }
)
"""The kubelet alternates between these; to users they mean the same."""

_USUAL_WAITS = frozenset({"ContainerCreating", "PodInitializing", "CrashLoopBackOff"})
"""Why a container waits that is being started. With any other reason, it cannot be started."""

_GATED = "SchedulingGated"
"""Reason of PodScheduled while another controller, such as Kueue, holds a pod back."""

_NEVER_RAN = frozenset({"StartError", "ContainerCannotRun"})
"""How a container ended whose program could not be started: the message is the kubelet's."""

_START_FAILURES = frozenset(
    {Reason.CreateContainerConfigError, Reason.CreateContainerError, Reason.RunContainerError}
)


_FRAME = re.compile(r'^  File (".*", line \d+ in .*)$', re.MULTILINE)
"""A frame of a stack as :mod:`faulthandler` writes it, which differs from that of a traceback."""

_WATCHED = '/scoring/model/watched.py", line '

_CRASH = re.compile(r"^Fatal Python error: (.{1,80})$", re.MULTILINE)
"""How :mod:`faulthandler` begins where a signal such as SIGSEGV ends the process."""


@dataclass(frozen=True, slots=True)
class PodFailure:
    """Why a pod, or an object that creates pods, has failed.

    ``reason`` is a ``Reason``, or one from a controller or an image of another version.
    """

    reason: str
    message: str


def report_of(pod: Json) -> RunReport | None:
    """Return the report in a pod's termination message; None if it contains none."""
    for state in _container_states(pod):
        text = state.get("terminated", {}).get("message", "")
        if text.startswith("{"):
            try:
                return RunReport.model_validate_json(text)
            except ValueError:
                return None
        if crash := _CRASH.search(text):
            return _crash_report(crash[1], text[crash.end() :])
        if _FRAME.search(text):
            return _held_report(text)
    return None


def _held_report(text: str) -> RunReport:
    """Read the stacks that a worker's watchdog left: the interpreter lock was never released.

    Kubernetes keeps only the end of a long message. The thread that called the model is the one
    with the watched call; if it was cut off, the last one, which is the main thread.
    """
    threads = [part for part in text.split("\nThread ") if _FRAME.search(part)]
    calling = [part for part in threads if _WATCHED in part] or threads[-1:]
    where = _FRAME.findall(calling[0])[0]
    return RunReport(
        outcome="Failed",
        reason=Reason.ModelHangs,
        message=_short(
            f"a library holds Python's lock and has not returned from {where}; correct the model, "
            "or narrow the contract so that such records are refused"
        ),
    )


def _crash_report(what: str, stack: str) -> RunReport:
    """Read the stack that is left of a worker that crashed in a library."""
    frame = _FRAME.search(stack)
    where = f" in {frame[1]}" if frame else ""
    return RunReport(
        outcome="Failed",
        reason=Reason.WorkerFailed,
        message=_short(
            f"a library crashed ({what}){where}; check that the model's file is whole, and made for"
            " the versions of the libraries in the worker's image"
        ),
    )


def failure_of(pod: Json) -> PodFailure | None:
    """Return why a pod does not run or has failed; None if it runs or has succeeded."""
    for condition in pod.get("status", {}).get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            if condition.get("reason") == _GATED:
                return PodFailure(_GATED, _short(_gated(pod)))
            return PodFailure(
                Reason.Unschedulable,
                _short(f"no node accepts the pod: {condition.get('message', '')}"),
            )
    for status in _statuses(pod):
        waiting = status.get("state", {}).get("waiting", {})
        reason = waiting.get("reason")
        if reason in _IMAGE_FAILURES:
            image = _image_of_volume(pod, waiting) or status.get("image") or "the image"
            return PodFailure(
                Reason.ImageUnavailable,
                f"{image} cannot be pulled: check that the image exists and its pull secret",
            )
        if reason in _START_FAILURES:
            return PodFailure(Reason[reason], _short(waiting.get("message") or reason))
        if reason and reason not in _USUAL_WAITS:
            message = _short(waiting.get("message") or "its container is not started")
            return PodFailure(known_or(reason, Reason.RunContainerError), message)
    if (evicted := _failure_of_whole(pod)) and report_of(pod) is None:
        return evicted
    for state in _container_states(pod):
        ended = state.get("terminated", {})
        if ended and ended.get("exitCode") != 0:
            return _failure_of_exit(ended, report_of(pod))
    if _waits_for(pod) == "CrashLoopBackOff":
        return PodFailure(
            Reason.WorkerEnded,
            "the worker exits repeatedly without a termination message; see its log",
        )
    return None


def _image_of_volume(pod: Json, waiting: Json) -> str:
    """Return the image of a volume that a container waits for, by the kubelet's message."""
    volumes = (pod.get("spec") or {}).get("volumes") or []
    images = [str((volume.get("image") or {}).get("reference") or "") for volume in volumes]
    said = str(waiting.get("message") or "")
    return next((image for image in images if image and image in said), "")


def _gated(pod: Json) -> str:
    gates = (pod.get("spec") or {}).get("schedulingGates") or []
    names = ", ".join(str(gate.get("name")) for gate in gates) or "a scheduling gate"
    return f"its pod is not scheduled yet: {names} holds it back, which a controller has to remove"


def eviction_of(pod: Json) -> PodFailure | None:
    """Return why the kubelet evicted a pod; None if it did not."""
    evicted = (pod.get("status") or {}).get("reason") == "Evicted"
    return _failure_of_whole(pod) if evicted else None


def _failure_of_whole(pod: Json) -> PodFailure | None:
    """Return why the node or the control plane ended a pod: eviction, shutdown, admission."""
    status = pod.get("status") or {}
    reason = status.get("reason")
    if status.get("phase") != "Failed" or not reason:
        return None
    message = _short(f"its pod was ended: {status.get('message') or reason}")
    return PodFailure(known_or(reason, Reason.WorkerFailed), message)


def server_failure_of(pod: Json) -> PodFailure | None:
    """Return why a server's pod is not ready; None once it is, whatever happened before."""
    return None if is_ready(pod) or is_going(pod) else failure_of(pod)


def refused_pods_of(workload: Json) -> PodFailure | None:
    """Return why the API server refuses the pods of a Deployment: a quota, a policy.

    The Deployment controller copies the API server's message to the condition ReplicaFailure.
    """
    for condition in (workload.get("status") or {}).get("conditions") or []:
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return pods_refused(str(condition.get("message", "")))
    return None


def pods_refused(message: str) -> PodFailure:
    """Return the failure of a workload whose pods the API server refuses with this message."""
    return PodFailure(Reason.PodRefused, _short(f"its pods are rejected: {message}"))


def slow_start_of(pod: Json, now: datetime) -> PodFailure | None:
    """Return what a pod waits for if it has waited for long without a reported failure.

    A volume that cannot be mounted shows only in events, so the message names the volumes.
    """
    waited = age(pod, now)
    if waited is None or waited < SLOW_START_SECONDS:
        return None
    if _runs(pod):
        message = "its pod runs and is not ready: it loads the model, or waits for a dependency"
        return PodFailure(Reason.NotReady, message)
    if _waits_for(pod) != "ContainerCreating":
        return None
    waits = [*_mounted(pod), "its image"]
    return PodFailure(
        Reason.PodNotStarted, f"its pod has not started; it waits for {' or '.join(waits)}"
    )


def _mounted(pod: Json) -> list[str]:
    """Return descriptions of the volumes without which a pod does not start."""
    volumes = pod.get("spec", {}).get("volumes", [])
    claims = [v[_CLAIM]["claimName"] for v in volumes if _CLAIM in v]
    secrets = [v["secret"] for v in volumes if "secret" in v]
    return [
        *(f"the claim {claim}" for claim in claims),
        *(f"the Secret {s['secretName']}" for s in secrets if not s.get("optional")),
    ]


def age(obj: Json, now: datetime) -> float | None:
    """Return an object's age in seconds."""
    created = obj["metadata"].get("creationTimestamp")
    return (now - datetime.fromisoformat(created)).total_seconds() if created else None


def is_ready(pod: Json) -> bool:
    """Tell whether a pod is ready for requests."""
    conditions = pod.get("status", {}).get("conditions", [])
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and not is_going(pod)


def is_going(pod: Json) -> bool:
    """Tell whether a pod is being deleted."""
    return "deletionTimestamp" in pod["metadata"]


def has_ended(pod: Json) -> bool:
    """Tell whether a pod runs no more. Such a pod stays until somebody deletes it.

    A workload that runs permanently has another pod instead.
    """
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def container_of(obj: Json) -> Json:
    """Return the worker's container of a pod or of a pod's creator; empty if there is none."""
    spec = obj.get("spec") or {}
    spec = (spec.get("template") or {}).get("spec") or spec.get("predictor") or spec
    containers: list[Json] = spec.get("containers") or [{}]
    # Webhooks add their own containers, even before the worker's.
    return next((c for c in containers if _config_in(c)), containers[0])


def config_text(obj: Json) -> str:
    """Return the worker's configuration in a pod or a pod's creator; empty if there is none."""
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


def ended_silently(pod: Json) -> bool:
    """Tell whether a worker's containers ended with code 0 and said nothing."""
    ends = [state["terminated"] for state in _container_states(pod) if state.get("terminated")]
    return bool(ends) and not any(end.get("exitCode") or end.get("message") for end in ends)


def _failure_of_exit(ended: Json, report: RunReport | None) -> PodFailure:
    if ended.get("reason") == Reason.OOMKilled:
        return PodFailure(
            Reason.OOMKilled, "the worker exceeded its memory limit: raise spec.resources.memory"
        )
    if report:
        # Line breaks are kept: the message may be a table.
        reason = known_or(report.reason, Reason.WorkerFailed)
        return PodFailure(reason, shortened(report.message.strip(), MAX_REPORT))
    if ended.get("reason") in _NEVER_RAN and ended.get("message"):
        message = _short(f"its container does not start: {ended['message']}")
        return PodFailure(Reason.RunContainerError, message)
    code = ended.get("exitCode")
    message = f"the worker exited with code {code} without a termination message; see its log"
    return PodFailure(Reason.WorkerFailed, message)


def _container_states(pod: Json) -> list[Json]:
    """Return the containers' states, the current ones before the previous ones."""
    return [s[key] for s in _statuses(pod) for key in ("state", "lastState") if s.get(key)]


def _statuses(pod: Json) -> list[Json]:
    """Return the containers' statuses; those that run first come last, as they say less."""
    status = pod.get("status") or {}
    return [*status.get("containerStatuses", []), *status.get("initContainerStatuses", [])]


def _short(text: str) -> str:
    return on_one_line(text, MAX_MESSAGE)
