"""The batch mode: a CronJob whose Jobs read the source, score it and publish into the store."""

from __future__ import annotations

import json
from functools import partial

from fourways_api import FetchPolicy, ModelDeployment, RuntimeConfig, worker_memory, worker_threads
from fourways_api.modes import Batch
from fourways_api.runtime_config import CONFIG_VARIABLE, RUN_VARIABLE, TERMINAL_EXIT_CODES

from ..facts import Json, Settings
from . import parts

CONTAINER = "batch"

RUN_NAME_FIELD = "metadata.labels['batch.kubernetes.io/job-name']"
"""A run is named after its Job, so that it is the same run whichever pod tries it."""


def name_of(deployment: str) -> str:
    """Return the name of a batch deployment's CronJob and of what stands beside it."""
    return f"{deployment}-batch"


def plan(
    deployment: ModelDeployment, settings: Settings, pinned_digest: str | None
) -> tuple[Json, ...]:
    """Return ServiceAccount, NetworkPolicy and CronJob of a batch deployment."""
    namespace, name = deployment.key
    batch = deployment.spec.batch
    assert batch is not None  # noqa: S101  (Spec's rule: mode batch has its block)
    labels = {parts.DEPLOYMENT_LABEL: name, parts.MODE_LABEL: "batch"}
    owners = [parts.controller_of(deployment)]
    meta = partial(parts.metadata, namespace, name_of(name), labels, owners)
    ports = {settings.store_port, *settings.egress_ports, *parts.ports_of(_uris(deployment, batch))}
    return (
        parts.service_account(meta()),
        parts.network_policy(meta(), labels, egress_ports=ports),
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": meta(),
            "spec": {
                "schedule": batch.schedule,
                "timeZone": batch.time_zone,
                "suspend": batch.suspend,
                "concurrencyPolicy": "Forbid",
                "startingDeadlineSeconds": batch.starting_deadline_seconds,
                "successfulJobsHistoryLimit": batch.history_limit,
                "failedJobsHistoryLimit": batch.history_limit,
                "jobTemplate": {
                    "metadata": {"labels": {parts.MANAGED_BY: parts.MANAGER, **labels}},
                    "spec": _job(deployment, batch, settings, pinned_digest, labels),
                },
            },
        },
    )


def _job(
    deployment: ModelDeployment,
    batch: Batch,
    settings: Settings,
    pinned_digest: str | None,
    labels: Json,
) -> Json:
    spec = deployment.spec
    mounts = parts.Mounts()
    mounts.store(settings)
    mounts.secrets(_secrets(deployment, batch))
    mounts.claims(_uris(deployment, batch))
    mounts.cache(spec.model.max_size_mi_b + 256)
    config = _config(deployment, settings, pinned_digest)
    container = parts.container(
        name=CONTAINER,
        image=spec.image or settings.runtime_image,
        settings=settings,
        args=["batch"],
        env=[
            {"name": CONFIG_VARIABLE, "value": json.dumps(config.to_json(), separators=(",", ":"))},
            {"name": RUN_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": RUN_NAME_FIELD}}},
        ],
        resources=spec.resources,
        mounts=mounts.mounts,
    )
    return {
        "backoffLimit": batch.backoff_limit,
        "activeDeadlineSeconds": batch.active_deadline_seconds,
        # A disruption is not the run's fault; what cannot get better is not tried again.
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "Ignore",
                    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                },
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": CONTAINER,
                        "operator": "In",
                        "values": list(TERMINAL_EXIT_CODES),
                    },
                },
            ]
        },
        "template": {
            "metadata": {"labels": {parts.MANAGED_BY: parts.MANAGER, **labels}},
            "spec": parts.pod_spec(
                service_account_name=name_of(deployment.metadata.name),
                container=container,
                volumes=mounts.volumes,
                restart_policy="Never",
            ),
        },
    }


def _config(
    deployment: ModelDeployment, settings: Settings, pinned_digest: str | None
) -> RuntimeConfig:
    spec = deployment.spec
    namespace, name = deployment.key
    return RuntimeConfig(
        namespace=namespace,
        name=name,
        model=spec.model,
        digest=spec.model.digest or pinned_digest,
        contract=spec.contract,
        batch=spec.batch,
        threads=worker_threads(spec.resources),
        memory_bytes=worker_memory(spec.resources),
        fetch=FetchPolicy(schemes=settings.allowed_schemes, hosts=settings.allowed_hosts),
    )


def _uris(deployment: ModelDeployment, batch: Batch) -> list[str]:
    golden = deployment.spec.contract.golden_vectors
    return [deployment.spec.model.uri, batch.source.uri, *([golden.uri] if golden else [])]


def _secrets(deployment: ModelDeployment, batch: Batch) -> list[str]:
    golden = deployment.spec.contract.golden_vectors
    credentials = [
        deployment.spec.model.credentials,
        batch.source.credentials,
        golden.credentials if golden else None,
    ]
    return [c.secret_name for c in credentials if c]
