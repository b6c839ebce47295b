"""The Ray side of batch: a KubeRay RayJob beside each Job in progress.

A run is a Job with either engine. Under Ray the Job's pod only waits for the state of the run in
the store. While the Job is in progress there is a RayJob, whose cluster scores the rows and is
deleted at the end. Neither can be changed once created, so a run keeps the settings that it started
with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fourways_api import ModelDeployment, Resources, worker_memory, worker_threads
from fourways_api.runtime_config import RUN_VARIABLE

from ..facts import Json, OperatorSettings
from . import parts, worker

if TYPE_CHECKING:
    from fourways_api.modes import Batch

ATTENDANT = Resources(cpu="250m", memory="512Mi")
"""Resources of the Job's own pod, which waits."""

_HEAD, _HEAD_IDLE = Resources(cpu="1", memory="2Gi"), Resources(cpu="250m", memory="2Gi")
"""Resources of the pod with Ray's own services and the driver, which holds no model or rows."""

_RAY_MIB = 1024
"""Memory of Ray itself in each worker's pod: its processes and its object store."""

_OBJECT_STORE_BYTES = 100 * 2**20
"""Only chunk numbers pass through it."""

_RAY_VERSION = "2.60.0"
"""KubeRay derives Ray's features from it; an image may have any version from 2.53."""

_AGENT_PORT, _DASHBOARD_PORT = 52365, 8265
_KUBERAY = {"app.kubernetes.io/component": "kuberay-operator"}
_LONGEST_NAME = 47


def plan(
    deployment: ModelDeployment,
    batch: Batch,
    settings: OperatorSettings,
    environment: Json,
    mounts: parts.Mounts,
    jobs: Sequence[Json],
) -> tuple[Json, ...]:
    """Return RayJob and NetworkPolicy of each of these Jobs.

    ``environment`` is the variable with the workers' configuration, and ``mounts`` has their
    volumes.
    """
    mounts.scratch("ray", "/tmp/ray", "2Gi")  # noqa: S108  (the pod's own)
    who = worker.Identity(deployment, "batch")
    objects: list[Json] = []
    for job in jobs:
        name = job["metadata"]["name"]
        labels = {**who.pod_labels, parts.RUN_LABEL: name}
        env = [environment, {"name": RUN_VARIABLE, "value": run_name(job)}]
        meta = who.meta(_name_of(name))
        meta["labels"] |= {parts.RUN_LABEL: name}
        objects.append(_policy(meta, labels))
        if batch.queue_name:
            meta = {**meta, "labels": {**meta["labels"], parts.QUEUE_LABEL: batch.queue_name}}
        # Taken from the Job, since `fourways start-run --priority` may have changed it.
        priority = _pod_of(job).get("priorityClassName")
        pods = _Pods(deployment, settings, who, labels, env, mounts, priority)
        objects.append(_ray_job(meta, batch, pods))
    return tuple(objects)


def run_name(job: Json) -> str:
    """Return the run that a Job works on: one that it resumes, or its own."""
    containers = _pod_of(job).get("containers") or []
    values = (v for c in containers for v in c.get("env") or [] if v["name"] == RUN_VARIABLE)
    resumed = next((v.get("value") for v in values), None)
    return str(resumed or job["metadata"]["name"])


def _pod_of(job: Json) -> Json:
    template = (job.get("spec") or {}).get("template") or {}
    return template.get("spec") or {}


def _name_of(job: str) -> str:
    """Return the name of a Job's RayJob: the Job's own if KubeRay accepts it."""
    if len(job) <= _LONGEST_NAME and job[0].isalpha() and "." not in job:
        return job
    return f"run-{hashlib.sha256(job.encode()).hexdigest()[:32]}"


def _ray_job(meta: Json, batch: Batch, pods: _Pods) -> Json:
    head = {"num-cpus": "0", "dashboard-host": "0.0.0.0"}  # noqa: S104  (behind the policy)
    store = {"object-store-memory": str(_OBJECT_STORE_BYTES)}
    threads = worker_threads(pods.deployment.spec.resources)
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": meta,
        "spec": {
            "submissionMode": "HTTPMode",
            "entrypoint": "python -m fourways_runtime batch",
            "shutdownAfterJobFinishes": True,
            "backoffLimit": batch.backoff_limit,
            "activeDeadlineSeconds": batch.active_deadline_seconds,
            "rayClusterSpec": {
                "rayVersion": _RAY_VERSION,
                # Without a token, anyone with network access to the cluster could run code in it.
                "authOptions": {"mode": "token"},
                "headGroupSpec": {
                    "rayStartParams": {**head, **store},
                    "template": pods.template("ray-head", _HEAD, _HEAD_IDLE),
                },
                "workerGroupSpecs": [
                    {
                        "groupName": "workers",
                        "replicas": batch.workers,
                        "minReplicas": batch.workers,
                        "maxReplicas": batch.workers,
                        "rayStartParams": {"num-cpus": str(threads), **store},
                        "template": pods.template("ray-worker", pods.worker_resources()),
                    }
                ],
            },
        },
    }


class _Pods:
    """Builds the pods of one run's cluster."""

    def __init__(
        self,
        deployment: ModelDeployment,
        settings: OperatorSettings,
        who: worker.Identity,
        labels: Json,
        env: list[Json],
        mounts: parts.Mounts,
        priority: str | None,
    ) -> None:
        self._priority = {"priorityClassName": priority} if priority else {}
        self.deployment = deployment
        self._settings = settings
        self._who = who
        self._labels = labels
        self._env = env
        self._mounts = mounts

    def worker_resources(self) -> Resources:
        """Return the resources of a worker's pod: those of the spec plus Ray's own."""
        own = self.deployment.spec.resources
        mib = -(-worker_memory(own) // 2**20) + _RAY_MIB
        return own.model_copy(update={"memory": f"{mib}Mi"})

    def template(self, name: str, resources: Resources, idle: Resources | None = None) -> Json:
        """Return a group's pod template: KubeRay makes it start Ray, not the image's program."""
        container = parts.container(
            name=name,
            image=self.deployment.spec.image or self._settings.ray_image,
            settings=self._settings,
            args=[],
            env=[*worker.variables_of(self.deployment), *self._env],
            resources=resources,
            idle=idle,
            mounts=self._mounts.mounts,
        )
        probe = {
            "httpGet": {"path": "/api/healthz", "port": _AGENT_PORT},
            "periodSeconds": 5,
            # Ray's agent responds late on a busy node, and a stopped pod loses its chunk.
            "timeoutSeconds": 10,
            "failureThreshold": 24,
        }
        container |= {"readinessProbe": probe, "livenessProbe": probe}
        pod = worker.pod(self._who, container, self._mounts, restart_policy="Never")
        meta = {"labels": self._labels, **self._who.pod_annotations}
        return {"metadata": meta, "spec": pod | self._priority}


def _policy(meta: Json, labels: Json) -> Json:
    """Return the additional policy of a run's pods: they may connect to one another."""
    run = {"podSelector": {"matchLabels": labels}}
    dashboard = [{"protocol": "TCP", "port": _DASHBOARD_PORT}]
    kuberay = {"namespaceSelector": {}, "podSelector": {"matchLabels": _KUBERAY}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": meta,
        "spec": {
            **run,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [run]}, {"from": [kuberay], "ports": dashboard}],
            "egress": [{"to": [run]}],
        },
    }
