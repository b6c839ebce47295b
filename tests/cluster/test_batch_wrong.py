"""What may be wrong with a batch run on a cluster: named by a condition, and survived."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.kit.cluster.batch_rig import (
    ENOUGH,
    compared,
    ended,
    full_store,
    last_run,
    outcomes,
    records,
    slow_store,
)
from tests.kit.cluster.modes_rig import NAMESPACE, Plant, Timeline
from tests.kit.waiting import until
from tools.installation import idle_pod
from tools.torture import cluster as rig
from tools.torture.cluster import DATABASE, document

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

CLAIM = f"pvc://{rig.CLAIM}"
FEW_FILES = f"{CLAIM}/rows/0*.parquet"
WITHIN = 60.0
"""Seconds within which what is wrong is said: a pod is started for it, beside two others."""

WRONG = {
    "column": ("wrong/drifted.parquet", "SourceError", "spend"),
    "rows": ("wrong/poisoned.parquet", "TooManyRejects", "10%"),
    "file": ("wrong/no-such.parquet", "SourceError", "no-such.parquet"),
}


@pytest.fixture(scope="module")
def wrongs(tortured: Plant) -> Iterator[dict[str, Timeline]]:
    """Each of what may be wrong, and a run of it: all at once."""
    with ExitStack() as stack:
        found = {}
        for wrong, (path, *_) in WRONG.items():
            source = {"uri": f"{CLAIM}/{path}"}
            made = document(f"wrong-{wrong}", source=source, workers=1)
            found[wrong] = stack.enter_context(tortured.deployed(made))
        for wrong in WRONG:
            rig.start(tortured.cluster, NAMESPACE, f"wrong-{wrong}", f"wrong-{wrong}")
        yield found


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_named(tortured: Plant, wrongs: dict[str, Timeline], wrong: str) -> None:
    _, reason, words = WRONG[wrong]
    name = f"wrong-{wrong}"
    tortured.said(name, "Degraded", WITHIN, status="True", reason=reason)
    wrongs[wrong].mark(f"{reason} said after")
    assert words in tortured.message(name, "Degraded")
    # It is not tried again: that could not help.
    assert ended(tortured, name, name)["outcome"] == "Failed"
    assert len(tortured.pods(name)) == 1
    wrongs[wrong].tell()


def until_recorded(plant: Plant, name: str) -> None:
    """Wait until a run is half-way."""
    until(
        lambda: (last_run(plant, name).get("progress") or {}).get("rows"),
        "rows recorded",
        seconds=ENOUGH,
    )


def test_a_source_that_vanishes_half_way_is_named(tortured: Plant) -> None:
    kubectl = tortured.cluster.kubectl
    source = {"uri": f"{CLAIM}/going/"}
    thief = idle_pod("thief", tortured.cluster.images["runtime"], rig.CLAIM)
    kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=thief)
    try:
        with tortured.deployed(document("vanishing", source=source, workers=1)) as timeline:
            with slow_store(tortured):
                rig.start(tortured.cluster, NAMESPACE, "vanishing-1", "vanishing")
                until_recorded(tortured, "vanishing")
                kubectl(
                    "-n", NAMESPACE, "wait", "--for=condition=Ready", "pod/thief", "--timeout=60s"
                )
                take = "import shutil; shutil.rmtree('/claim/going')"
                kubectl("-n", NAMESPACE, "exec", "thief", "--", "python", "-c", take)
                timeline.mark("gone")
                tortured.said("vanishing", "Degraded", WITHIN, status="True", reason="SourceError")
                timeline.mark("SourceError said after")
            assert ".parquet: no longer exists" in tortured.message("vanishing", "Degraded")
        timeline.tell()
    finally:
        kubectl("-n", NAMESPACE, "delete", "pod", "thief", "--wait=false")


@pytest.fixture(scope="module")
def weathered(tortured: Plant) -> Iterator[Timeline]:
    with tortured.deployed(document("weathered", source={"uri": FEW_FILES})) as timeline:
        yield timeline
    timeline.tell()


def test_a_full_disk_is_named_and_the_run_goes_on_once_there_is_room(
    tortured: Plant, weathered: Timeline
) -> None:
    with full_store(tortured):
        rig.start(tortured.cluster, NAMESPACE, "full", "weathered")
        tortured.said("weathered", "Degraded", WITHIN, status="True", reason="StoreFull")
        weathered.mark("StoreFull said after")
    assert outcomes(tortured, "full") == ["Succeeded"]
    weathered.mark("published once there was room")
    assert ended(tortured, "full", "weathered")["rows"] > 0
    tortured.said("weathered", "Degraded", status="False")


def test_a_run_outlives_a_crash_of_the_store(tortured: Plant, weathered: Timeline) -> None:
    with slow_store(tortured):
        rig.start(tortured.cluster, NAMESPACE, "outlived", "weathered")
        until_recorded(tortured, "weathered")
        kill = ("exec", DATABASE, "--", "sh", "-c", "kill -QUIT 1")  # as a crash: at once
        tortured.cluster.kubectl("-n", NAMESPACE, *kill)
        until(lambda: restarts(tortured, DATABASE), "PostgreSQL is back", seconds=60)
    weathered.mark("PostgreSQL crashed and is back")
    assert outcomes(tortured, "outlived") == ["Succeeded"]
    weathered.mark("published")
    ended(tortured, "outlived", "weathered")
    known = {r["name"]: r for r in records(tortured, "weathered")}
    calm, outlived = (known[name] for name in ("full", "outlived"))
    assert outlived["current"]
    assert [outlived[n] for n in ("rows", "rejects")] == [calm[n] for n in ("rows", "rejects")]
    difference = compared(tortured, "weathered", "full", "outlived")
    assert (difference["common"], difference["changed"]) == (calm["rows"], 0)


def restarts(plant: Plant, pod: str) -> int:
    """Return how often a pod's container was started again; 0 while it is not ready."""
    found = plant.cluster.get("-n", NAMESPACE, "pod", pod)
    (container,) = found["status"]["containerStatuses"]
    return int(container["restartCount"]) if container["ready"] else 0
