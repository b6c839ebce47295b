"""What checks look at and what they say, and the checks that more than one mode makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

from fourways_api import GatewayConfig, ModelDeployment, Route, RunReport, Status

from ..facts import Facts, Json
from ..plan import COMPONENT_LABEL, MODE_LABEL
from ..plan.routes import config_of, has_room, route_of
from ..pods import Trouble, config_text, container_of, is_going, is_ready, trouble_of_server

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
class Verdict:
    """A condition before it has a time."""

    status: str
    reason: str
    message: str


@dataclass(frozen=True)
class View:
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

    def told(self) -> dict[str, Any]:
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
    def gateway_trouble(self) -> Trouble | None:
        """What ails the gateway."""
        return next((t for t in map(trouble_of_server, self.gateway_pods) if t), None)

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


V = TypeVar("V", bound=View, contravariant=True)
Check = Callable[[V], Verdict | None]


def constant(status: str, reason: str, message: str) -> Check[View]:
    """Return a check that always says the same: the end of a list."""
    return lambda _: Verdict(status, reason, message)


# ---------------------------------------------------------------- in the way of Ready


def name_taken(view: View) -> Verdict | None:
    """Somebody else's object has a name we need."""
    if not view.facts.conflicts:
        return None
    names = ", ".join(view.facts.conflicts)
    message = (
        f"{names} exists and is somebody else's: rename or delete it, or rename this deployment"
    )
    return Verdict("False", "NameTaken", message)


def kind_missing(view: View) -> Verdict | None:
    """The cluster lacks a kind of object the plan needs."""
    if not view.facts.missing:
        return None
    if "InferenceService" in view.facts.missing:
        message = (
            "the cluster has no InferenceServices: install KServe 0.20 or later in Standard mode "
            "(docs/modes/realtime.md says how); this deployment goes on by itself then"
        )
        return Verdict("False", KSERVE_MISSING, message)
    if "RayJob" in view.facts.missing:
        message = (
            "the cluster has no RayJobs: install KubeRay 1.6 or later (docs/modes/batch.md says "
            "how), or set batch.engine to Jobs; this deployment goes on by itself then"
        )
        return Verdict("False", KUBERAY_MISSING, message)
    return Verdict("False", "KindMissing", f"the cluster has no {', '.join(view.facts.missing)}")


def apply_failed(view: View) -> Verdict | None:
    """The API server refuses an object."""
    if not view.facts.faults:
        return None
    return Verdict("False", "ApplyFailed", "; ".join(view.facts.faults))


def gateway_missing(view: View) -> Verdict | None:
    """Nobody answers in the namespace."""
    gateway = view.facts.gateway
    if gateway and gateway.get("status", {}).get("availableReplicas", 0) > 0:
        return None
    return _waits_for_gateway(view, "waits for the gateway")


def gateway_unaware(view: View) -> Verdict | None:
    """A pod of the gateway would answer that there is no such deployment, or ask elsewhere.

    A route that differs only in what it tells (its version, a time limit) leads there all the same.
    """
    wanted = view.route
    if all(_leads_alike(known, wanted) for known in view.known_routes):
        return None
    return _gateway_full(view) or _waits_for_gateway(
        view, "waits for the gateway to take up its route"
    )


def _gateway_full(view: View) -> Verdict | None:
    gateway, route = view.facts.gateway, view.route
    config = config_of(gateway) if gateway else None
    if config is None or route is None or has_room(config, route):
        return None
    message = (
        f"the gateway of namespace {config.namespace} can be told of no more than its "
        f"{len(config.routes)} deployments: put this one into another namespace"
    )
    return Verdict("False", "GatewayFull", message)


def _waits_for_gateway(view: View, what: str) -> Verdict:
    trouble = view.gateway_trouble
    message = what + (f": {trouble.message}" if trouble else "")
    return Verdict("False", trouble.reason if trouble else "WaitingForGateway", message)


def _leads_alike(known: Route | None, wanted: Route | None) -> bool:
    if known is None or wanted is None:
        return known is wanted
    return (known.mode, known.url, known.publish) == (wanted.mode, wanted.url, wanted.publish)


# ---------------------------------------------------------------- Progressing, Degraded


def gateway_rolling(view: View) -> Verdict | None:
    """A pod of the gateway does not know yet what the spec says now."""
    if all(known == view.route for known in view.known_routes):
        return None
    return Verdict("True", "GatewayRolling", "the gateway takes up the new route")


def refused(view: View) -> Verdict | None:
    """The API server refuses an object, or lacks its kind."""
    verdict = kind_missing(view) or apply_failed(view)
    return replace(verdict, status="True") if verdict else None


def gateway_degraded(view: View) -> Verdict | None:
    """A pod of the gateway does not work."""
    trouble = view.gateway_trouble
    return Verdict("True", trouble.reason, f"gateway: {trouble.message}") if trouble else None


nothing_wrong = constant("False", "AsExpected", "nothing is wrong")


# ---------------------------------------------------------------- ModelResolved


def model_resolved(view: View) -> Verdict | None:
    """The model's digest is known."""
    if view.digest is None:
        return None
    source = "spec" if view.deployment.spec.model.digest else "first download"
    return Verdict("True", "Resolved", f"{view.digest} by {source}")


def model_refused(trouble: Trouble | None) -> Verdict | None:
    """Return what is wrong with the model, if that is what ails a worker."""
    if trouble is None or trouble.reason not in MODEL_REASONS:
        return None
    return Verdict("False", trouble.reason, trouble.message)


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
