"""Answers to requests are compared with labels that come later, on a cluster.

tests/embedded/test_quality_realtime.py holds the same of both stores and of `fourways up`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tests.kit.cluster.modes_rig import NAMESPACE, Plant, example
from tests.kit.waiting import until
from tools.demo.questions import SHOP_SECRET, tensor

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(400)]

NAME = "came-back"
KEYS = [f"shopper-{at}" for at in range(40)]
QUALITY = {
    "truth": {
        "query": {
            "database": {"secretName": SHOP_SECRET},
            "sql": "SELECT customer_id, came_back, at FROM came_back",
        }
    },
    "label": "came_back",
    "time": "at",
    "output": "come_back_probability",
    "metrics": ["MAE"],
    "interval": "2s",
}


def asked(plant: Plant) -> float:
    """Ask for all keys in one request; return the answer, which is the same for all."""
    count = len(KEYS)
    inputs = [
        tensor("customer_id", "BYTES", KEYS),
        tensor("basket_dollars", "FP32", [24.5] * count),
        tensor("basket_discs", "INT32", [2] * count),
    ]
    with plant.gateway() as url:
        answer = httpx.post(
            f"{url}/v2/models/{NAME}/infer", json={"inputs": inputs}, trust_env=False, timeout=30
        )
    assert answer.status_code == 200, answer.text
    (value,) = set(answer.json()["outputs"][0]["data"])
    return float(value)


def quality(plant: Plant) -> dict[str, Any]:
    found: dict[str, Any] = plant.deployment(NAME)["status"].get("quality", {})
    return found


def test_answers_are_compared_with_labels_that_come_later(modes: Plant) -> None:
    modes.cluster.sql(
        NAMESPACE,
        "DROP TABLE IF EXISTS came_back;"
        "CREATE TABLE came_back (customer_id text, came_back double precision, at timestamptz);",
    )
    with modes.deployed(example("come-back.yaml", NAME, quality=QUALITY)):
        modes.ready(NAME, 180)
        value = asked(modes)
        rows = ", ".join(f"('{key}', {value + 0.25!r}, now() + interval '3s')" for key in KEYS)
        modes.cluster.sql(NAMESPACE, " ".join(("INSERT INTO came_back VALUES", rows, ";")))
        until(
            lambda: quality(modes).get("labels") == len(KEYS),
            lambda: f"all labels are compared: {modes.deployment(NAME)['status']}",
            seconds=120,
        )
        found = quality(modes)
        assert found["metrics"] == [{"name": "MAE", "value": pytest.approx(0.25, abs=1e-3)}]
        assert found["output"] == "come_back_probability"
        assert datetime.fromisoformat(found["measuredAt"]) <= datetime.now(UTC)
        # No key of a customer leaves the store.
        assert "shopper-" not in str(modes.deployment(NAME))
