"""A container that is slow to start is left alone: liveness counts after two minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourways_operator.plan.everywhere import pods_of
from tests.kit.yaml_files import load_every_yaml

GOLDEN = Path(__file__).parents[1] / "golden" / "plan"
PATIENCE = 120


@pytest.mark.parametrize("mode", ["realtime", "streaming", "edge", "realtime-quality"])
def test_what_serves_has_minutes_to_start(mode: str) -> None:
    objects = load_every_yaml((GOLDEN / f"{mode}.out.yaml").read_text("utf-8"))
    pods = [pod for each in objects for pod in pods_of(each)]
    probed = [c for pod in pods for c in pod["containers"] if "livenessProbe" in c]
    assert probed
    for container in probed:
        assert container["livenessProbe"]["initialDelaySeconds"] >= PATIENCE
        assert "startupProbe" not in container, "it would hold up readiness, and so each wake"
