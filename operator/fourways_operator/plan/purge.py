"""The Job that removes a deleted deployment's data from the prediction store.

A deployment with ``deletionPolicy: Delete`` has one that is suspended and has no owner, so that it
outlives the deployment. The operator resumes it when the deployment is gone. No finalizer is
needed, and an operator that was away at the deletion finds the Job later. It is also what
``fourways purge`` creates.
"""

from __future__ import annotations

from hashlib import sha256

from fourways_api import ModelDeployment, PurgeConfig, Resources

from ..facts import Json, OperatorSettings
from . import parts, worker

PURGE_LABEL = "fourways.dev/purge"
"""Label of a Job that removes data. It is not a run."""

UID_ANNOTATION = "fourways.dev/uid"
"""Annotation of a purge: the uid whose data it removes once no deployment of the name has it."""

CONTAINER = "purge"
RESOURCES = Resources(cpu="100m", memory="256Mi")
TRIES = 20
"""Number of retries, at most six minutes apart: the store may be down for an hour."""

KEPT_SECONDS = 3600
"""How long a finished purge can be looked at."""


def plan(deployment: ModelDeployment, settings: OperatorSettings) -> Json | None:
    """Return the Job that waits for the deletion; None if the data is retained."""
    meta = deployment.metadata
    if deployment.spec.deletion_policy != "Delete":
        return None
    config = PurgeConfig(namespace=meta.namespace, name=meta.name, uids=(meta.data_uid,))
    planned = job(config, settings.runtime_image, settings)
    identity = "\0".join((settings.runtime_image, worker.variable(config)["value"]))
    planned["metadata"] |= {
        "name": f"{meta.name}-purge-{sha256(identity.encode()).hexdigest()[:8]}",
        "annotations": {UID_ANNOTATION: meta.data_uid},
    }
    planned["spec"]["suspend"] = True
    return planned


def job(config: PurgeConfig, image: str, settings: OperatorSettings) -> Json:
    """Return a Job, without a name, that lists or removes what the configuration says."""
    mounts = parts.Mounts()
    mounts.store(settings)
    mounts.scratch("tmp", "/tmp", "64Mi")  # noqa: S108  (the pod's own)
    container = parts.container(
        name=CONTAINER,
        image=image,
        settings=settings,
        args=["purge"],
        env=[worker.variable(config)],
        resources=RESOURCES,
        mounts=mounts.mounts,
    )
    labels = {parts.DEPLOYMENT_LABEL: config.name, PURGE_LABEL: "true"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": parts.metadata(config.namespace, "", labels, []),
        "spec": {
            "backoffLimit": TRIES,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "podFailurePolicy": worker.failure_policy(CONTAINER),
            "template": {
                "metadata": {"labels": {parts.MANAGED_BY: parts.MANAGER, **labels}},
                "spec": parts.pod_spec(
                    # Its own ServiceAccount would go with the deployment. No token is mounted.
                    service_account_name="default",
                    container=container,
                    volumes=mounts.volumes,
                    restart_policy="Never",
                ),
            },
        },
    }
