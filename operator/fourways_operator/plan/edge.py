"""The edge mode: a Job that builds, signs and publishes a bundle for each kind of device.

A Job's template cannot be changed, so its name says what it does: another build is another Job,
and the old one is pruned. What was published stays where it is.
"""

from __future__ import annotations

import json
from hashlib import sha256

from fourways_api import EdgeConfig, ModelDeployment
from fourways_api.modes import Edge

from ..facts import Json, OperatorSettings
from . import parts, worker

CONTAINER = "edge"
BACKOFF_LIMIT = 2

COPIES = 4
"""A build holds the model as fetched, optimised and quantised, and the bundle made of them."""


def name_of(deployment: str) -> str:
    """Return the name of what stands beside an edge deployment's Jobs, and how theirs begin."""
    return worker.name_of(deployment, "edge")


def plan(
    deployment: ModelDeployment, settings: OperatorSettings, pinned_digest: str | None
) -> tuple[Json, ...]:
    """Return ServiceAccount, NetworkPolicy and the Job that builds."""
    edge = deployment.spec.edge
    assert edge is not None  # noqa: S101  (Spec's rule: mode edge has its block)
    who = worker.Identity(deployment, "edge")
    uris = [*worker.model_uris(deployment), edge.publish]
    ports = {*settings.egress_ports, *parts.ports_of(uris)}
    return (
        parts.service_account(who.meta()),
        parts.network_policy(who.meta(), who.labels, egress_ports=ports),
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": who.meta(job_name(deployment, settings)),
            "spec": _job(deployment, edge, settings, pinned_digest, who),
        },
    )


def job_name(deployment: ModelDeployment, settings: OperatorSettings) -> str:
    """Return the name of the Job that builds what the spec says, by the hash of what it does.

    A digest pinned after the first download is left out: it is no reason to build again.
    """
    edge = deployment.spec.edge
    assert edge is not None  # noqa: S101  (Spec's rule: mode edge has its block)
    who = worker.Identity(deployment, "edge")
    spec = json.dumps(_job(deployment, edge, settings, None, who), sort_keys=True)
    return f"{who.name}-{sha256(spec.encode()).hexdigest()[:8]}"


def _job(
    deployment: ModelDeployment,
    edge: Edge,
    settings: OperatorSettings,
    pinned_digest: str | None,
    who: worker.Identity,
) -> Json:
    mounts = parts.Mounts()
    mounts.secrets(worker.secrets(deployment, edge.signing, edge.credentials))
    mounts.claims(worker.model_uris(deployment), written=[edge.publish])
    mounts.cache(deployment.spec.model.max_size_mi_b * COPIES + 256)
    config = worker.config(EdgeConfig, deployment, settings, pinned_digest, edge=edge)
    container = worker.container(
        deployment,
        settings,
        name=CONTAINER,
        args=["edge-build"],
        env=[worker.variable(config)],
        mounts=mounts,
    )
    return {
        "backoffLimit": BACKOFF_LIMIT,
        "podFailurePolicy": worker.failure_policy(CONTAINER),
        "template": {
            "metadata": {"labels": who.pod_labels},
            "spec": parts.pod_spec(
                service_account_name=who.name,
                container=container,
                volumes=mounts.volumes,
                restart_policy="Never",
            ),
        },
    }
