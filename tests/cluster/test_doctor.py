"""fourways doctor on a real cluster."""

from __future__ import annotations

import json

import pytest

from tests.kit.cluster.modes_rig import NAMESPACE, Plant

pytestmark = pytest.mark.cluster


def test_it_sees_the_installation(planted: Plant) -> None:
    said = json.loads(planted.fourways("doctor", "-o", "json"))
    found = {each["about"]: each for each in said}
    assert found["Kubernetes"]["level"] == "ok"
    assert found["clock"]["level"] == "ok"
    assert found["custom resource"]["says"].endswith("of this version")
    assert found["operator"]["level"] == "ok"
    # A gateway may have come with the test before, and be starting: that is a note.
    assert found[f"namespace {NAMESPACE}"]["level"] in ("ok", "note")
    assert "KEDA" in found
