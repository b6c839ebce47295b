"""The routes in a namespace's gateway: what they depend on, and how to read them back. Pure.

A deployment has a route when its predictions do not come only from a batch run in the store. Routes
are part of the gateway's pod template, so they never change during a pod's life, and the
``GatewayConfig`` in a pod is what that pod uses. Each mode makes its own routes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from pydantic import ValidationError

from fourways_api import GatewayConfig, Route
from fourways_api.runtime_config import MAX_CONFIG_BYTES

from ..facts import Json
from ..pods import config_text
from . import realtime, worker
from .parts import DEPLOYMENT_LABEL


@dataclass(frozen=True, slots=True)
class Observed:
    """The part of the cluster's state that routes depend on.

    ``addresses``: the address of each real-time deployment's model server, once KServe has
    published it. ``built``: names of the Jobs that succeeded; None if they were not observed.
    ``before``: the routes in the live gateway's configuration; ``before_owners``: the names of the
    deployments that it answers for.
    """

    addresses: Mapping[str, str] = field(default_factory=dict)
    built: frozenset[str] | None = None
    before: tuple[Route, ...] = ()
    before_owners: frozenset[str] = frozenset()


NOTHING_YET = Observed()


def fitting(config: GatewayConfig, known: Collection[str]) -> GatewayConfig:
    """Return the configuration for as many deployments as a pod's environment can hold.

    ``known`` are the names in the present one. They come first, so that a new deployment never
    displaces an old one.
    """
    if _size(config) <= MAX_CONFIG_BYTES:
        return config
    routes = {route.deployment: route for route in config.routes}
    owners = config.owners or {}
    size = _size(config.model_copy(update={"routes": (), "owners": {}}))
    kept = set()
    for name in sorted(routes.keys() | owners, key=lambda n: (n not in known, n)):
        route = routes.get(name)
        size += _entry_size(name, owners.get(name), route)
        if size > MAX_CONFIG_BYTES:
            break
        kept.add(name)
    fit = {
        "routes": tuple(route for name, route in sorted(routes.items()) if name in kept),
        "owners": {name: uid for name, uid in owners.items() if name in kept},
    }
    return config.model_copy(update=fit)


def has_room(config: GatewayConfig, name: str, uid: str, route: Route | None) -> bool:
    """Tell whether a gateway with this configuration has room for another deployment."""
    others = tuple(r for r in config.routes if r.deployment != name)
    owners = {n: u for n, u in (config.owners or {}).items() if n != name}
    alone = config.model_copy(update={"routes": others, "owners": owners})
    return _size(alone) + _entry_size(name, uid, route) <= MAX_CONFIG_BYTES


def _entry_size(name: str, uid: str | None, route: Route | None) -> int:
    size = _size(route) + len(",") if route else 0
    return size + (len(f'"{name}":"{uid}",') if uid is not None else 0)


def _size(document: GatewayConfig | Route) -> int:
    return len(worker.variable(document)["value"])


def config_of(pod: Json) -> GatewayConfig | None:
    """Return the configuration of a gateway's pod or pod template."""
    text = config_text(pod)
    return _parsed(text) if text else None


@lru_cache(maxsize=64)
def _parsed(text: str) -> GatewayConfig | None:
    """Parse a text once: every reconcile reads the live gateway's, which rarely changes."""
    try:
        return GatewayConfig.model_validate_json(text)
    except ValidationError:
        # Another version or a person wrote it: it cannot be used.
        return None


def observed_of(services: Iterable[Json], jobs: Iterable[Json], gateway: Json | None) -> Observed:
    """Return what routes depend on, from live InferenceServices, Jobs and the live gateway."""
    addresses = {}
    for service in services:
        name = service["metadata"]["labels"].get(DEPLOYMENT_LABEL, "")
        url = address_of(service)
        if url and service["metadata"]["name"] == realtime.name_of(name):
            addresses[name] = url
    built = frozenset(job["metadata"]["name"] for job in jobs if has_succeeded(job))
    config = config_of(gateway) if gateway else None
    if config is None:
        return Observed(addresses, built)
    return Observed(addresses, built, config.routes, frozenset(config.owners or ()))


def has_succeeded(job: Json) -> bool:
    """Tell whether a Job has succeeded."""
    conditions = (job.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Complete" and c["status"] == "True" for c in conditions)


def address_of(service: Json) -> str | None:
    """Return where gateways ask an InferenceService's model server.

    It is the address that KServe has published. If the model server has a certificate, it is the
    name that the certificate is for, whose domain does not depend on the cluster's.
    """
    if encrypts(service):
        meta = service["metadata"]
        host = realtime.host_of(meta["name"], meta["namespace"])
        return f"https://{host}:{realtime.TLS_PORT}"
    address = (service.get("status") or {}).get("address") or {}
    url: str | None = address.get("url")
    return url


def encrypts(service: Json) -> bool:
    """Tell whether an InferenceService's model server answers with a certificate."""
    return realtime.has_tls_port((service.get("spec") or {}).get("predictor") or {})
