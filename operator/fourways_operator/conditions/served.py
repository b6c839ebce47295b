"""The conditions of workloads that run permanently: model servers and stream workers.

If a new version does not start, the old one keeps running. So the ready pods of any version decide
Ready, and the pods of the new version decide Degraded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from fourways_api import DriftStatus, ModelDeployment, QualityStatus, Status
from fourways_api.reasons import Reason, known_or

from ..facts import Facts, Json
from ..kinds import DEPLOYMENT
from ..plan.parts import MODE_LABEL
from ..plan.quality import is_quality
from ..pods import (
    MAX_MESSAGE,
    PodFailure,
    config_text,
    has_ended,
    is_going,
    is_ready,
    refused_pods_of,
    server_failure_of,
    slow_start_of,
)
from ..texts import on_one_line
from .common import (
    ConditionChain,
    ConditionResult,
    ModeView,
    apply_failed,
    constant,
    gateway_rolling,
    idle,
    model_resolved,
    model_unusable,
)
from .drift import worst

REPORTED = frozenset(
    {
        Reason.CertificateInvalid,
        Reason.FeaturesUnavailable,
        Reason.StoreUnavailable,
        Reason.StoreFull,
        Reason.StoreReadOnly,
        Reason.BrokerUnavailable,
        Reason.EventsExpired,
        Reason.StreamLags,
        Reason.ModelHangs,
    }
)
"""The reasons that workers report while they run."""


@dataclass(frozen=True)
class ServedView(ModeView):
    """The pods of a workload."""

    @classmethod
    def of(cls, facts: Facts, deployment: ModelDeployment, old: Status) -> Self:
        """Return the view of these facts."""
        return cls(deployment, facts, old)

    @staticmethod
    def still_serves(facts: Facts, old: Status) -> bool:
        """Tell whether a pod of the last status's mode is ready."""
        return any(
            is_ready(pod)
            for pod in facts.pods
            if pod["metadata"].get("labels", {}).get(MODE_LABEL) == old.mode
        )

    @cached_property
    def pods(self) -> list[Json]:
        """Its pods that run, or are to run, youngest first."""
        return [pod for pod in self._own_pods if not has_ended(pod)]

    @cached_property
    def _own_pods(self) -> list[Json]:
        """Its pods that are not being deleted, also those that have ended; youngest first."""
        mode = self.deployment.spec.choice().mode
        return [pod for pod in self.own_pods(mode) if not is_going(pod)]

    @cached_property
    def current(self) -> list[Json]:
        """Its pods that run the current spec."""
        return [pod for pod in self.pods if self.is_current(pod)]

    @cached_property
    def ready(self) -> list[Json]:
        """Its ready pods; those that run the current spec come first."""
        ready = [pod for pod in self.pods if is_ready(pod)]
        return sorted(ready, key=lambda pod: pod not in self.current)

    @property
    def replicas(self) -> int:
        """Minimum number of pods."""
        raise NotImplementedError

    @property
    def version(self) -> str | None:
        """Version of the model in the ready pods."""
        if not self.ready:
            return None
        try:
            version: str = json.loads(config_text(self.ready[0]))["model"]["version"]
            return version
        except (ValueError, KeyError, TypeError):
            return self.deployment.spec.model.version

    @property
    def serves_spec(self) -> bool:
        """Whether a ready pod runs the current spec."""
        return any(is_ready(pod) for pod in self.current)

    @property
    def is_rolled(self) -> bool:
        """Whether enough pods of the new version are ready, and no other version runs."""
        ready = [pod for pod in self.current if is_ready(pod)]
        return len(ready) >= self.replicas and len(self.pods) == len(self.current)

    @cached_property
    def failure(self) -> PodFailure | None:
        """Why the new version does not start; None while no failure is known.

        What a running worker reports now comes before what ended an earlier container of its pod.
        """
        waiting = [pod for pod in self.current if not is_ready(pod)]
        if not self.serves_spec:
            # What ended a pod is reported until one in its place is ready.
            waiting += [pod for pod in self._own_pods if has_ended(pod) and self.is_current(pod)]
        found = (next(iter(self.faults_of(pod)), None) or server_failure_of(pod) for pod in waiting)
        return next((t for t in found if t), None) or self._refused_pods

    @cached_property
    def worker_faults(self) -> list[PodFailure]:
        """What its running workers report now; those of the current spec come first."""
        pods = sorted(self.pods, key=lambda pod: pod not in self.current)
        return [fault for pod in pods for fault in self.faults_of(pod)]

    @property
    def drift(self) -> DriftStatus | None:
        """That of the worker whose records differ most; before their first answer, the last one."""
        names = [pod["metadata"].get("name", "") for pod in self.pods]
        found = (self.facts.worker_faults.get(name) for name in names)
        known = worst(each.drift for each in found if each)
        return self.old.drift if known is None and self._is_unheard(names) else known

    @property
    def quality(self) -> QualityStatus | None:
        """The latest comparison with labels that a worker reported, or the last status's."""
        if self.deployment.spec.quality is None:
            return None
        names = (pod["metadata"].get("name", "") for pod in self.comparing)
        found = (self.facts.worker_faults.get(name) for name in names)
        known = [each.quality for each in found if each and each.quality]
        return max(known, key=lambda each: each.measured_at, default=self.old.quality)

    @property
    def comparing(self) -> list[Json]:
        """The pods that compare predictions with labels."""
        return self.pods

    def _is_unheard(self, names: list[str]) -> bool:
        return any(name in self.facts.unheard for name in names)

    def faults_of(self, pod: Json) -> list[PodFailure]:
        """What a running worker reports now; before its first answer, what the status has."""
        name = pod["metadata"].get("name", "")
        if name in self.facts.unheard:
            return self._last_faults
        found = self.facts.worker_faults.get(name)
        return [
            PodFailure(
                known_or(fault.reason, Reason.WorkerFailed), on_one_line(fault.message, MAX_MESSAGE)
            )
            for fault in (found.faults if found else ())
        ]

    @cached_property
    def _last_faults(self) -> list[PodFailure]:
        """The fault of a worker in the last status.

        Otherwise a restart of the operator would report each fault as gone, and then as new.
        """
        last = (c for c in self.old.conditions if (c.type, c.status) == ("Degraded", "True"))
        return [PodFailure(c.reason, c.message) for c in last if c.reason in REPORTED]

    @property
    def _refused_pods(self) -> PodFailure | None:
        deployments = (child for child in self.facts.children if DEPLOYMENT.of(child))
        own = (refused_pods_of(child) for child in deployments if not is_quality(child))
        return next((failure for failure in own if failure), None)


def no_pod_ready(view: ServedView) -> ConditionResult | None:
    """No pod is ready."""
    if view.ready:
        return None
    failure = view.failure or next(iter(view.worker_faults), None)
    if failure:
        return ConditionResult("False", failure.reason, failure.message)
    slow = next((t for t in (slow_start_of(p, view.facts.now) for p in view.current) if t), None)
    if slow:
        return ConditionResult("False", slow.reason, slow.message)
    version = view.deployment.spec.model.version
    return ConditionResult("False", Reason.Starting, f"version {version} is starting")


def answers(view: ServedView) -> ConditionResult | None:
    """A pod is ready."""
    message = f"version {view.version} serves predictions"
    wanted = view.deployment.spec.model.version
    if view.failure and view.version != wanted:
        message += f"; version {wanted} does not start: {view.failure.message}"
    elif view.failure and not view.serves_spec:
        message += f" with its earlier settings; the new ones fail: {view.failure.message}"
    return ConditionResult("True", Reason.Answering, message)


def stuck(view: ServedView) -> ConditionResult | None:
    """The new version does not start, so the rollout has stopped."""
    if not view.failure or view.is_rolled:
        return None
    if view.worker_faults and len(view.pods) == len(view.current):
        message = f"{_ready_pods(view)}: {view.failure.message}"  # it came up, and failed later
    else:
        message = f"the rollout has stopped: {view.failure.message}"
    return ConditionResult("False", view.failure.reason, message)


def rolling(view: ServedView) -> ConditionResult | None:
    """Pods of the new version are starting, or pods of the old one are stopping."""
    if view.is_rolled:
        return None
    return ConditionResult("True", Reason.RollingOut, _ready_pods(view))


def _ready_pods(view: ServedView) -> str:
    ready = sum(is_ready(pod) for pod in view.current)
    version = view.deployment.spec.model.version
    return f"version {version} is ready in {ready} of {view.replicas} pods"


def does_not_come_up(view: ServedView) -> ConditionResult | None:
    """A pod that runs the current spec has failed."""
    if not view.failure:
        return None
    message = view.failure.message
    version = view.deployment.spec.model.version
    if view.ready and view.version != version:
        message = (
            f"version {version} does not start: {message}; "
            f"version {view.version} serves predictions"
        )
    elif view.ready:
        message = f"a pod of version {version} does not work: {message}; another serves predictions"
    return ConditionResult("True", view.failure.reason, message)


def worker_degrades(view: ServedView) -> ConditionResult | None:
    """A running worker reports a fault."""
    fault = next(iter(view.worker_faults), None)
    return ConditionResult("True", fault.reason, fault.message) if fault else None


def served_model_unusable(view: ServedView) -> ConditionResult | None:
    """A pod that runs the current spec reports that the model cannot be used."""
    return model_unusable(view.failure)


def model_loaded(view: ServedView) -> ConditionResult | None:
    """A pod serves the model, so it was fetched, although its digest was not reported."""
    if not view.serves_spec:
        return None
    version = view.deployment.spec.model.version
    return ConditionResult(
        "True", Reason.Loaded, f"version {version} is loaded and serves predictions"
    )


def nothing_serves_and_refused(view: ServedView) -> ConditionResult | None:
    """The API server refused an object, and no earlier pod is ready."""
    return None if view.ready else apply_failed(view)


PROGRESSING: ConditionChain[ServedView] = (stuck, rolling, gateway_rolling, idle)
MODEL_RESOLVED: ConditionChain[ServedView] = (
    served_model_unusable,
    model_resolved,
    model_loaded,
    constant("Unknown", Reason.NotFetchedYet, "the first pod will fetch the model"),
)
