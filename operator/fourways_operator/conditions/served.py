"""What is said of workloads that answer as long as they live: model servers, stream workers.

A new version that does not come up leaves the old one at work. So what is Ready is decided by
the pods that are ready, whatever their version; what is Degraded by the pods of the new one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

from ..facts import Json
from ..plan import DEPLOYMENT
from ..pods import (
    PodFailure,
    config_text,
    is_going,
    is_ready,
    server_failure_of,
    slow_start_of,
)
from .common import (
    ConditionResult,
    ModeView,
    apply_failed,
    constant,
    gateway_rolling,
    model_refused,
    model_resolved,
)


@dataclass(frozen=True)
class ServedView(ModeView):
    """The pods of a workload."""

    @cached_property
    def pods(self) -> list[Json]:
        """Its pods that were not told to stop, youngest first."""
        mode = self.deployment.spec.choice().mode
        return [pod for pod in self.own_pods(mode) if not is_going(pod)]

    @cached_property
    def current(self) -> list[Json]:
        """Its pods that do what the spec says now."""
        return [pod for pod in self.pods if self.is_current(pod)]

    @cached_property
    def ready(self) -> list[Json]:
        """Its pods that answer; first those that do what the spec says now."""
        ready = [pod for pod in self.pods if is_ready(pod)]
        return sorted(ready, key=lambda pod: pod not in self.current)

    @property
    def replicas(self) -> int:
        """How many pods there should be at least."""
        raise NotImplementedError

    @property
    def version(self) -> str | None:
        """Version of the model in the pods that answer."""
        if not self.ready:
            return None
        try:
            version: str = json.loads(config_text(self.ready[0]))["model"]["version"]
            return version
        except (ValueError, KeyError, TypeError):
            return self.deployment.spec.model.version

    @property
    def is_rolled(self) -> bool:
        """Whether the new version answers everywhere, and nothing else does."""
        ready = [pod for pod in self.current if is_ready(pod)]
        return len(ready) >= self.replicas and len(self.pods) == len(self.current)

    @cached_property
    def failure(self) -> PodFailure | None:
        """Why the new version does not come up; None while nobody complains."""
        found = next((t for t in map(server_failure_of, self.current) if t), None)
        return found or self._refused_pods

    @property
    def _refused_pods(self) -> PodFailure | None:
        for child in self.facts.children:
            if not DEPLOYMENT.of(child):
                continue
            for condition in child.get("status", {}).get("conditions", []):
                if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
                    return PodFailure("PodRefused", str(condition.get("message", "")))
        return None


def no_pod_ready(view: ServedView) -> ConditionResult | None:
    """Nothing of it answers."""
    if view.ready:
        return None
    if view.failure:
        return ConditionResult("False", view.failure.reason, view.failure.message)
    slow = next((t for t in (slow_start_of(p, view.facts.now) for p in view.current) if t), None)
    if slow:
        return ConditionResult("False", slow.reason, slow.message)
    version = view.deployment.spec.model.version
    return ConditionResult("False", "Starting", f"version {version} is being started")


def answers(view: ServedView) -> ConditionResult | None:
    """It answers."""
    message = f"version {view.version} answers"
    wanted = view.deployment.spec.model.version
    if view.failure and view.version != wanted:
        message += f"; version {wanted} does not come up: {view.failure.message}"
    elif view.failure and not any(pod in view.current for pod in view.ready):
        message += f" as it was; what the spec says now does not come up: {view.failure.message}"
    return ConditionResult("True", "Answering", message)


def stuck(view: ServedView) -> ConditionResult | None:
    """The new version does not come up, so that nothing moves."""
    if not view.failure or view.is_rolled:
        return None
    return ConditionResult(
        "False", view.failure.reason, f"does not come up: {view.failure.message}"
    )


def rolling(view: ServedView) -> ConditionResult | None:
    """The new version comes up, or the old one goes."""
    if view.is_rolled:
        return None
    ready = sum(is_ready(pod) for pod in view.current)
    version = view.deployment.spec.model.version
    message = f"version {version} is ready in {ready} of {view.replicas} pods"
    return ConditionResult("True", "RollingOut", message)


def does_not_come_up(view: ServedView) -> ConditionResult | None:
    """A pod that does what the spec says now has failed."""
    if not view.failure:
        return None
    message = view.failure.message
    version = view.deployment.spec.model.version
    if view.ready and view.version != version:
        message = f"version {version} does not come up: {message}; version {view.version} answers"
    elif view.ready:
        message = f"a pod of version {version} does not work: {message}; another answers"
    return ConditionResult("True", view.failure.reason, message)


def model_failed(view: ServedView) -> ConditionResult | None:
    """A pod that does what the spec says now says that the model is not right."""
    return model_refused(view.failure)


def model_loaded(view: ServedView) -> ConditionResult | None:
    """A pod answers with the model, so it was fetched, though nobody told its digest."""
    if not any(is_ready(pod) for pod in view.current):
        return None
    version = view.deployment.spec.model.version
    return ConditionResult("True", "Loaded", f"version {version} is loaded and answers")


def nothing_serves_and_refused(view: ServedView) -> ConditionResult | None:
    """The API server refused an object, and no pod of before is there to answer."""
    return None if view.ready else apply_failed(view)


PROGRESSING = (
    stuck,
    rolling,
    gateway_rolling,
    constant("False", "Idle", "nothing is under way"),
)
MODEL_RESOLVED = (
    model_failed,
    model_resolved,
    model_loaded,
    constant("Unknown", "NotFetchedYet", "the first pod will fetch the model"),
)
