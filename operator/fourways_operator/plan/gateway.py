"""The prediction plane of a namespace: one stateless gateway in front of the prediction store.

All ModelDeployments of its namespace own it: the garbage collector deletes it with the last one,
even without the operator.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from pydantic import ValidationError

from fourways_api import GatewayConfig, Metadata, Mode, Resources, Route
from fourways_api.callers import CALLERS_DIR, SERVERS_CA_FILE, TLS_DIR

from ..facts import Json, OperatorSettings
from . import callers, network, parts, worker
from .routes import fitting

PORT = worker.PORT
GRPC_PORT = 9000
IDLE = Resources(cpu="50m", memory="128Mi")
LIMIT = Resources(cpu="1", memory="256Mi")
ROUTED_LIMIT = Resources(cpu="1", memory="512Mi")
"""With routes, the gateway also holds broker clients and bundles."""


@dataclass(frozen=True, slots=True)
class GatewayShare:
    """What one deployment contributes to its namespace's gateway.

    ``secrets`` are the names of the Secrets, and ``claims`` the ``pvc://`` URIs, that the route
    needs.
    """

    route: Route
    ports: frozenset[int] = frozenset()
    secrets: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()


def plan(
    namespace: str,
    owners: Sequence[Json],
    settings: OperatorSettings,
    shares: Sequence[GatewayShare],
    known: Collection[str] = (),
) -> tuple[Json, ...]:
    """Return the gateway's objects.

    ``owners`` are the namespace's live ModelDeployments, ``shares`` their contributions in the
    order of their names, and ``known`` the names of those that the live gateway serves.
    """
    labels = {parts.COMPONENT_LABEL: "gateway"}
    references = sorted(
        (parts.owner(o["metadata"]["name"], o["metadata"]["uid"]) for o in owners),
        key=lambda r: str(r["uid"]),
    )
    meta = partial(parts.metadata, namespace, parts.GATEWAY, labels, references)
    config = GatewayConfig(
        namespace=namespace,
        owners=_uids(owners),
        port=PORT,
        routes=tuple(share.route for share in shares),
        fetch=worker.fetch_policy(settings),
        callers=callers.policy(namespace, settings),
        allowed_origins=settings.gateway_origins,
        tls_dir=TLS_DIR if settings.gateway_tls_secret else None,
        grpc_port=GRPC_PORT if settings.gateway_grpc else None,
        servers_ca=SERVERS_CA_FILE if settings.server_tls_secret else None,
        access_log=settings.access_log or None,
    )
    config = fitting(config, known)
    kept = {route.deployment for route in config.routes}
    shares = [share for share in shares if share.route.deployment in kept]
    ports = {settings.store_port, *settings.egress_ports, *(p for s in shares for p in s.ports)}
    ports |= callers.ports(settings)
    listening = _listening(config)
    objects = [
        parts.service_account(meta()),
        network.network_policy(
            meta(),
            labels,
            settings,
            egress_ports=ports,
            ingress=[(listening.values(), network.callers_of_gateway(settings))],
        ),
        _service(meta(), labels, listening),
        _deployment(meta(), labels, settings, config, shares, listening),
    ]
    if settings.gateway_replicas > 1:
        objects.append(parts.disruption_budget(meta(), labels))
    return tuple(objects)


def _uids(owners: Sequence[Json]) -> dict[str, str]:
    """Return the uid to which each deployment's data belongs, by name."""
    uids = {}
    for owner in sorted(owners, key=lambda o: str(o["metadata"]["name"])):
        meta = owner["metadata"]
        try:
            uids[meta["name"]] = Metadata.model_validate(meta).data_uid
        except ValidationError:  # Its own status says what is wrong. The data stays its own.
            uids[meta["name"]] = str(meta.get("uid", ""))
    return uids


def address(namespace: str, name: str, mode: Mode = "batch") -> str:
    """Return the in-cluster address of predictions for backends, or of bundles for devices."""
    path = f"bundles/{name}/" if mode == "edge" else f"v2/models/{name}/infer"
    return f"http://{parts.GATEWAY}.{namespace}.svc/{path}"


def _listening(config: GatewayConfig) -> dict[str, int]:
    """Return the ports of the gateway's container by name."""
    ports = {"http": PORT}
    if config.tls_dir is not None:
        ports["https"] = config.tls_port
    if config.grpc_port is not None:
        ports["grpc"] = config.grpc_port
    return ports


_SERVICE_PORTS = {"http": 80, "https": 443, "grpc": GRPC_PORT}


def _service(meta: Json, labels: Json, listening: Mapping[str, int]) -> Json:
    ports = [
        {"name": name, "port": _SERVICE_PORTS[name], "protocol": "TCP", "targetPort": port}
        for name, port in listening.items()
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta,
        "spec": {
            "selector": labels,
            "ports": ports,
        },
    }


def _deployment(
    meta: Json,
    labels: Json,
    settings: OperatorSettings,
    config: GatewayConfig,
    shares: Sequence[GatewayShare],
    listening: Mapping[str, int],
) -> Json:
    mounts = parts.Mounts()
    mounts.store(settings, reads=True)
    mounts.secrets(name for share in shares for name in share.secrets)
    mounts.claims(uri for share in shares for uri in share.claims)
    if settings.access is not None:
        mounts.secret("callers", settings.access.keys_secret, CALLERS_DIR)
    if settings.gateway_tls_secret:
        mounts.secret("tls", settings.gateway_tls_secret, TLS_DIR, optional=False)
    if settings.server_tls_secret:
        mounts.servers_authority(settings)
    mounts.scratch("tmp", "/tmp", "64Mi")  # noqa: S108  (the pod's own)
    wanted: Json = {k: v for k, v in json.loads(settings.gateway_pod).items() if v}
    env = [worker.variable(config), *worker.tracing_variables(settings, config.namespace)]
    ours = {each["name"] for each in env}
    container = parts.container(
        name="gateway",
        image=settings.runtime_image,
        settings=settings,
        args=["gateway"],
        env=[*env, *(each for each in wanted.pop("env", []) if each["name"] not in ours)],
        resources=ROUTED_LIMIT if config.routes else LIMIT,
        idle=IDLE,
        mounts=mounts.mounts,
    )
    # It is ready as soon as it responds, even with 503 and Retry-After while the store is down:
    # a gateway outside its Service could not send that response.
    container |= parts.served(PORT, ready="/v2/health/live")
    container["ports"] = [
        {"name": name, "containerPort": port, "protocol": "TCP"} for name, port in listening.items()
    ]
    pod = parts.pod_spec(
        service_account_name=parts.GATEWAY,
        container=container,
        volumes=mounts.volumes,
        restart_policy="Always",
    )
    # The gateway finishes open requests: the notice period, then at most twenty seconds.
    pod["terminationGracePeriodSeconds"] = 40
    if settings.gateway_replicas > 1:
        pod["topologySpreadConstraints"] = [_spread(labels)]
    carried = {"labels": {**wanted.pop("labels", {}), parts.MANAGED_BY: parts.MANAGER, **labels}}
    if "annotations" in wanted:
        carried["annotations"] = wanted.pop("annotations")
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta,
        "spec": {
            "replicas": settings.gateway_replicas,
            "selector": {"matchLabels": labels},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0}},
            "template": {
                "metadata": carried,
                "spec": pod | wanted,
            },
        },
    }


def _spread(labels: Json) -> Json:
    """Return the constraint by which a lost node takes one replica away.

    It does not bind: two replicas on one node are better than one.
    """
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": dict(labels)},
    }
