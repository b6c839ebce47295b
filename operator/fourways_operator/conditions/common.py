"""What checks look at and what they say, and the checks that more than one mode makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

from fourways_api import GatewayConfig, ModelDeployment, Route, RunReport, Status

from ..facts import Facts, Json
from ..plan import COMPONENT_LABEL, MODE_LABEL
from ..plan.routes import config_of, has_room, route_of
from ..pods import PodFailure, config_text, container_of, is_going, is_ready, server_failure_of

KSERVE_MISSING = "KServeMissing"
KUBERAY_MISSING = "KubeRayMissing"

MODEL_REASONS = frozenset(
    {
        "DigestMismatch",
        "ModelNotLoadable",
        "ContractMismatch",
        "GoldenMismatch",
        "FetchRefused",
        "FetchFailed",
    }
)
"""Reasons of a failed worker that speak of the model."""


@dataclass(frozen=True, slots=True)
class ConditionResult:
    """A condition before it has a time."""

    status: str
    reason: str
    message: str


@dataclass(frozen=True)
class ModeView:
    """The facts, digested: what the checks look at. Each mode has its own."""

    conditions: ClassVar[Mapping[str, tuple[Check[Any], ...]]]
    """A condition is what its first check with something to say says of it."""

    deployment: ModelDeployment
    facts: Facts
    old: Status

    @property
    def version(self) -> str | None:
        """Version of the model that answers."""
        raise NotImplementedError

    @property
    def reports(self) -> Iterator[RunReport]:
        """What workers have said, latest first."""
        return iter(())

    @property
    def digest(self) -> str | None:
        """Digest of the model the spec names: by the spec, pinned, or seen."""
        model = self.deployment.spec.model
        if model.digest:
            return model.digest
        if pinned := pinned_digest(self.facts.deployment):
            return pinned
        seen = (r.digest for r in self.reports if r.version == model.version)
        return next((d for d in seen if d), None)

    def status_fields(self) -> dict[str, Any]:
        """Return the fields of status that only this mode has."""
        return {}

    @property
    def url(self) -> str | None:
        """Where the model server is said to answer (realtime)."""
        return None

    @property
    def route(self) -> Route | None:
        """What the gateway should know of it."""
        return route_of(self.deployment, self.url)

    @property
    def gateway_pods(self) -> list[Json]:
        """The gateway's pods that were not told to stop."""
        return [
            pod for pod in self.facts.pods if COMPONENT_LABEL in _labels(pod) and not is_going(pod)
        ]

    @property
    def known_routes(self) -> list[Route | None]:
        """What each of the gateway's pods that answer knows of it."""
        return [
            _route_in(config_of(pod), self.deployment.metadata.name)
            for pod in self.gateway_pods
            if is_ready(pod) and container_of(pod)
        ]

    @property
    def gateway_failure(self) -> PodFailure | None:
        """What ails the gateway."""
        return next((t for t in map(server_failure_of, self.gateway_pods) if t), None)

    def own_pods(self, mode: str) -> list[Json]:
        """Return its workers' pods, youngest first."""
        pods = [pod for pod in self.facts.pods if _labels(pod).get(MODE_LABEL) == mode]
        return sorted(pods, key=lambda p: str(p["metadata"].get("creationTimestamp")), reverse=True)

    def is_current(self, pod: Json) -> bool:
        """Tell whether a pod does what the spec says now, and not what it said before."""
        wanted = next((o for o in self.facts.wanted if config_text(o)), None)
        if wanted is None:
            return True
        same_image = container_of(pod).get("image") == container_of(wanted).get("image")
        return same_image and config_text(pod) == config_text(wanted)


V = TypeVar("V", bound=ModeView, contravariant=True)
Check = Callable[[V], ConditionResult | None]


def constant(status: str, reason: str, message: str) -> Check[ModeView]:
    """Return a check that always says the same: the end of a list."""
    return lambda _: ConditionResult(status, reason, message)


# ---------------------------------------------------------------- in the way of Ready


def name_taken(view: ModeView) -> ConditionResult | None:
    """Somebody else's object has a name we need."""
    if not view.facts.conflicts:
        return None
    names = ", ".join(view.facts.conflicts)
    message = (
        f"{names} exists and is somebody else's: rename or delete it, or rename this deployment"
    )
    return ConditionResult("False", "NameTaken", message)


def kind_missing(view: ModeView) -> ConditionResult | None:
    """The cluster lacks a kind of object the plan needs."""
    if not view.facts.missing:
        return None
    if "InferenceService" in view.facts.missing:
        message = (
            "the cluster has no InferenceServices: install KServe 0.20 or later in Standard mode "
            "(docs/modes/realtime.md says how); this deployment goes on by itself then"
        )
        return ConditionResult("False", KSERVE_MISSING, message)
    if "RayJob" in view.facts.missing:
        message = (
            "the cluster has no RayJobs: install KubeRay 1.6 or later (docs/modes/batch.md says "
            "how), or set batch.engine to Jobs; this deployment goes on by itself then"
        )
        return ConditionResult("False", KUBERAY_MISSING, message)
    return ConditionResult(
        "False", "KindMissing", f"the cluster has no {', '.join(view.facts.missing)}"
    )


def apply_failed(view: ModeView) -> ConditionResult | None:
    """The API server refuses an object."""
    if not view.facts.faults:
        return None
    return ConditionResult("False", "ApplyFailed", "; ".join(view.facts.faults))


def gateway_missing(view: ModeView) -> ConditionResult | None:
    """Nobody answers in the namespace."""
    gateway = view.facts.gateway
    if gateway and gateway.get("status", {}).get("availableReplicas", 0) > 0:
        return None
    return _waits_for_gateway(view, "waits for the gateway")


def gateway_unaware(view: ModeView) -> ConditionResult | None:
    """A pod of the gateway would answer that there is no such deployment, or ask elsewhere.

    A route that differs only in what it tells (its version, a time limit) leads there all the same.
    """
    wanted = view.route
    if all(_leads_alike(known, wanted) for known in view.known_routes):
        return None
    return _gateway_full(view) or _waits_for_gateway(
        view, "waits for the gateway to take up its route"
    )


def _gateway_full(view: ModeView) -> ConditionResult | None:
    gateway, route = view.facts.gateway, view.route
    config = config_of(gateway) if gateway else None
    if config is None or route is None or has_room(config, route):
        return None
    message = (
        f"the gateway of namespace {config.namespace} can be told of no more than its "
        f"{len(config.routes)} deployments: put this one into another namespace"
    )
    return ConditionResult("False", "GatewayFull", message)


def _waits_for_gateway(view: ModeView, what: str) -> ConditionResult:
    failure = view.gateway_failure
    message = what + (f": {failure.message}" if failure else "")
    return ConditionResult("False", failure.reason if failure else "WaitingForGateway", message)


def _leads_alike(known: Route | None, wanted: Route | None) -> bool:
    if known is None or wanted is None:
        return known is wanted
    return (known.mode, known.url, known.publish) == (wanted.mode, wanted.url, wanted.publish)


# ---------------------------------------------------------------- Progressing, Degraded


def gateway_rolling(view: ModeView) -> ConditionResult | None:
    """A pod of the gateway does not know yet what the spec says now."""
    if all(known == view.route for known in view.known_routes):
        return None
    return ConditionResult("True", "GatewayRolling", "the gateway takes up the new route")


def refused(view: ModeView) -> ConditionResult | None:
    """The API server refuses an object, or lacks its kind."""
    result = kind_missing(view) or apply_failed(view)
    return replace(result, status="True") if result else None


def gateway_degraded(view: ModeView) -> ConditionResult | None:
    """A pod of the gateway does not work."""
    failure = view.gateway_failure
    return (
        ConditionResult("True", failure.reason, f"gateway: {failure.message}") if failure else None
    )


nothing_wrong = constant("False", "AsExpected", "nothing is wrong")


# ---------------------------------------------------------------- ModelResolved


def model_resolved(view: ModeView) -> ConditionResult | None:
    """The model's digest is known."""
    if view.digest is None:
        return None
    source = "spec" if view.deployment.spec.model.digest else "first download"
    return ConditionResult("True", "Resolved", f"{view.digest} by {source}")


def model_refused(failure: PodFailure | None) -> ConditionResult | None:
    """Return what is wrong with the model, if that is what ails a worker."""
    if failure is None or failure.reason not in MODEL_REASONS:
        return None
    return ConditionResult("False", failure.reason, failure.message)


# ---------------------------------------------------------------- reading objects


def pinned_digest(deployment: Json) -> str | None:
    """Return the digest pinned at a model's first download, if its URI is still the same."""
    model = (deployment.get("status") or {}).get("model") or {}
    spec = deployment["spec"]["model"]
    if spec.get("digestPolicy") == "TrustOnFirstUse" and model.get("uri") == spec["uri"]:
        digest: str | None = model.get("digest")
        return digest
    return None


def _labels(obj: Json) -> Json:
    labels: Json = obj["metadata"].get("labels") or {}
    return labels


def _route_in(config: GatewayConfig | None, name: str) -> Route | None:
    routes = config.routes if config else ()
    return next((r for r in routes if r.deployment == name), None)
