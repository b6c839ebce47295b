"""fourways doctor on a real cluster."""

from __future__ import annotations

import json

import pytest

from tests.kit.cluster.modes_rig import NAMESPACE, Plant

pytestmark = pytest.mark.cluster


def test_it_sees_the_installation(planted: Plant) -> None:
    found = {each["about"]: each for each in json.loads(planted.fourways("doctor", "-o", "json"))}
    assert found["Kubernetes"]["level"] == "ok"
    assert found["custom resource"]["says"].endswith("of this version")
    assert found["operator"]["level"] == "ok"
    assert found[f"namespace {NAMESPACE}"]["level"] == "ok"
    assert "KEDA" in found
