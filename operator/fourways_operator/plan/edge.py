"""The edge mode: a Job that builds, signs and publishes a bundle for each kind of device.

Its pod has two containers, one after the other: the first parses the model and has no key; the
second has the key, signs what the first wrote, and publishes it.

A Job's template cannot be changed, so its name contains a hash of what it does: another build is
another Job, and the old one is deleted. Published bundles stay where they are.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TypeVar

from fourways_api import (
    ApiModel,
    Contract,
    EdgeConfig,
    FeatureLookup,
    ModelDeployment,
    Monitoring,
    Route,
    SecretReference,
)
from fourways_api.addresses import claims as claims_of
from fourways_api.modes import Edge
from fourways_api.runtime_config import (
    CACHE_DIR,
    SECRETS_ROOT,
    UNSIGNED,
    VOLUMES_ROOT,
    FleetDrift,
)
from fourways_api.values import seconds

from ..facts import Json, OperatorSettings
from . import network, parts, worker
from .placement import placement
from .routes import Observed

FieldT = TypeVar("FieldT", bound=ApiModel)

BUILD, SIGN = "build", "edge"
"""Names of the containers."""

BACKOFF_LIMIT = 2

BUILD_SECONDS = 7200
"""Maximum seconds of a build. Its downloads, calls into the model and measurements have their own
limits; this one ends a build that hangs elsewhere."""

COPIES = 5
"""A build holds the model as fetched, optimised and quantised, and both in bundles."""


def name_of(deployment: str) -> str:
    """Return the name of an edge deployment's other objects, the prefix of its Jobs' names."""
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
        who.service_account(),
        network.network_policy(who.meta(), who.labels, settings, egress_ports=ports),
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": who.meta(job_name(deployment, settings)),
            # Not part of the hash in the Job's name: a new deadline is no reason to build again.
            "spec": _job(deployment, edge, settings, pinned_digest, who)
            | {"activeDeadlineSeconds": BUILD_SECONDS},
        },
    )


def route(deployment: ModelDeployment, url: str | None) -> Route | None:
    """Return the gateway's route; ``url`` is not used."""
    edge = deployment.spec.edge
    if edge is None:
        return None
    return Route(
        deployment=deployment.metadata.name,
        mode="edge",
        version=deployment.spec.model.version,
        publish=edge.publish,
        publish_credentials=edge.credentials,
        entity_key=deployment.spec.contract.entity_key if edge.features else None,
        features=_with_inputs(edge.features, deployment),
        drift=_drift(deployment.spec.monitoring),
    )


def _drift(monitoring: Monitoring | None) -> FleetDrift | None:
    if monitoring is None:
        return None
    return FleetDrift(window_seconds=seconds(monitoring.window), max_drift=monitoring.max_drift)


def _with_inputs(
    features: FeatureLookup | None, deployment: ModelDeployment
) -> FeatureLookup | None:
    """Return the lookup with explicit inputs: the gateway does not know the contract."""
    if features is None or features.inputs:
        return features
    names = tuple(field.name for field in deployment.spec.contract.inputs)
    return features.model_copy(update={"inputs": names})


def route_ports(route: Route) -> set[int]:
    """Return the ports for reading bundles; the feature database uses the store's port."""
    return parts.ports_of([route.publish] if route.publish else [])


def route_secrets(route: Route) -> list[SecretReference | None]:
    """Return the Secrets for reading bundles and for the feature database."""
    return [route.publish_credentials, route.features.database if route.features else None]


def is_built(deployment: ModelDeployment, settings: OperatorSettings, observed: Observed) -> bool:
    """Tell whether the bundles that the spec asks for have been built."""
    return observed.built is None or job_name(deployment, settings) in observed.built


def job_name(deployment: ModelDeployment, settings: OperatorSettings) -> str:
    """Return the name of the Job for the build that the spec asks for, from the hash of its spec.

    A digest pinned after the first download is left out: it needs no new build.
    """
    edge = deployment.spec.edge
    assert edge is not None  # noqa: S101  (Spec's rule: mode edge has its block)
    who = worker.Identity(deployment, "edge")
    spec = json.dumps(_job(deployment, edge, settings, None, who), sort_keys=True)
    return f"{who.name}-{sha256(spec.encode()).hexdigest()[:8]}"


def without_descriptions(contract: Contract) -> Contract:
    """Return a contract as a bundle has it: a new description must not build it again."""

    def plain(field: FieldT) -> FieldT:
        return field.model_copy(update={"description": None})

    return contract.model_copy(
        update={
            "inputs": tuple(map(plain, contract.inputs)),
            "outputs": tuple(map(plain, contract.outputs)),
        }
    )


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
    mounts.model(deployment.spec.model)
    mounts.cache(deployment.spec.model.max_size_mi_b * COPIES + 256)
    config = worker.config(
        EdgeConfig,
        deployment,
        settings,
        pinned_digest,
        edge=edge.model_copy(update={"description": None}),
        cluster=settings.cluster_name or None,
    )
    # The bundle holds contract and profile. What it does not hold is left out: text for people,
    # and how the gateway compares. A new one is no new build.
    config = config.model_copy(
        update={
            "contract": without_descriptions(config.contract),
            "monitoring": config.monitoring and Monitoring(profile=config.monitoring.profile),
        }
    )
    build, sign = _mounts_of_each(mounts, edge)

    def container(name: str, args: str, of_it: parts.Mounts, image: str = "") -> Json:
        return worker.container(
            deployment,
            settings,
            name=name,
            args=[args],
            env=[worker.variable(config)],
            mounts=of_it,
            image=image,
        )

    return {
        "backoffLimit": BACKOFF_LIMIT,
        "podFailurePolicy": worker.failure_policy(BUILD, SIGN),
        "template": {
            "metadata": who.pod_meta(),
            "spec": parts.pod_spec(
                service_account_name=who.name,
                before=[container(BUILD, "edge-build", build)],
                container=container(SIGN, "edge-sign", sign, settings.signing_image),
                volumes=[*mounts.volumes, *sign.volumes],
                restart_policy="Never",
            )
            | placement(deployment.spec.pod, who.labels),
        },
    }


def _mounts_of_each(mounts: parts.Mounts, edge: Edge) -> tuple[parts.Mounts, parts.Mounts]:
    """Return the mounts of the build, without the key and read-only, and those of the signing."""
    key = f"{SECRETS_ROOT}/{edge.signing.secret_name}"
    credentials = edge.credentials
    written = {f"{VOLUMES_ROOT}/{claim}" for claim in claims_of([edge.publish])}
    signs = {key, *written, *([f"{SECRETS_ROOT}/{credentials.secret_name}"] if credentials else [])}
    build = parts.Mounts(
        mounts=[
            {**mount, "readOnly": True} if mount["mountPath"] in written else mount
            for mount in mounts.mounts
            if mount["mountPath"] != key
        ]
    )
    sign = parts.Mounts(mounts=[m for m in mounts.mounts if m["mountPath"] in signs])
    sign.mounts.append(
        {
            "name": "cache",
            "mountPath": f"{CACHE_DIR}/{UNSIGNED}",
            "subPath": UNSIGNED,
            "readOnly": True,
        }
    )
    sign.scratch("sign-tmp", "/tmp", "64Mi")  # noqa: S108  (the container's own)
    return build, sign
