"""Answers end with their deployment, and one made anew under its name starts with nothing."""

from __future__ import annotations

import httpx
import pytest

from tests.kit.cluster.batch_rig import ended
from tests.kit.cluster.modes_rig import NAMESPACE, Plant
from tests.kit.waiting import until
from tools.torture.cluster import document

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

NAME = "made-anew"
"""Of this test alone: the store retains what deployments of other tests have left."""


def _status_of(url: str) -> int:
    return httpx.get(f"{url}/v2/models/{NAME}", trust_env=False).status_code


def test_a_deployment_made_anew_does_not_answer_the_old_one_s_predictions(tortured: Plant) -> None:
    made = document(NAME)
    made["spec"]["deletionPolicy"] = "Delete"
    with tortured.deployed(made):
        run = tortured.fourways("start-run", NAME).split()[1]
        assert ended(tortured, run, NAME)["outcome"] == "Succeeded"
        with tortured.gateway() as url:
            until(lambda: _status_of(url) == 200, "the run is answered", seconds=30)
        tortured.delete(NAME)
        tortured.apply(made)
        with tortured.gateway() as url:
            until(lambda: _status_of(url) == 404, "the old run is not answered", seconds=60)
        until(
            lambda: "nothing of deleted" in tortured.fourways("purge", f"{NAMESPACE}/{NAME}"),
            "the old deployment's data is removed",
            seconds=120,
        )
