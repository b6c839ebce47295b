"""Scaling to zero on a cluster: KServe's own controller, our operator, requests that wait."""

from __future__ import annotations

import statistics
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from fourways_operator.facts import Json
from tests.kit import parity
from tests.kit.cluster.modes_rig import NAMESPACE, Plant, changed
from tests.kit.cluster.told import tell
from tests.kit.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

NAME = "seldom"
CALLERS, WAKES = 20, 2


def seldom(most: int) -> Json:
    """Return a deployment that sleeps after three seconds."""
    document = changed(
        parity.documents()["realtime"],
        "realtime",
        {"minReplicas": 0, "maxReplicas": most, "scaleToZeroAfter": "3s", "wakeTimeout": "60s"},
    )
    return {**document, "metadata": {"name": NAME}}


def ask(url: str) -> httpx.Response:
    return httpx.get(f"{url}/v2/models/{NAME}", timeout=90, trust_env=False)


def await_sleep(plant: Plant) -> Json:
    status = plant.said(NAME, "Ready", 120, status="True", reason="Asleep")
    until(lambda: not plant.pods(NAME), "its last pod is gone", seconds=60)
    return status


@pytest.mark.parametrize("most", [1, 2], ids=["alone", "autoscaled"])
def test_it_sleeps_and_one_replica_starts_for_all_who_ask(modes: Plant, most: int) -> None:
    with modes.deployed(seldom(most)) as timeline:
        await_sleep(modes)
        timeline.mark("asleep")
        with modes.gateway() as url, ThreadPoolExecutor(CALLERS) as pool:
            answers = list(pool.map(lambda _: ask(url), range(CALLERS)))
            assert [a.status_code for a in answers] == [200] * CALLERS, answers[0].text
            assert answers[0].json()["name"] == NAME
            timeline.mark("answered")
            assert len(modes.pods(NAME)) == 1
            seconds = []
            for _ in range(WAKES if most == 1 else 1):
                seconds.append(await_sleep(modes)["coldStart"]["seconds"])
                assert ask(url).status_code == 200
        told = ", ".join(f"{s:.2f}" for s in seconds)
        tell(f"wake from zero, from request to ready: {statistics.median(seconds):.2f} s ({told})")
        path = f"/apis/serving.kserve.io/v1beta1/namespaces/{NAMESPACE}/inferenceservices"
        (service,) = [
            item
            for item in modes.get(path)["items"]
            if item["metadata"]["name"] == f"{NAME}-realtime"
        ]
        assert service["spec"]["predictor"]["minReplicas"] == 0
    timeline.tell()


def test_a_model_that_does_not_work_is_named_and_never_sleeps(modes: Plant) -> None:
    document = changed(seldom(1), "model.digest", "sha256:" + "0" * 64)
    with modes.deployed(document):
        modes.said(NAME, "Ready", 90, status="False", reason="DigestMismatch")
