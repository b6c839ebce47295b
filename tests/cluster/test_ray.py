"""A batch run on a Ray cluster that KubeRay makes: the same answers, and nothing left."""

from __future__ import annotations

import pytest

from fourways_operator.facts import Json
from tests.kit import parity
from tests.kit.cluster.modes_rig import NAMESPACE, Plant, changed
from tests.kit.cluster.parity_run import NAME, ask_batch, document, run
from tests.kit.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600), pytest.mark.usefixtures("kuberay")]

RAY_JOBS = f"/apis/ray.io/v1/namespaces/{NAMESPACE}/rayjobs"


def on_ray() -> Json:
    made = changed(document("batch"), "batch.engine", "Ray")
    return changed(made, "resources", {"cpu": "500m", "memory": "512Mi"})


def test_a_run_on_a_ray_cluster_answers_as_ever_and_leaves_nothing(planted: Plant) -> None:
    with planted.deployed(on_ray()) as timeline:
        run(planted)
        (ray_job,) = until(lambda: planted.get(RAY_JOBS)["items"], "a RayJob is there", seconds=60)
        timeline.mark("RayJob")
        assert ray_job["metadata"]["labels"]["fourways.dev/run"] == f"{NAME}-run-0"
        status = planted.ready(NAME, 400)
        timeline.mark("published")
        assert status["lastPublished"]["rows"] > 0
        assert parity.disagreements(ask_batch(planted)) == []
        until(lambda: not planted.get(RAY_JOBS)["items"], "the RayJob is gone", seconds=90)
        until(lambda: not clusters(planted), "the Ray cluster is gone", seconds=90)
        timeline.mark("all gone")
    timeline.tell()


def clusters(plant: Plant) -> list[Json]:
    selector = "labelSelector=fourways.dev/run"
    pods: list[Json] = plant.get(f"/api/v1/namespaces/{NAMESPACE}/pods?{selector}")["items"]
    return pods
