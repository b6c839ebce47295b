"""From a valid ModelDeployment to the objects the cluster should have. Pure, one file a mode.

No clock, no client, no event loop: the operator, ``fourways plan`` and the embedded host all get
the same objects from the same spec. Objects carry intent only: no uid of their own, no defaults
the server fills in.
"""

from __future__ import annotations

from collections.abc import Sequence

from fourways_api import ModelDeployment

from ..facts import Json, Kind, Settings
from . import batch, gateway
from .parts import COMPONENT_LABEL, DEPLOYMENT_LABEL, GATEWAY, MANAGED_BY, MANAGER

CRON_JOB = Kind("batch/v1", "CronJob", "cronjobs")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
JOB = Kind("batch/v1", "Job", "jobs")
POD = Kind("v1", "Pod", "pods")

KINDS: tuple[Kind, ...] = (
    CRON_JOB,
    DEPLOYMENT,
    Kind("v1", "Service", "services"),
    Kind("v1", "ServiceAccount", "serviceaccounts"),
    Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
    Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
)
"""Every kind a plan may hold: what is applied, compared, pruned and granted."""

OBSERVED: tuple[Kind, ...] = (JOB, POD)
"""Kinds that the planned objects make by themselves: read for status, never written."""

AVAILABLE_MODES = frozenset({"batch"})


def plan(
    deployment: ModelDeployment, settings: Settings, pinned_digest: str | None = None
) -> tuple[Json, ...]:
    """Return the objects a deployment should have, its owner reference on each.

    ``pinned_digest`` is the digest of a model trusted on first use. A mode that is not available
    has no objects.

    Raises:
        Contradiction: the spec comes to no mode (``check`` says so before).

    """
    match deployment.spec.choice().mode:
        case "batch":
            return batch.plan(deployment, settings, pinned_digest)
        case _:
            return ()


def plan_gateway(namespace: str, owners: Sequence[Json], settings: Settings) -> tuple[Json, ...]:
    """Return the objects of a namespace's gateway; none where nobody owns it."""
    return gateway.plan(namespace, owners, settings) if owners else ()


__all__ = [
    "AVAILABLE_MODES", "COMPONENT_LABEL", "CRON_JOB", "DEPLOYMENT", "DEPLOYMENT_LABEL", "GATEWAY",
    "JOB", "KINDS", "MANAGED_BY", "MANAGER", "OBSERVED", "POD", "plan", "plan_gateway",
]  # fmt: skip
