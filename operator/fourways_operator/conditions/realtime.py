"""What is said of a real-time deployment: by its pods, the gateway, and what KServe says."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from fourways_api import ModelDeployment, Status

from ..facts import Facts, Json
from ..plan import INFERENCE_SERVICE
from ..plan.realtime import name_of, replicas
from ..plan.routes import address_of
from ..pods import age
from .common import (
    ConditionResult,
    gateway_degraded,
    gateway_missing,
    gateway_unaware,
    kind_missing,
    name_taken,
    nothing_wrong,
    refused,
)
from .served import (
    MODEL_RESOLVED,
    PROGRESSING,
    ServedView,
    answers,
    does_not_come_up,
    no_pod_ready,
    nothing_serves_and_refused,
)

KSERVE_SECONDS = 30.0
"""After so long without a word nobody is there to say one."""


@dataclass(frozen=True)
class RealtimeView(ServedView):
    """Its InferenceService, and the pods of its model server."""

    @classmethod
    def of(cls, facts: Facts, deployment: ModelDeployment, old: Status) -> RealtimeView:
        """Return the facts, digested."""
        return cls(deployment, facts, old)

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
        """Where KServe says that it answers."""
        return address_of(self.service) if self.service else None

    @property
    def replicas(self) -> int:
        """How many model servers there should be at least."""
        realtime = self.deployment.spec.realtime
        return replicas(realtime)[0] if realtime else 1

    def of_service(self, condition: str) -> Json:
        """Return a condition of the InferenceService; empty when it has none of the name."""
        status = (self.service or {}).get("status") or {}
        found = (c for c in status.get("conditions") or [] if c["type"] == condition)
        return next(found, {})


def _kserve_silent(view: RealtimeView) -> ConditionResult | None:
    if view.service is None:
        return ConditionResult("False", "WaitingForKServe", "waits for its InferenceService")
    if (view.service.get("status") or {}).get("conditions"):
        return None
    name, waited = view.service["metadata"]["name"], age(view.service, view.facts.now)
    if waited is None or waited < KSERVE_SECONDS:
        return ConditionResult("False", "WaitingForKServe", f"waits for KServe to take up {name}")
    message = (
        f"no KServe controller answers: nobody took up InferenceService {name} within "
        f"{KSERVE_SECONDS:g} s; is KServe's controller running? (docs/modes/realtime.md)"
    )
    return ConditionResult("False", "KServeSilent", message)


def _kserve_objects(view: RealtimeView) -> ConditionResult | None:
    """KServe does not see what we see: a pod that answers, at an address it gives out."""
    condition = view.of_service("PredictorReady")
    # Past its deadline a new version that does not come up is said to be none of it ready.
    late = condition.get("reason") == "ProgressDeadlineExceeded"
    ready = view.of_service("Ready").get("status") == "True" or condition.get("status") == "True"
    if (ready or late) and view.url:
        return None
    said = str(condition.get("message") or view.of_service("Ready").get("message") or "")
    return ConditionResult(
        "False", "WaitingForKServe", f"waits for KServe: {said or 'no address yet'}"
    )


def _failed_in_kserve(view: RealtimeView) -> ConditionResult | None:
    condition = view.of_service("PredictorReady")
    if view.pods or condition.get("status") != "False" or not condition.get("message"):
        return None
    reason = str(condition.get("reason") or "KServeFailed")
    return ConditionResult("False", reason, f"KServe: {condition['message']}")


def _answers(view: RealtimeView) -> ConditionResult | None:
    result = answers(view)
    realtime = view.deployment.spec.realtime
    if result is None or realtime is None or realtime.min_replicas > 0:
        return result
    note = "; one replica is kept, as scaling to zero is not available yet"
    return ConditionResult(result.status, result.reason, result.message + note)


def _silent_degrades(view: RealtimeView) -> ConditionResult | None:
    result = _kserve_silent(view) or _failed_in_kserve(view)
    if result is None or result.reason == "WaitingForKServe":
        return None
    return ConditionResult("True", result.reason, result.message)


RealtimeView.conditions = {
    "Ready": (
        name_taken,
        kind_missing,
        nothing_serves_and_refused,
        _kserve_silent,
        _failed_in_kserve,
        no_pod_ready,
        _kserve_objects,
        gateway_missing,
        gateway_unaware,
        _answers,
    ),
    "Progressing": PROGRESSING,
    "Degraded": (refused, _silent_degrades, does_not_come_up, gateway_degraded, nothing_wrong),
    "ModelResolved": MODEL_RESOLVED,
}
