"""The prediction plane of a namespace: one stateless gateway in front of the prediction store.

It is owned by every ModelDeployment of its namespace at once: the garbage collector takes it away
with the last of them, whether or not the operator is there to see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from fourways_api import GatewayConfig, Mode, Resources, Route

from ..facts import Json, OperatorSettings
from . import parts, streaming, worker
from .routes import NOTHING_YET, Observed, fitting, routes_of

PORT = worker.PORT
IDLE = Resources(cpu="50m", memory="128Mi")
LIMIT = Resources(cpu="1", memory="256Mi")
ROUTED_LIMIT = Resources(cpu="1", memory="512Mi")
"""With routes it holds clients of brokers and bundles besides."""

MODEL_SERVER_PORTS = (80, worker.PORT)
"""Of KServe's Service, and of the pods behind it: policies see both."""


def plan(
    namespace: str,
    owners: Sequence[Json],
    settings: OperatorSettings,
    observed: Observed = NOTHING_YET,
) -> tuple[Json, ...]:
    """Return the gateway's objects. ``owners`` are the namespace's live ModelDeployments."""
    labels = {parts.COMPONENT_LABEL: "gateway"}
    references = sorted(
        (parts.owner(o["metadata"]["name"], o["metadata"]["uid"]) for o in owners),
        key=lambda r: str(r["uid"]),
    )
    meta = partial(parts.metadata, namespace, parts.GATEWAY, labels, references)
    config = GatewayConfig(
        namespace=namespace,
        port=PORT,
        routes=routes_of(owners, settings, observed),
        fetch=worker.fetch_policy(settings),
    )
    config = fitting(config, observed.before)
    ports = {settings.store_port, *settings.egress_ports, *_ports(config.routes)}
    objects = [
        parts.service_account(meta()),
        parts.network_policy(meta(), labels, egress_ports=ports, ingress_port=PORT),
        _service(meta(), labels),
        _deployment(meta(), labels, settings, config),
    ]
    if settings.gateway_replicas > 1:
        objects.append(parts.disruption_budget(meta(), labels))
    return tuple(objects)


def _ports(routes: Sequence[Route]) -> set[int]:
    """Return the ports routes lead to; the feature database's is the store's."""
    ports = parts.ports_of(route.publish for route in routes if route.publish)
    for route in routes:
        if route.source:
            ports |= streaming.ports_of(route.source)
    if any(route.mode == "realtime" for route in routes):
        ports.update(MODEL_SERVER_PORTS)
    return ports


def _secrets(routes: Sequence[Route]) -> list[str]:
    references = [
        reference
        for route in routes
        for reference in (
            streaming.credentials_of(route.source) if route.source else None,
            route.publish_credentials,
            route.features.database if route.features else None,
        )
    ]
    return [r.secret_name for r in references if r]


def address(namespace: str, name: str, mode: Mode = "batch") -> str:
    """Return where a backend asks for predictions, or devices for bundles, inside the cluster."""
    path = f"bundles/{name}/" if mode == "edge" else f"v2/models/{name}/infer"
    return f"http://{parts.GATEWAY}.{namespace}.svc/{path}"


def _service(meta: Json, labels: Json) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta,
        "spec": {
            "selector": labels,
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": PORT}],
        },
    }


def _deployment(
    meta: Json, labels: Json, settings: OperatorSettings, config: GatewayConfig
) -> Json:
    mounts = parts.Mounts()
    mounts.store(settings)
    mounts.secrets(_secrets(config.routes))
    mounts.claims(route.publish for route in config.routes if route.publish)
    mounts.scratch("tmp", "/tmp", "64Mi")  # noqa: S108  (the pod's own)
    container = parts.container(
        name="gateway",
        image=settings.runtime_image,
        settings=settings,
        args=["gateway"],
        env=[worker.variable(config)],
        resources=ROUTED_LIMIT if config.routes else LIMIT,
        idle=IDLE,
        mounts=mounts.mounts,
    )
    # Ready means that it answers, even if only with 503 and Retry-After while the store is down:
    # a gateway taken out of its Service could not say so.
    container |= parts.served(PORT, ready="/v2/health/live")
    pod = parts.pod_spec(
        service_account_name=parts.GATEWAY,
        container=container,
        volumes=mounts.volumes,
        restart_policy="Always",
    )
    # The gateway finishes what it has begun: a notice, then twenty seconds at the most.
    pod["terminationGracePeriodSeconds"] = 40
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta,
        "spec": {
            "replicas": settings.gateway_replicas,
            "selector": {"matchLabels": labels},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": {parts.MANAGED_BY: parts.MANAGER, **labels}},
                "spec": pod,
            },
        },
    }
