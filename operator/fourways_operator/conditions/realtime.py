"""The conditions of a real-time deployment, from its pods, the gateway and KServe's status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fourways_api import ColdStartStatus, QualityStatus, Route
from fourways_api.reasons import Reason, known_or

from ..facts import Json
from ..kinds import DEPLOYMENT, INFERENCE_SERVICE
from ..plan.quality import is_quality
from ..plan.realtime import name_of, replicas, route
from ..plan.routes import address_of
from ..pods import MAX_MESSAGE, PodFailure, age, is_going, refused_pods_of, server_failure_of
from ..scaling import is_proven, may_sleep, replaces_a_sleeper, replicas_of, scaled_of
from ..texts import on_one_line
from .common import (
    ConditionChain,
    ConditionResult,
    degraded,
    gateway_degraded,
    gateway_missing,
    gateway_refuses,
    gateway_refuses_degrades,
    gateway_unaware,
    gateway_unheard,
    kind_missing,
    name_taken,
    nothing_wrong,
    refused,
)
from .drift import drift_conditions
from .served import (
    MODEL_RESOLVED,
    PROGRESSING,
    ServedView,
    answers,
    does_not_come_up,
    no_pod_ready,
    nothing_serves_and_refused,
    worker_degrades,
)

KSERVE_SECONDS = 30.0
"""After this many seconds without a status, no KServe controller is running."""


MAX_QUALITY = 400
"""Maximum number of characters of the message beside a comparison with labels."""


@dataclass(frozen=True)
class RealtimeView(ServedView):
    """Its InferenceService, and the pods of its model server."""

    def conditions(self) -> Mapping[str, ConditionChain[RealtimeView]]:
        """See ModeView."""
        return {
            "Ready": (
                name_taken,
                kind_missing,
                nothing_serves_and_refused,
                _kserve_silent,
                _failed_in_kserve,
                _no_replica,
                _certificate_refused,
                _no_features,
                _no_address,
                gateway_missing,
                gateway_unaware,
                gateway_refuses,
                _sleeps,
                _wakes,
                gateway_unheard,
                answers,
            ),
            "Progressing": PROGRESSING,
            "Degraded": (
                refused,
                _kserve_degrades,
                does_not_come_up,
                worker_degrades,
                gateway_degraded,
                gateway_refuses_degrades,
                nothing_wrong,
            ),
            "ModelResolved": (_model_known_before_sleep, *MODEL_RESOLVED),
            **drift_conditions(self.deployment),
        }

    @cached_property
    def service(self) -> Json | None:
        """The live InferenceService."""
        name = name_of(self.deployment.metadata.name)
        found = (
            child
            for child in self.facts.children
            if INFERENCE_SERVICE.of(child) and child["metadata"]["name"] == name
        )
        return next(found, None)

    @property
    def url(self) -> str | None:
        """The address that KServe reports."""
        return address_of(self.service) if self.service else None

    @property
    def route(self) -> Route | None:
        """See ModeView."""
        return route(self.deployment, self.url)

    @property
    def replicas(self) -> int:
        """Minimum number of model servers; one, until the current spec has been ready once."""
        realtime = self.deployment.spec.realtime
        least = replicas(realtime)[0] if realtime else 1
        return least if self.is_proven else max(1, least)

    @cached_property
    def is_proven(self) -> bool:
        """Whether the current spec was ready when the status was last written."""
        return is_proven(self.facts.deployment)

    @cached_property
    def replaces_a_sleeper(self) -> bool:
        """Whether a version that slept has to be ready before the current spec replaces it."""
        facts = self.facts
        return replaces_a_sleeper(self.deployment, facts.deployment, facts.wanted, facts.children)

    @cached_property
    def sleeps(self) -> bool:
        """Whether it has no replicas because nobody asks it."""
        scaled = scaled_of(self.deployment, self.facts.children)
        return may_sleep(self.deployment) and scaled is not None and replicas_of(scaled) == 0

    def status_fields(self) -> dict[str, Any]:
        """See ModeView."""
        measured = {"quality": self.quality}
        demand = self.facts.demand
        if not may_sleep(self.deployment):
            return measured
        if demand is None or demand.cold_start_seconds is None or demand.woken_at is None:
            return {**measured, "cold_start": self.old.cold_start}
        seconds = round(demand.cold_start_seconds, 2)
        return {**measured, "cold_start": ColdStartStatus(seconds=seconds, at=demand.woken_at)}

    @property
    def comparing(self) -> list[Json]:
        """Its quality worker's pods, which are no model servers."""
        return [pod for pod in self.facts.pods if is_quality(pod) and not is_going(pod)]

    @property
    def quality(self) -> QualityStatus | None:
        """The latest comparison; its message says why the quality worker does not start."""
        known, declared = super().quality, self.deployment.spec.quality
        owner = next((c for c in self.facts.children if _compares(c)), None)
        found = (*map(server_failure_of, self.comparing), owner and refused_pods_of(owner))
        failure = next((each for each in found if each), None)
        if declared is None or owner is None or failure is None:
            return known
        made_at = owner["metadata"].get("creationTimestamp", "")
        known = known or QualityStatus(output=declared.output, labels=0, measured_at=made_at)
        message = on_one_line(f"the quality worker does not start: {failure.message}", MAX_QUALITY)
        return known.model_copy(update={"message": message})

    def of_service(self, condition: str) -> Json:
        """Return the InferenceService's condition of this name; empty if it has none."""
        status = (self.service or {}).get("status") or {}
        found = (c for c in status.get("conditions") or [] if c["type"] == condition)
        return next(found, {})


def _compares(child: Json) -> bool:
    return DEPLOYMENT.of(child) and is_quality(child)


def _kserve_silent(view: RealtimeView) -> ConditionResult | None:
    if view.service is None:
        message = "waiting for the InferenceService to be created"
        return ConditionResult("False", Reason.WaitingForKServe, message)
    if (view.service.get("status") or {}).get("conditions"):
        return None
    name, waited = view.service["metadata"]["name"], age(view.service, view.facts.now)
    if waited is None or waited < KSERVE_SECONDS:
        message = f"waiting for KServe to handle InferenceService {name}"
        return ConditionResult("False", Reason.WaitingForKServe, message)
    message = (
        f"no KServe controller has handled InferenceService {name} within {KSERVE_SECONDS:g} s: "
        "check that KServe's controller is running (docs/modes/realtime.md)"
    )
    return ConditionResult("False", Reason.KServeSilent, message)


def _no_address(view: RealtimeView) -> ConditionResult | None:
    """KServe has not published an address yet.

    It publishes the address once a predictor pod is ready, and keeps it. Its own conditions are
    False while it scales up or rolls out, but ready pods answer at the address even then.
    """
    if view.url:
        return None
    condition = view.of_service("PredictorReady")
    reported = condition.get("message") or view.of_service("Ready").get("message")
    why = on_one_line(reported or "it has published no address yet", MAX_MESSAGE)
    return ConditionResult("False", Reason.WaitingForKServe, f"waiting for KServe: {why}")


def _failed_in_kserve(view: RealtimeView) -> ConditionResult | None:
    if view.sleeps:
        return None
    condition = view.of_service("PredictorReady")
    refused = _refused_by_kserve(view)
    if refused and not view.pods:
        return ConditionResult("False", Reason.KServeFailed, f"KServe: {refused}")
    if view.pods or condition.get("status") != "False" or not condition.get("message"):
        return None
    reason = known_or(condition.get("reason"), Reason.KServeFailed)
    message = on_one_line(condition["message"], MAX_MESSAGE)
    return ConditionResult("False", reason, f"KServe: {message}")


def _refused_by_kserve(view: RealtimeView) -> str | None:
    """Return why KServe makes nothing of the InferenceService, such as a runtime that is missing.

    KServe says this in the status of the model, not in a condition.
    """
    model = ((view.service or {}).get("status") or {}).get("modelStatus") or {}
    info = model.get("lastFailureInfo") or {}
    if model.get("transitionStatus") != "InvalidSpec" or not info.get("message"):
        return None
    return on_one_line(info["message"], MAX_MESSAGE)


def _no_features(view: RealtimeView) -> ConditionResult | None:
    """No ready model server gets features, and requests that need them are refused.

    With ``onTimeout: UseDefaults`` these requests are answered, with the defaults.
    """
    realtime = view.deployment.spec.realtime
    features = realtime.features if realtime else None
    if features is None or features.on_timeout != "Fail":
        return None
    fault = _fault_of_all(view, Reason.FeaturesUnavailable)
    if fault is None:
        return None
    message = f"requests that leave inputs out are refused: {fault.message}"
    return ConditionResult("False", fault.reason, message)


def _certificate_refused(view: RealtimeView) -> ConditionResult | None:
    """The gateway does not accept the certificate of any ready model server."""
    fault = _fault_of_all(view, Reason.CertificateInvalid)
    return ConditionResult("False", fault.reason, fault.message) if fault else None


def _fault_of_all(view: RealtimeView, reason: Reason) -> PodFailure | None:
    """Return a fault that each ready model server reports; None if one does not."""
    found = [next((f for f in view.faults_of(p) if f.reason == reason), None) for p in view.ready]
    return found[0] if found and all(found) else None


def _no_replica(view: RealtimeView) -> ConditionResult | None:
    """No pod is ready, and that is not because the deployment sleeps or wakes."""
    result = None if view.sleeps else no_pod_ready(view)
    if result is not None and result.reason == Reason.Starting and _may_wake(view):
        return None
    return result


def _may_wake(view: RealtimeView) -> bool:
    return may_sleep(view.deployment) and (view.is_proven or view.replaces_a_sleeper)


def _sleeps(view: RealtimeView) -> ConditionResult | None:
    """It has no replicas, and the next request starts one."""
    if view.ready or not view.sleeps:
        return None
    version, last = view.deployment.spec.model.version, view.status_fields()["cold_start"]
    took = f" (the last one took {last.seconds:g} s)" if last else ""
    message = f"version {version} sleeps; the next request waits for a replica to start{took}"
    return ConditionResult("True", Reason.Asleep, message)


def _wakes(view: RealtimeView) -> ConditionResult | None:
    """A replica of a version that was ready before is being started."""
    if view.ready:
        return None
    version = view.deployment.spec.model.version
    if view.replaces_a_sleeper:
        message = f"the version that slept is starting, and serves until {version} is ready"
    else:
        message = f"a replica of version {version} is starting; requests wait for it"
    return ConditionResult("True", Reason.Waking, message)


def _model_known_before_sleep(view: RealtimeView) -> ConditionResult | None:
    """No pod says whether the model can be used, and the last one said that it can."""
    if view.pods or not view.sleeps or not view.is_proven:
        return None
    before = (c for c in view.old.conditions if (c.type, c.status) == ("ModelResolved", "True"))
    return next((ConditionResult("True", c.reason, c.message) for c in before), None)


def _kserve_degrades(view: RealtimeView) -> ConditionResult | None:
    result = _kserve_silent(view) or _failed_in_kserve(view)
    if result is None or result.reason == Reason.WaitingForKServe:
        return None
    return degraded(result)
