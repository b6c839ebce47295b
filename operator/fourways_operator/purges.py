"""Start the Jobs that remove data after a deletion when it is time; delete those not wanted.

They have no owner, so that they outlive their deployment. Like every reconcile this compares the
complete state: it never relies on having seen the deletion.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fourways_api import ModelDeployment

from .cluster import Cluster
from .converge import is_going
from .errors import DependencyNotReady, ObjectFault, OperatorError
from .facts import Json, OperatorSettings
from .kinds import JOB
from .plan import parts, purge

logger = logging.getLogger(__name__)


PURGES = {parts.MANAGED_BY: parts.MANAGER, purge.PURGE_LABEL: "true"}
"""Labels of all purges."""


def is_purge(obj: Json) -> bool:
    """Tell whether an object is a Job that removes data."""
    return JOB.of(obj) and purge.PURGE_LABEL in (obj["metadata"].get("labels") or {})


async def settle(
    cluster: Cluster,
    settings: OperatorSettings,
    there: Sequence[Json],
    deployment: ModelDeployment | None,
) -> list[OperatorError]:
    """Start or delete purges of a deployment's name; return what failed.

    ``there`` are those in the cluster. Without a deployment, all of them start. The one that the
    deployment plans is created with its other objects.
    """
    wanted = purge.plan(deployment, settings) if deployment else None
    name = wanted["metadata"]["name"] if wanted else None
    current = deployment.metadata.data_uid if deployment else None
    faults: list[OperatorError] = []
    for job in there:
        if is_going(job) or not job["spec"].get("suspend"):
            continue
        uid = (job["metadata"].get("annotations") or {}).get(purge.UID_ANNOTATION)
        try:
            if uid != current:
                logger.info("%s: starting it", _described(job))
                await cluster.apply(_resumed(job), job["metadata"]["uid"])
            elif job["metadata"]["name"] != name:
                logger.info("%s: deleting it", _described(job))
                await cluster.delete(job)
        except (ObjectFault, DependencyNotReady) as fault:
            faults.append(fault)
    return faults


def _resumed(job: Json) -> Json:
    meta = job["metadata"]
    kept = ("name", "namespace", "labels", "annotations")
    return {
        "apiVersion": job["apiVersion"],
        "kind": job["kind"],
        "metadata": {key: meta[key] for key in kept if key in meta},
        # All of it, because an apply without a field would remove that field.
        "spec": {**job["spec"], "suspend": False},
    }


def _described(job: Json) -> str:
    return f"{job['metadata']['namespace']}/{job['kind']}/{job['metadata']['name']}"
