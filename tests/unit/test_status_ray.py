"""What is said of runs that a Ray cluster carries out: by the Job, its RayJob and their pods."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from fourways_operator.facts import Facts
from fourways_operator.status import requeue_after
from tests.kit.status_facts import GOOD_RUN, conditions, deployment, facts, job, pod

SPEC = {"schedule": "0 3 * * *", "engine": "Ray", "source": {"uri": "pvc://t/rows.parquet"}}
RAY = deployment(batch=SPEC)
AT = "2026-03-02T03:00:00Z"
LABELS = {"fourways.dev/run": "m-2"}


def seen(ray_job_status: dict | None, *pods: dict, seconds: int = 5, **more: Any) -> Facts:
    """A run m-2 at work, and its RayJob."""
    meta = {"name": "m-2", "labels": LABELS, "creationTimestamp": AT}
    ray_job = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": meta}
    if ray_job_status is not None:
        ray_job["status"] = ray_job_status
    return replace(
        facts(raw=RAY),
        children=(
            job("m-2", AT, None, ""),
            ray_job,
        ),
        pods=pods,
        now=datetime(2026, 3, 2, 3, 0, seconds, tzinfo=UTC),
        **more,
    )


def of_cluster(state: dict, **meta: Any) -> dict:
    made = pod("m-2", state)
    labels = {k: v for k, v in made["metadata"]["labels"].items() if "job-name" not in k}
    return {**made, "metadata": {**made["metadata"], "labels": labels | LABELS} | meta}


OUT_OF_MEMORY = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}


def test_a_run_at_work_under_ray_is_in_progress() -> None:
    said = conditions(seen({"jobDeploymentStatus": "Running"}))
    assert said["Ready"]["reason"] == "FirstRunInProgress"
    assert said["Progressing"]["reason"] == "RunInProgress"
    assert said["Degraded"]["status"] == "False"


def test_without_kuberay_a_condition_says_how_to_go_on() -> None:
    said = conditions(replace(facts(raw=RAY), missing=("RayJob",)))
    assert said["Ready"]["reason"] == said["Degraded"]["reason"] == "KubeRayMissing"
    assert "install KubeRay" in said["Ready"]["message"]
    assert "set batch.engine to Jobs" in said["Ready"]["message"]


def test_what_was_published_serves_on_without_kuberay() -> None:
    said = conditions(replace(facts(GOOD_RUN, raw=RAY), missing=("RayJob",)))
    assert said["Ready"]["status"] == "True"
    assert said["Degraded"]["reason"] == "KubeRayMissing"


def test_an_operator_that_is_silent_is_told_after_a_while() -> None:
    begun = seen(None, seconds=5)
    assert conditions(begun)["Ready"]["reason"] == "FirstRunInProgress"
    assert requeue_after(seen(None, seconds=12)) == 19.0
    said = conditions(seen(None, seconds=31))
    assert said["Ready"]["reason"] == said["Degraded"]["reason"] == "KubeRaySilent"


def test_a_ray_job_that_failed_is_told_while_the_job_still_waits() -> None:
    told = {"jobDeploymentStatus": "Failed", "reason": "AppFailed", "message": "exit code 75"}
    said = conditions(seen(told))
    assert said["Degraded"]["reason"] == "AppFailed"
    assert said["Degraded"]["message"] == "RayJob m-2: exit code 75"


def test_trouble_of_a_pod_of_the_cluster_is_trouble_of_the_run() -> None:
    said = conditions(seen({"jobDeploymentStatus": "Running"}, of_cluster(OUT_OF_MEMORY)))
    assert said["Degraded"]["reason"] == "OOMKilled"
    going = of_cluster(OUT_OF_MEMORY, deletionTimestamp=AT)
    said = conditions(seen({"jobDeploymentStatus": "Running"}, going))
    assert said["Degraded"]["status"] == "False"
