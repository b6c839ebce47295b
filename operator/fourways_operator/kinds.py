"""The kinds of objects that the operator plans, and the kinds that it only reads."""

from __future__ import annotations

from .facts import Kind

CRON_JOB = Kind("batch/v1", "CronJob", "cronjobs")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
JOB = Kind("batch/v1", "Job", "jobs")
INFERENCE_SERVICE = Kind("serving.kserve.io/v1beta1", "InferenceService", "inferenceservices")
RAY_JOB = Kind("ray.io/v1", "RayJob", "rayjobs")
SCALED_OBJECT = Kind("keda.sh/v1alpha1", "ScaledObject", "scaledobjects")
"""KServe makes it for KEDA: only whether the cluster knows the kind matters here."""

POD = Kind("v1", "Pod", "pods")
EVENT = Kind("v1", "Event", "events")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")

SERVICE_ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts")
NETWORK_POLICY = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")

KINDS: tuple[Kind, ...] = (
    CRON_JOB,
    DEPLOYMENT,
    INFERENCE_SERVICE,
    JOB,
    RAY_JOB,
    Kind("v1", "Service", "services"),
    SERVICE_ACCOUNT,
    NETWORK_POLICY,
    Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
)
"""Every kind that a plan may contain. They are applied, compared, pruned and granted."""

GUARDS: tuple[Kind, ...] = (SERVICE_ACCOUNT, NETWORK_POLICY)
"""Kinds that limit what a workload's pods may do: whose name they run under, and where they go."""

OBSERVED: tuple[Kind, ...] = (POD,)
"""Kinds that controllers create for planned objects: read for status, never written."""
