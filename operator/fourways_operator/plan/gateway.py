"""The prediction plane of a namespace: one stateless gateway in front of the prediction store.

It is owned by every ModelDeployment of its namespace at once: the garbage collector takes it away
with the last of them, whether or not the operator is there to see it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial

from fourways_api import GatewayConfig, Resources
from fourways_api.runtime_config import CONFIG_VARIABLE

from ..facts import Json, Settings
from . import parts

PORT = 8080
IDLE = Resources(cpu="50m", memory="128Mi")
LIMIT = Resources(cpu="1", memory="256Mi")


def plan(namespace: str, owners: Sequence[Json], settings: Settings) -> tuple[Json, ...]:
    """Return the gateway's objects. ``owners`` are the namespace's live ModelDeployments."""
    labels = {parts.COMPONENT_LABEL: "gateway"}
    references = sorted(
        (parts.owner(o["metadata"]["name"], o["metadata"]["uid"]) for o in owners),
        key=lambda r: str(r["uid"]),
    )
    meta = partial(parts.metadata, namespace, parts.GATEWAY, labels, references)
    ports = {settings.store_port, *settings.egress_ports}
    objects = [
        parts.service_account(meta()),
        parts.network_policy(meta(), labels, egress_ports=ports, ingress_port=PORT),
        _service(meta(), labels),
        _deployment(namespace, meta(), labels, settings),
    ]
    if settings.gateway_replicas > 1:
        objects.append(_disruption_budget(meta(), labels))
    return tuple(objects)


def address(namespace: str, name: str) -> str:
    """Return where a backend asks a deployment's predictions, inside the cluster."""
    return f"http://{parts.GATEWAY}.{namespace}.svc/v2/models/{name}/infer"


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


def _deployment(namespace: str, meta: Json, labels: Json, settings: Settings) -> Json:
    mounts = parts.Mounts()
    mounts.store(settings)
    mounts.scratch("tmp", "/tmp", "64Mi")  # noqa: S108  (the pod's own)
    config = GatewayConfig(namespace=namespace, port=PORT)
    container = parts.container(
        name="gateway",
        image=settings.runtime_image,
        settings=settings,
        args=["gateway"],
        env=[
            {"name": CONFIG_VARIABLE, "value": json.dumps(config.to_json(), separators=(",", ":"))}
        ],
        resources=LIMIT,
        idle=IDLE,
        mounts=mounts.mounts,
    )
    # Ready means that it answers, even if only with 503 and Retry-After while the store is down:
    # a gateway taken out of its Service could not say so.
    probe = {"httpGet": {"path": "/v2/health/live", "port": PORT}}
    container |= {
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "readinessProbe": {**probe, "periodSeconds": 2},
        "livenessProbe": {**probe, "periodSeconds": 10, "timeoutSeconds": 5},
        # Endpoints forget a pod some time after it was told to stop.
        "lifecycle": {"preStop": {"sleep": {"seconds": 3}}},
    }
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


def _disruption_budget(meta: Json, labels: Json) -> Json:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": meta,
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels}},
    }
