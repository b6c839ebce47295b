"""A cluster that gets KServe only later: what is said until then, and that nobody has to ask again.

Before the tests of the modes by its name: their cluster has KServe from then on.
"""

from __future__ import annotations

import pytest

from tests.kit.cluster.modes_rig import Plant, example

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

KIND = "crd/inferenceservices.serving.kserve.io"


def has_kserve(plant: Plant) -> bool:
    return bool(plant.cluster.kubectl("get", KIND, "--ignore-not-found", "-o", "name"))


def test_without_kserve_it_is_said_how_to_install_it_and_then_all_goes_on(planted: Plant) -> None:
    if has_kserve(planted):
        pytest.skip("this cluster has KServe already")
    with planted.deployed(example("come-back.yaml")) as timeline:
        planted.said("come-back", "Ready", status="False", reason="KServeMissing")
        timeline.mark("KServeMissing said after")
        assert "install KServe" in planted.message("come-back", "Ready")
        if not planted.cluster.install_kserve():
            pytest.skip("a cluster that was given is not changed")
        timeline.mark("KServe installed")
        planted.ready("come-back")
        timeline.mark("Ready")
    timeline.tell()
