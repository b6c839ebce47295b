"""The streaming mode: a Deployment of consumers that the store fences from each other."""

from __future__ import annotations

from fourways_api import ModelDeployment, Route, StreamConfig, StreamSource
from fourways_api.addresses import brokers
from fourways_api.model import SecretReference
from fourways_api.modes import Streaming
from fourways_api.values import seconds

from ..facts import Json, OperatorSettings
from . import network, parts, worker

CONTAINER = "stream"


def name_of(deployment: str) -> str:
    """Return the name of a streaming deployment's Deployment and of its other objects."""
    return worker.name_of(deployment, "streaming")


def replicas(streaming: Streaming) -> int:
    """Return the number of consumers: at least one, as nothing would scale it up from zero."""
    return max(1, streaming.min_replicas)


def ports_of(source: StreamSource) -> set[int]:
    """Return the TCP ports of a source's brokers, as far as the spec names them."""
    broker = source.broker()
    found = (address.port for address in brokers(",".join(broker.addresses())))
    ports = (broker.DEFAULT_PORT if port is None else port for port in found)
    return {port for port in ports if port is not None}


def credentials_of(source: StreamSource) -> SecretReference | None:
    """Return the Secret with a source's credentials."""
    return source.broker().credentials


def route(deployment: ModelDeployment, url: str | None) -> Route | None:
    """Return the gateway's route; ``url`` is not used."""
    streaming = deployment.spec.streaming
    if streaming is None:
        return None
    return Route(
        deployment=deployment.metadata.name,
        mode="streaming",
        version=deployment.spec.model.version,
        source=streaming.source,
        freshness_seconds=seconds(streaming.freshness),
    )


def route_ports(route: Route) -> set[int]:
    """Return the ports of the brokers the gateway publishes events to."""
    return ports_of(route.source) if route.source else set()


def route_secrets(route: Route) -> list[SecretReference | None]:
    """Return the Secret with which the gateway logs in to the broker."""
    return [credentials_of(route.source)] if route.source else []


def plan(
    deployment: ModelDeployment, settings: OperatorSettings, pinned_digest: str | None
) -> tuple[Json, ...]:
    """Return ServiceAccount, NetworkPolicy, Deployment and any disruption budget."""
    streaming = deployment.spec.streaming
    assert streaming is not None  # noqa: S101  (Spec's rule: mode streaming has its block)
    who = worker.Identity(deployment, "streaming")
    uris, _ = worker.truth(deployment)
    ports = {
        settings.store_port,
        *settings.egress_ports,
        *parts.ports_of([*worker.model_uris(deployment), *uris]),
        *ports_of(streaming.source),
    }
    count = replicas(streaming)
    objects = [
        who.service_account(),
        network.network_policy(
            who.meta(),
            who.labels,
            settings,
            egress_ports=ports,
            ingress=[((worker.PORT,), network.callers_of_workers(settings))],
        ),
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
                    "metadata": who.pod_meta(),
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
    settings: OperatorSettings,
    pinned_digest: str | None,
    who: worker.Identity,
) -> Json:
    mounts = parts.Mounts()
    mounts.store(settings)
    uris, secrets = worker.truth(deployment)
    mounts.secrets(worker.secrets(deployment, credentials_of(streaming.source), *secrets))
    mounts.claims([*worker.model_uris(deployment), *uris])
    mounts.model(deployment.spec.model)
    mounts.cache(deployment.spec.model.max_size_mi_b + 256)
    # The number of consumers is left out: scaling must not restart the running ones.
    one = streaming.model_copy(update={"min_replicas": 1, "max_replicas": 1})
    config = worker.config(
        StreamConfig,
        deployment,
        settings,
        pinned_digest,
        uid=deployment.metadata.data_uid,
        streaming=one,
        quality=deployment.spec.quality,
        port=worker.PORT,
    )
    container = worker.container(
        deployment,
        settings,
        name=CONTAINER,
        args=["stream"],
        env=[worker.variable(config), *worker.tracing_variables(settings, config.namespace)],
        mounts=mounts,
    )
    container |= parts.served(worker.PORT, ready="/v2/health/ready", notice_seconds=0)
    return worker.serving_pod(who, container, mounts)
