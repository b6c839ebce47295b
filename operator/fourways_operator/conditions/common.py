"""The view that checks read, their results, and the checks that several modes share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from fourways_api import DriftStatus, GatewayConfig, ModelDeployment, Route, RunReport, Status
from fourways_api.reasons import Reason

from ..facts import Facts, Json
from ..plan.parts import COMPONENT_LABEL, MODE_LABEL
from ..plan.routes import config_of, has_room
from ..pods import (
    PodFailure,
    config_text,
    container_of,
    has_ended,
    is_going,
    is_ready,
    refused_pods_of,
    server_failure_of,
)

ConditionStatus = Literal["True", "False", "Unknown"]


@dataclass(frozen=True, slots=True)
class ConditionResult:
    """A condition without its times."""

    status: ConditionStatus
    reason: str
    """A ``Reason``, or a reason from KServe, KubeRay or an image of another version."""

    message: str


@dataclass(frozen=True)
class ModeView:
    """The facts in the form that the checks of a mode read. Each mode has its own view."""

    deployment: ModelDeployment
    facts: Facts
    old: Status
    """The last status; empty if it was of another mode."""

    def conditions(self) -> Mapping[str, ConditionChain[Any]]:
        """Return the chain of checks that decides each condition."""
        raise NotImplementedError

    @property
    def version(self) -> str | None:
        """Version of the model that serves."""
        raise NotImplementedError

    @property
    def serves_spec(self) -> bool:
        """Whether the version that serves is that of the current spec, not of an earlier one."""
        return True

    @property
    def reports(self) -> Iterator[RunReport]:
        """The reports of its workers, latest first."""
        return iter(())

    @property
    def digest(self) -> str | None:
        """Digest of the model that the spec names: from the spec, pinned, or reported."""
        model = self.deployment.spec.model
        if model.digest:
            return model.digest
        if pinned := pinned_digest(self.facts.deployment):
            return pinned
        seen = (r.digest for r in self.reports if r.version == model.version)
        return next((d for d in seen if d), None)

    @property
    def drift(self) -> DriftStatus | None:
        """How the scored records differ from those of the training; None if that is not known."""
        return None

    def status_fields(self) -> dict[str, Any]:
        """Return the fields of status that only this mode has."""
        return {}

    @property
    def route(self) -> Route | None:
        """The route that the gateway should have for it; None if the mode needs none."""
        return None

    @property
    def gateway_pods(self) -> list[Json]:
        """The gateway's pods that run, or are to run."""
        pods = (pod for pod in self.facts.pods if COMPONENT_LABEL in _labels(pod))
        return [pod for pod in pods if not (is_going(pod) or has_ended(pod))]

    @property
    def known_routes(self) -> list[Route | None]:
        """The deployment's route in each ready pod of the gateway."""
        name = self.deployment.metadata.name
        return [_route_in(config, name) for config in self._gateway_configs]

    @property
    def is_known_to_gateway(self) -> bool:
        """Whether every ready pod of the gateway answers for this deployment, not a former one.

        A pod of a version that knew no uids answers for any deployment of the name.
        """
        meta = self.deployment.metadata
        owners = [c.owners for c in self._gateway_configs if c and c.owners is not None]
        return all(known.get(meta.name) == meta.data_uid for known in owners)

    @property
    def _gateway_configs(self) -> list[GatewayConfig | None]:
        ready = [pod for pod in self.gateway_pods if is_ready(pod) and container_of(pod)]
        return [config_of(pod) for pod in ready]

    @property
    def gateway_failure(self) -> PodFailure | None:
        """Why a pod of the gateway has failed, or is not created."""
        failing = next((t for t in map(server_failure_of, self.gateway_pods) if t), None)
        gateway = self.facts.gateway
        return failing or (refused_pods_of(gateway) if gateway else None)

    def own_pods(self, mode: str) -> list[Json]:
        """Return its workers' pods, youngest first."""
        pods = [pod for pod in self.facts.pods if _labels(pod).get(MODE_LABEL) == mode]
        return sorted(pods, key=lambda p: str(p["metadata"].get("creationTimestamp")), reverse=True)

    def is_current(self, pod: Json) -> bool:
        """Tell whether a pod runs the current spec, not an earlier one."""
        wanted = next((o for o in self.facts.wanted if config_text(o)), None)
        if wanted is None:
            return True
        same_image = container_of(pod).get("image") == container_of(wanted).get("image")
        return same_image and config_text(pod) == config_text(wanted)


V = TypeVar("V", bound=ModeView, contravariant=True)
Check = Callable[[V], ConditionResult | None]
"""Returns a result if the check applies to the view, else None."""

ConditionChain = tuple[Check[V], ...]
"""The checks of one condition: the first that returns a result decides."""


def evaluate(view: ModeView) -> dict[str, ConditionResult]:
    """Return the result of each condition's chain.

    Raises:
        StopIteration: all checks of a chain returned None; the last one must never do so.

    """
    return {
        kind: next(result for check in chain if (result := check(view)) is not None)
        for kind, chain in view.conditions().items()
    }


def constant(status: ConditionStatus, reason: Reason, message: str) -> Check[ModeView]:
    """Return a check that always gives the same result: the end of a chain."""
    return lambda _: ConditionResult(status, reason, message)


# ---------------------------------------------------------------- what prevents Ready


def name_taken(view: ModeView) -> ConditionResult | None:
    """An object with a different owner has a name that the deployment needs."""
    if not view.facts.conflicts:
        return None
    names = ", ".join(view.facts.conflicts)
    message = (
        f"{names} already exists and is not managed by this deployment: rename or delete it, or "
        "rename this deployment"
    )
    return ConditionResult("False", Reason.NameTaken, message)


def kind_missing(view: ModeView) -> ConditionResult | None:
    """The cluster lacks a kind of object that the plan needs."""
    if not view.facts.missing:
        return None
    if "InferenceService" in view.facts.missing:
        message = (
            "the cluster has no InferenceServices: install KServe 0.20 or later in Standard mode "
            "(see docs/modes/realtime.md); this deployment then continues automatically"
        )
        return ConditionResult("False", Reason.KServeMissing, message)
    if "RayJob" in view.facts.missing:
        message = (
            "the cluster has no RayJobs: install KubeRay 1.6 or later (see docs/modes/batch.md), "
            "or set batch.engine to Jobs; this deployment then continues automatically"
        )
        return ConditionResult("False", Reason.KubeRayMissing, message)
    if "ScaledObject" in view.facts.missing:
        message = (
            "the cluster has no ScaledObjects: install KEDA, or remove realtime.targetConcurrency "
            "(targetCpuPercent decides then); this deployment then continues automatically"
        )
        return ConditionResult("False", Reason.KedaMissing, message)
    kinds = ", ".join(view.facts.missing)
    return ConditionResult("False", Reason.KindMissing, f"the cluster has no {kinds}")


def apply_failed(view: ModeView) -> ConditionResult | None:
    """The API server refuses an object."""
    if not view.facts.faults:
        return None
    return ConditionResult("False", Reason.ApplyFailed, "; ".join(view.facts.faults))


def gateway_missing(view: ModeView) -> ConditionResult | None:
    """The namespace's gateway does not answer."""
    if gateway_answers(view.facts):
        return None
    return _waits_for_gateway(view, "waiting for the gateway")


def gateway_answers(facts: Facts) -> bool:
    """Tell whether a pod of the namespace's gateway is available."""
    status = (facts.gateway or {}).get("status") or {}
    return bool(status.get("availableReplicas", 0) > 0)


def gateway_unaware(view: ModeView) -> ConditionResult | None:
    """A pod of the gateway does not have the route, or has one that leads elsewhere.

    A route that differs only in its version or a time limit leads to the same place.
    """
    wanted = view.route
    if view.is_known_to_gateway and all(_leads_alike(r, wanted) for r in view.known_routes):
        return None
    return _gateway_full(view) or _waits_for_gateway(
        view, "waiting for the gateway to load the route"
    )


def gateway_refuses(view: ModeView) -> ConditionResult | None:
    """The gateway says that it cannot answer for the deployment, whose pods are ready."""
    return gateway_refusal(view.facts, view.old)


def gateway_refusal(facts: Facts, old: Status) -> ConditionResult | None:
    """Return Ready if the gateway says that it cannot answer for the deployment, else None.

    Until a restarted operator has asked, what the status said is kept.
    """
    code = facts.gateway_answer
    if code is None:
        last = (c for c in old.conditions if (c.type, c.status) == ("Ready", "False"))
        kept = (c.message for c in last if c.reason == Reason.GatewayNotAnswering)
        message = next(kept, None)
    else:
        cause = GATEWAY_REFUSALS.get(code)
        message = f"the gateway answers HTTP {code}: {cause}" if cause else None
    if message is None:
        return None
    return ConditionResult("False", Reason.GatewayNotAnswering, message)


def gateway_unheard(view: ModeView) -> ConditionResult | None:
    """The gateway has not said yet that it reaches the deployment, which was not Ready before."""
    return gateway_silence(view.facts, view.old)


def gateway_silence(facts: Facts, old: Status) -> ConditionResult | None:
    """Return Ready if it waits for the gateway's first answer about the deployment, else None.

    Nodes learn of a new Service a moment after its pods are ready. What was Ready stays so: after a
    restart of the operator there is no answer either.
    """
    if not facts.asks_gateway or facts.gateway_answer is not None:
        return None
    if any((c.type, c.status) == ("Ready", "True") for c in old.conditions):
        return None
    message = "waiting for the gateway to reach the deployment"
    return ConditionResult("False", Reason.WaitingForGateway, message)


GATEWAY_REFUSALS = {
    404: "it does not know the deployment",
    500: "an error in it, see the log of deployment fourways-gateway",
    502: "the answer it gets is invalid",
    503: "it does not reach what serves the predictions (model server or store)",
    504: "what serves the predictions does not answer it in time",
}
"""The status codes by which a gateway speaks of a deployment, with their meaning. Any other, such
as 401, is no answer."""


def _gateway_full(view: ModeView) -> ConditionResult | None:
    gateway, meta = view.facts.gateway, view.deployment.metadata
    config = config_of(gateway) if gateway else None
    if config is None or has_room(config, meta.name, meta.data_uid, view.route):
        return None
    message = (
        f"the gateway of namespace {config.namespace} has no room for more than its "
        f"{len(config.owners or config.routes)} deployments: put this one into another namespace"
    )
    return ConditionResult("False", Reason.GatewayFull, message)


def _waits_for_gateway(view: ModeView, what: str) -> ConditionResult:
    if view.facts.gateway_fault:
        message = f"{what}: {view.facts.gateway_fault}"
        return ConditionResult("False", Reason.ApplyFailed, message)
    failure = view.gateway_failure
    if failure is None:
        return ConditionResult("False", Reason.WaitingForGateway, what)
    return ConditionResult("False", failure.reason, f"{what}: {failure.message}")


def _leads_alike(known: Route | None, wanted: Route | None) -> bool:
    if known is None or wanted is None:
        return known is wanted
    return (known.mode, known.url, known.publish) == (wanted.mode, wanted.url, wanted.publish)


# ---------------------------------------------------------------- Progressing, Degraded


def gateway_rolling(view: ModeView) -> ConditionResult | None:
    """A pod of the gateway does not have the route that the spec asks for yet."""
    if all(known == view.route for known in view.known_routes):
        return None
    return ConditionResult("True", Reason.GatewayRolling, "the gateway is loading the new route")


def refused(view: ModeView) -> ConditionResult | None:
    """The API server refuses an object or lacks its kind, or a name is taken."""
    result = name_taken(view) or kind_missing(view) or apply_failed(view)
    return degraded(result)


def gateway_degraded(view: ModeView) -> ConditionResult | None:
    """A pod of the gateway has failed, or the API server refuses an object of it."""
    if view.facts.gateway_fault:
        message = f"gateway: {view.facts.gateway_fault}"
        return ConditionResult("True", Reason.ApplyFailed, message)
    failure = view.gateway_failure
    if failure is None:
        return None
    return ConditionResult("True", failure.reason, f"gateway: {failure.message}")


def degraded(result: ConditionResult | None) -> ConditionResult | None:
    """Convert a result that explains why Ready is not True to one of Degraded."""
    return replace(result, status="True") if result else None


def gateway_refuses_degrades(view: ModeView) -> ConditionResult | None:
    """The gateway says that it cannot answer for the deployment."""
    return degraded(gateway_refuses(view))


nothing_wrong = constant("False", Reason.AsExpected, "no problem is known")
idle = constant("False", Reason.Idle, "nothing is in progress")


# ---------------------------------------------------------------- ModelResolved


def model_resolved(view: ModeView) -> ConditionResult | None:
    """The model's digest is known."""
    if view.digest is None:
        return None
    source = "the spec" if view.deployment.spec.model.digest else "the first download"
    return ConditionResult("True", Reason.Resolved, f"{view.digest}, from {source}")


def model_unusable(failure: PodFailure | None) -> ConditionResult | None:
    """Return why the model cannot be used, if that is why a worker failed."""
    reason = Reason.known(failure.reason) if failure else None
    if failure is None or reason is None or not reason.of_model:
        return None
    return ConditionResult("False", reason, failure.message)


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
