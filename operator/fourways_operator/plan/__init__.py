"""From a valid ModelDeployment to the objects the cluster should have. Pure, one file a mode.

No clock, no client, no event loop: the operator, ``fourways plan`` and the embedded host all get
the same objects from the same spec. Objects carry intent only: no uid of their own, no defaults
the server fills in.
"""

from __future__ import annotations

from collections.abc import Sequence

from fourways_api import ModelDeployment

from ..facts import Json, Kind, OperatorSettings
from . import batch, edge, gateway, realtime, streaming
from .parts import COMPONENT_LABEL, DEPLOYMENT_LABEL, GATEWAY, MANAGED_BY, MANAGER, MODE_LABEL
from .routes import NOTHING_YET, Observed, observed_of

CRON_JOB = Kind("batch/v1", "CronJob", "cronjobs")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
JOB = Kind("batch/v1", "Job", "jobs")
INFERENCE_SERVICE = Kind("serving.kserve.io/v1beta1", "InferenceService", "inferenceservices")
RAY_JOB = Kind("ray.io/v1", "RayJob", "rayjobs")
POD = Kind("v1", "Pod", "pods")

KINDS: tuple[Kind, ...] = (
    CRON_JOB,
    DEPLOYMENT,
    INFERENCE_SERVICE,
    JOB,
    RAY_JOB,
    Kind("v1", "Service", "services"),
    Kind("v1", "ServiceAccount", "serviceaccounts"),
    Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
    Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
)
"""Every kind a plan may hold: what is applied, compared, pruned and granted."""

OBSERVED: tuple[Kind, ...] = (POD,)
"""Kinds that the planned objects make by themselves: read for status, never written."""


def plan(
    deployment: ModelDeployment, settings: OperatorSettings, pinned_digest: str | None = None
) -> tuple[Json, ...]:
    """Return the objects a deployment should have, its owner reference on each.

    ``pinned_digest`` is the digest of a model trusted on first use.

    Raises:
        Contradiction: the spec comes to no mode (``check`` says so before).

    """
    match deployment.spec.choice().mode:
        case "batch":
            return batch.plan(deployment, settings, pinned_digest)
        case "realtime":
            return realtime.plan(deployment, settings, pinned_digest)
        case "streaming":
            return streaming.plan(deployment, settings, pinned_digest)
        case "edge":
            return edge.plan(deployment, settings, pinned_digest)


def plan_runs(
    deployment: ModelDeployment,
    settings: OperatorSettings,
    pinned_digest: str | None,
    jobs: Sequence[Json],
) -> tuple[Json, ...]:
    """Return what batch runs under way need beside their Jobs, ``jobs``."""
    if deployment.spec.choice().mode != "batch":
        return ()
    return batch.plan_runs(deployment, settings, pinned_digest, jobs)


def later_kinds(deployment: ModelDeployment) -> tuple[Kind, ...]:
    """Return the kinds that a deployment's runs will need, and its plan does not hold."""
    block = deployment.spec.batch
    on_ray = block is not None and block.engine == "Ray"
    return (RAY_JOB,) if on_ray and deployment.spec.choice().mode == "batch" else ()


def plan_gateway(
    namespace: str,
    owners: Sequence[Json],
    settings: OperatorSettings,
    observed: Observed = NOTHING_YET,
) -> tuple[Json, ...]:
    """Return the objects of a namespace's gateway; none where nobody owns it."""
    return gateway.plan(namespace, owners, settings, observed) if owners else ()


__all__ = [
    "COMPONENT_LABEL",
    "CRON_JOB",
    "DEPLOYMENT",
    "DEPLOYMENT_LABEL",
    "GATEWAY",
    "INFERENCE_SERVICE",
    "JOB",
    "KINDS",
    "MANAGED_BY",
    "MANAGER",
    "MODE_LABEL",
    "NOTHING_YET",
    "OBSERVED",
    "POD",
    "RAY_JOB",
    "Observed",
    "later_kinds",
    "observed_of",
    "plan",
    "plan_gateway",
    "plan_runs",
]
