"""The streaming mode: a Deployment of consumers, fenced from each other by the store."""

from __future__ import annotations

from fourways_api import ModelDeployment, StreamConfig, StreamSource
from fourways_api.model import SecretReference
from fourways_api.modes import Streaming

from ..facts import Json, Settings
from . import parts, worker

CONTAINER = "stream"


def name_of(deployment: str) -> str:
    """Return the name of a streaming deployment's Deployment and of what stands beside it."""
    return worker.name_of(deployment, "streaming")


def replicas(streaming: Streaming) -> int:
    """Return how many consumers there are: one at least, as nothing would wake the first."""
    return max(1, streaming.min_replicas)


def ports_of(source: StreamSource) -> set[int]:
    """Return the TCP ports of a source's brokers, as far as the spec names them."""
    broker = source.broker()
    return worker.broker_ports(broker.addresses(), broker.DEFAULT_PORT)


def credentials_of(source: StreamSource) -> SecretReference | None:
    """Return the Secret with a source's credentials."""
    return source.broker().credentials


def plan(
    deployment: ModelDeployment, settings: Settings, pinned_digest: str | None
) -> tuple[Json, ...]:
    """Return ServiceAccount, NetworkPolicy, Deployment and what keeps consumers apart."""
    streaming = deployment.spec.streaming
    assert streaming is not None  # noqa: S101  (Spec's rule: mode streaming has its block)
    who = worker.Identity(deployment, "streaming")
    ports = {
        settings.store_port,
        *settings.egress_ports,
        *parts.ports_of(worker.model_uris(deployment)),
        *ports_of(streaming.source),
    }
    count = replicas(streaming)
    objects = [
        parts.service_account(who.meta()),
        parts.network_policy(who.meta(), who.labels, egress_ports=ports, ingress_port=worker.PORT),
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": who.meta(),
            "spec": {
                "replicas": count,
                "selector": {"matchLabels": who.labels},
                # Positions are fenced, so an old and a new consumer may overlap.
                "strategy": parts.WITHOUT_DOWNTIME,
                "template": {
                    "metadata": {"labels": who.pod_labels},
                    "spec": _pod(deployment, streaming, settings, pinned_digest, who),
                },
            },
        },
    ]
    if count > 1:
        objects.append(parts.disruption_budget(who.meta(), who.labels))
    return tuple(objects)


def _pod(
    deployment: ModelDeployment,
    streaming: Streaming,
    settings: Settings,
    pinned_digest: str | None,
    who: worker.Identity,
) -> Json:
    mounts = parts.Mounts()
    mounts.store(settings)
    mounts.secrets(worker.secrets(deployment, credentials_of(streaming.source)))
    mounts.claims(worker.model_uris(deployment))
    mounts.cache(deployment.spec.model.max_size_mi_b + 256)
    config = worker.config(
        StreamConfig, deployment, settings, pinned_digest, streaming=streaming, port=worker.PORT
    )
    container = worker.container(
        deployment,
        settings,
        name=CONTAINER,
        args=["stream"],
        env=[worker.variable(config)],
        mounts=mounts,
    )
    container |= parts.served(worker.PORT, ready="/v2/health/ready", notice_seconds=0)
    return worker.serving_pod(who, container, mounts)
