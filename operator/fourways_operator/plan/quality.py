"""The quality worker of a real-time deployment, which compares answers with labels. Pure.

Model servers store their answers, and this worker reads them. It has a ServiceAccount and a
NetworkPolicy of its own: model servers reach neither the table of labels nor its Secrets.
"""

from __future__ import annotations

from dataclasses import dataclass

from fourways_api import ModelDeployment, QualityConfig, Resources

from ..facts import Json, OperatorSettings
from . import network, parts, worker

CONTAINER = "quality"
RESOURCES = Resources(cpu="500m", memory="1Gi")


@dataclass(frozen=True, slots=True)
class QualityIdentity(worker.Identity):
    """Name, labels and owner of the quality worker's objects."""

    @property
    def name(self) -> str:
        """Name of the Deployment and of its other objects."""
        return f"{self.deployment.metadata.name}-quality"

    @property
    def labels(self) -> Json:
        """Labels that select its pod, which is none of the mode."""
        return {
            parts.DEPLOYMENT_LABEL: self.deployment.metadata.name,
            parts.QUALITY_LABEL: "true",
        }


def is_quality(obj: Json) -> bool:
    """Tell whether a pod or an object is that of a quality worker."""
    return parts.QUALITY_LABEL in (obj["metadata"].get("labels") or {})


def plan(deployment: ModelDeployment, settings: OperatorSettings) -> tuple[Json, ...]:
    """Return ServiceAccount, NetworkPolicy and Deployment; nothing without ``spec.quality``."""
    if deployment.spec.quality is None:
        return ()
    who = QualityIdentity(deployment, "realtime")
    uris, _ = worker.truth(deployment)
    policy = network.network_policy(
        who.meta(),
        who.labels,
        settings,
        egress_ports={settings.store_port, *settings.egress_ports, *parts.ports_of(uris)},
        ingress=[((worker.PORT,), network.callers_of_workers(settings))],
    )
    workload = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": who.meta(),
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": who.labels},
            # One at a time compares: a second one would only wait for the lock in the store.
            "strategy": {"type": "Recreate"},
            "template": {"metadata": who.pod_meta(), "spec": _pod(deployment, settings, who)},
        },
    }
    return who.service_account(), policy, workload


def _pod(deployment: ModelDeployment, settings: OperatorSettings, who: QualityIdentity) -> Json:
    uris, secrets = worker.truth(deployment)
    mounts = parts.Mounts()
    mounts.store(settings)
    mounts.secrets(each.secret_name for each in secrets if each)
    mounts.claims(uris)
    mounts.cache(256)
    config = worker.config(
        QualityConfig,
        deployment,
        settings,
        None,
        uid=deployment.metadata.data_uid,
        quality=deployment.spec.quality,
        port=worker.PORT,
    )
    container = parts.container(
        name=CONTAINER,
        # It loads no model, so a model's own image is not needed.
        image=settings.runtime_image,
        settings=settings,
        args=["quality"],
        env=[worker.variable(config)],
        resources=RESOURCES,
        mounts=mounts.mounts,
    )
    container |= parts.served(worker.PORT, ready="/v2/health/ready", notice_seconds=0)
    return worker.serving_pod(who, container, mounts)
