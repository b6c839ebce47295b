"""fourways doctor on a real cluster."""

from __future__ import annotations

import json

import pytest

from tests.kit.cluster.modes_rig import NAMESPACE, Plant

pytestmark = pytest.mark.cluster


def test_it_sees_the_installation(planted: Plant) -> None:
    with planted.gateway():  # it may have come with the test before, and be starting
        said = planted.fourways("doctor", "-o", "json")
    found = {each["about"]: each for each in json.loads(said)}
    assert found["Kubernetes"]["level"] == "ok"
    assert found["custom resource"]["says"].endswith("of this version")
    assert found["operator"]["level"] == "ok"
    assert found[f"namespace {NAMESPACE}"]["level"] == "ok"
    assert "KEDA" in found
