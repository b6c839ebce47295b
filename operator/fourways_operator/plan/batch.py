"""The batch mode: a CronJob of Indexed Jobs whose workers share a run and publish it atomically.

Under Ray the Job's pod only waits, and the workers belong to a RayJob (:mod:`.ray`).

A run is one Job and has its name. Its workers share the rows through the ledger in the store. Each
of them succeeds only once the run is published, so the first success completes the Job, and the
others take over the share of a worker that is lost for good.

A CronJob may start two Jobs for one scheduled time, or none. Two Jobs are two runs: each is
published as a whole, and the later one serves. After none, the previous run serves until the next.
"""

from __future__ import annotations

from collections.abc import Sequence

from fourways_api import ModelDeployment, RuntimeConfig, SecretReference
from fourways_api.modes import Batch, FileSink
from fourways_api.runtime_config import RUN_VARIABLE

from ..facts import Json, Kind, OperatorSettings
from ..kinds import RAY_JOB
from . import network, parts, ray, worker

CONTAINER = "batch"

RUN_NAME_FIELD = "metadata.labels['batch.kubernetes.io/job-name']"
"""A run has the name of its Job, so that all pods of the Job work on the same run."""


def name_of(deployment: str) -> str:
    """Return the name of a batch deployment's CronJob and of its other objects."""
    return worker.name_of(deployment, "batch")


def plan(
    deployment: ModelDeployment, settings: OperatorSettings, pinned_digest: str | None
) -> tuple[Json, ...]:
    """Return ServiceAccount, NetworkPolicy and CronJob of a batch deployment."""
    batch = deployment.spec.batch
    assert batch is not None  # noqa: S101  (Spec's rule: mode batch has its block)
    who = worker.Identity(deployment, "batch")
    uris = [*_read(deployment, batch), *_written(batch)]
    # Databases must use the store's port: the plan cannot read the addresses in their Secrets.
    ports = {settings.store_port, *settings.egress_ports, *parts.ports_of(uris)}
    return (
        who.service_account(),
        network.network_policy(who.meta(), who.labels, settings, egress_ports=ports),
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": who.meta(),
            "spec": {
                "schedule": batch.schedule,
                "timeZone": batch.time_zone,
                "suspend": batch.suspend,
                "concurrencyPolicy": "Forbid",
                "startingDeadlineSeconds": batch.starting_deadline_seconds,
                "successfulJobsHistoryLimit": batch.history_limit,
                "failedJobsHistoryLimit": batch.history_limit,
                "jobTemplate": {
                    "metadata": {"labels": {**who.pod_labels, **_queue(batch)}},
                    "spec": _job(deployment, batch, settings, pinned_digest, who),
                },
            },
        },
    )


def plan_runs(
    deployment: ModelDeployment,
    settings: OperatorSettings,
    pinned_digest: str | None,
    jobs: Sequence[Json],
) -> tuple[Json, ...]:
    """Return the objects that runs in progress need besides ``jobs``, their Jobs."""
    batch = deployment.spec.batch
    assert batch is not None  # noqa: S101  (Spec's rule: mode batch has its block)
    if batch.engine != "Ray":
        return ()
    environment = _environment(deployment, batch, settings, pinned_digest)
    mounts = _mounts(deployment, batch, settings)
    return ray.plan(deployment, batch, settings, environment, mounts, jobs)


def later_kinds(deployment: ModelDeployment) -> tuple[Kind, ...]:
    """Return the kinds that runs will need but the plan does not contain."""
    batch = deployment.spec.batch
    return (RAY_JOB,) if batch is not None and batch.engine == "Ray" else ()


def _mounts(deployment: ModelDeployment, batch: Batch, settings: OperatorSettings) -> parts.Mounts:
    mounts = parts.Mounts()
    mounts.store(settings)
    mounts.secrets(worker.secrets(deployment, *_secrets(deployment, batch)))
    mounts.claims(_read(deployment, batch), written=_written(batch))
    mounts.model(deployment.spec.model)
    mounts.cache(deployment.spec.model.max_size_mi_b + 256)
    return mounts


def _environment(
    deployment: ModelDeployment, batch: Batch, settings: OperatorSettings, pinned_digest: str | None
) -> Json:
    return worker.variable(
        worker.config(
            RuntimeConfig,
            deployment,
            settings,
            pinned_digest,
            uid=deployment.metadata.data_uid,
            batch=batch,
            quality=deployment.spec.quality,
        )
    )


def _job(
    deployment: ModelDeployment,
    batch: Batch,
    settings: OperatorSettings,
    pinned_digest: str | None,
    who: worker.Identity,
) -> Json:
    on_ray = batch.engine == "Ray"
    mounts = _mounts(deployment, batch, settings)
    container = worker.container(
        deployment,
        settings,
        name=CONTAINER,
        args=["attend" if on_ray else "batch"],
        env=[
            _environment(deployment, batch, settings, pinned_digest),
            {"name": RUN_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": RUN_NAME_FIELD}}},
        ],
        mounts=mounts,
        resources=ray.ATTENDANT if on_ray else None,
    )
    # The waiting pod has nothing to retry: the Ray cluster retries.
    workers, tries = (1, 0) if on_ray else (batch.workers, batch.backoff_limit)
    return {
        "completionMode": "Indexed",
        "completions": workers,
        "parallelism": workers,
        "backoffLimitPerIndex": tries,
        "successPolicy": {"rules": [{"succeededCount": 1}]},
        "podFailurePolicy": worker.failure_policy(CONTAINER),
        "activeDeadlineSeconds": batch.active_deadline_seconds,
        "template": {
            "metadata": who.pod_meta(),
            "spec": worker.pod(who, container, mounts, restart_policy="Never") | _priority(batch),
        },
    }


def _queue(batch: Batch) -> Json:
    # Under Ray, Kueue admits the cluster instead of the Job.
    if batch.queue_name is None or batch.engine == "Ray":
        return {}
    return {parts.QUEUE_LABEL: batch.queue_name}


def _priority(batch: Batch) -> Json:
    return {"priorityClassName": batch.priority_class_name} if batch.priority_class_name else {}


def _secrets(deployment: ModelDeployment, batch: Batch) -> list[SecretReference | None]:
    files, table = _files(batch), batch.sink and batch.sink.table
    return [
        batch.source.credentials,
        batch.source.query.database if batch.source.query else None,
        *worker.truth(deployment)[1],
        files.credentials if files else None,
        table.database if table else None,
    ]


def _read(deployment: ModelDeployment, batch: Batch) -> list[str]:
    records = [batch.source.uri] if batch.source.uri else []
    return [*worker.model_uris(deployment), *records, *worker.truth(deployment)[0]]


def _written(batch: Batch) -> list[str]:
    files = _files(batch)
    return [files.uri] if files else []


def _files(batch: Batch) -> FileSink | None:
    return batch.sink.files if batch.sink else None
