"""What a namespace's gateway is told of each deployment. Pure.

A deployment has a route when its answers are not, or not only, a batch run in the store. Routes
are part of the gateway's pod template, so they are as old as the pod that reads them, and
``GatewayConfig`` in a pod tells what that pod does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from fourways_api import FeatureLookup, GatewayConfig, ModelDeployment, Route
from fourways_api.runtime_config import MAX_CONFIG_BYTES
from fourways_api.values import seconds

from ..facts import Json, OperatorSettings
from ..pods import config_text
from ..specs import parsed_spec
from . import edge, realtime, worker
from .parts import DEPLOYMENT_LABEL


@dataclass(frozen=True, slots=True)
class Observed:
    """What the cluster says that routes depend on.

    ``addresses`` is where each real-time deployment's model server answers, as far as KServe has
    said it; ``built`` names the Jobs that succeeded, None when nobody looked; ``before`` is what
    the gateway was told last.
    """

    addresses: Mapping[str, str] = field(default_factory=dict)
    built: frozenset[str] | None = None
    before: tuple[Route, ...] = ()


NOTHING_YET = Observed()


def route_of(deployment: ModelDeployment, url: str | None = None) -> Route | None:
    """Return a deployment's route; None for batch. ``url`` is what KServe says, once it does."""
    spec = deployment.spec
    namespace, name = deployment.key
    version = spec.model.version
    match spec.choice().mode:
        case "realtime" if spec.realtime:
            return Route(
                deployment=name,
                mode="realtime",
                version=version,
                url=url or realtime.conventional_url(namespace, name),
                timeout_seconds=seconds(spec.realtime.timeout),
                entity_key=spec.contract.entity_key,
            )
        case "streaming" if spec.streaming:
            return Route(
                deployment=name,
                mode="streaming",
                version=version,
                source=spec.streaming.source,
                freshness_seconds=seconds(spec.streaming.freshness),
            )
        case "edge" if spec.edge:
            return Route(
                deployment=name,
                mode="edge",
                version=version,
                publish=spec.edge.publish,
                publish_credentials=spec.edge.credentials,
                entity_key=spec.contract.entity_key if spec.edge.features else None,
                features=_named(spec.edge.features, deployment),
            )
        case _:
            return None


def _named(features: FeatureLookup | None, deployment: ModelDeployment) -> FeatureLookup | None:
    """Return the lookup with the inputs it is of: the gateway does not know the contract."""
    if features is None or features.inputs:
        return features
    names = tuple(field.name for field in deployment.spec.contract.inputs)
    return features.model_copy(update={"inputs": names})


def routes_of(
    deployments: Iterable[Json], settings: OperatorSettings, observed: Observed
) -> tuple[Route, ...]:
    """Return the routes of live deployments, by name.

    One keeps the route it had while its spec is not valid, and while bundles are being built for
    devices: what serves it is still there. So a claim nobody made holds up its own deployment's
    build, and never the gateway that everybody shares.
    """
    before = {route.deployment: route for route in observed.before}
    routes = {}
    for document in deployments:
        name = document["metadata"]["name"]
        spec = parsed_spec(document).spec
        route = before.get(name)
        if spec and _is_built(spec, settings, observed):
            route = route_of(spec, observed.addresses.get(name))
        elif spec and route and route.mode != "edge":
            route = None
        if route is not None:
            routes[name] = route
    return tuple(routes[name] for name in sorted(routes))


def _is_built(spec: ModelDeployment, settings: OperatorSettings, observed: Observed) -> bool:
    if observed.built is None or spec.spec.choice().mode != "edge":
        return True
    return edge.job_name(spec, settings) in observed.built


def fitting(config: GatewayConfig, before: Sequence[Route]) -> GatewayConfig:
    """Return the configuration with as many of its routes as a pod's environment can hold.

    Those that were there before come first, so that a newcomer never takes an old one's place.
    """
    if _size(config) <= MAX_CONFIG_BYTES:
        return config
    known = {route.deployment for route in before}
    size = _size(config.model_copy(update={"routes": ()}))
    kept = []
    for route in sorted(config.routes, key=lambda r: (r.deployment not in known, r.deployment)):
        size += _size(route) + len(",")
        if size > MAX_CONFIG_BYTES:
            break
        kept.append(route)
    return config.model_copy(update={"routes": tuple(sorted(kept, key=lambda r: r.deployment))})


def has_room(config: GatewayConfig, route: Route) -> bool:
    """Tell whether a gateway with this configuration could take up another route."""
    others = tuple(r for r in config.routes if r.deployment != route.deployment)
    return _size(config.model_copy(update={"routes": (*others, route)})) <= MAX_CONFIG_BYTES


def _size(document: GatewayConfig | Route) -> int:
    return len(worker.variable(document)["value"])


def config_of(pod: Json) -> GatewayConfig | None:
    """Return what a gateway's pod, or the template of one, is told."""
    text = config_text(pod)
    try:
        return GatewayConfig.model_validate_json(text) if text else None
    except ValidationError:
        # Another version's, or somebody's hand: it says nothing we could build on.
        return None


def observed_of(services: Iterable[Json], jobs: Iterable[Json], gateway: Json | None) -> Observed:
    """Return what live InferenceServices, Jobs and the live gateway say."""
    addresses = {}
    for service in services:
        name = service["metadata"]["labels"].get(DEPLOYMENT_LABEL, "")
        url = address_of(service)
        if url and service["metadata"]["name"] == realtime.name_of(name):
            addresses[name] = url
    built = frozenset(job["metadata"]["name"] for job in jobs if has_succeeded(job))
    config = config_of(gateway) if gateway else None
    return Observed(addresses, built, config.routes if config else ())


def has_succeeded(job: Json) -> bool:
    """Tell whether a Job has done what it was to do."""
    conditions = (job.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Complete" and c["status"] == "True" for c in conditions)


def address_of(service: Json) -> str | None:
    """Return where an InferenceService answers inside the cluster, once KServe says it."""
    address = (service.get("status") or {}).get("address") or {}
    url: str | None = address.get("url")
    return url
