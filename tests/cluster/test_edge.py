"""The edge mode on a cluster: built in a Job, served by the gateway, run by a device outside."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from fourways_operator.facts import Json
from tests.kit.cluster.modes_rig import NAMED_WITHIN, Plant, changed, example
from tests.kit.waiting import until
from tools.demo.device import Device
from tools.demo.questions import ARTIFACTS

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

NAME = "file-type-on-device"
TARGET = "desktop"


def on_device(name: str | None = None) -> Json:
    return example("file-type-on-device.yaml", name)


def smaller(document: Json, **budget: object) -> Json:
    target = document["spec"]["edge"]["targets"][0]
    tight = {**target, "budget": {**target["budget"], **budget}}
    return changed(document, "edge.targets", [tight])


def test_a_device_outside_answers_with_what_was_built(modes: Plant, tmp_path: Path) -> None:
    with modes.deployed(on_device()) as timeline:
        status = modes.ready(NAME)
        timeline.mark("Ready")
        (bundle,) = status["bundles"]
        assert bundle["target"] == TARGET
        device = Device(tmp_path / "device", modes.public_key)
        with modes.gateway() as url:
            index = httpx.get(f"{url}/bundles/{NAME}/{TARGET}/index.json", trust_env=False)
            assert bundle["digest"] in index.text
            device.fetch(url)
            timeline.mark("fetched, verified and tested")
        # The forward is gone: nobody but the device is left to answer.
        disagreements = [
            (answer["label"], wanted["label"])
            for answer, wanted in golden_answers(device)
            if answer["label"] != wanted["label"]
        ]
        timeline.mark("answered offline")
    timeline.tell()
    # A quantised model may be kept: what the budget asks is that 95 of 100 agree.
    assert len(disagreements) <= 0.05 * len(list(golden()))


def golden() -> list[Json]:
    lines = (ARTIFACTS / "file-type" / "golden.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def golden_answers(device: Device) -> list[tuple[Json, Json]]:
    return [(device.predict(v["inputs"]), v["outputs"]) for v in golden()]


def test_a_budget_nothing_fits_is_answered_with_what_was_measured(modes: Plant) -> None:
    with modes.deployed(smaller(on_device("too-big"), sizeMiB=1)) as timeline:
        modes.said("too-big", "Ready", 90, status="False", reason="BudgetExceeded")
        timeline.mark("BudgetExceeded said after")
        said = modes.message("too-big", "Ready")
        assert "fp32" in said.lower()
        assert "int8" in said.lower()
    timeline.tell()


WRONG = {
    "key": ("edge.signing.secretName", "no-such-secret", "no-such-secret"),
    "digest": ("model.digest", "sha256:" + "0" * 64, "sha256:0000"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_named(modes: Plant, wrong: str) -> None:
    path, value, words = WRONG[wrong]
    name = f"wrong-{wrong}"
    with modes.deployed(changed(on_device(name), path, value)) as timeline:
        modes.said(name, "Degraded", status="True")
        timeline.mark("said after")
        said = modes.message(name, "Degraded")
        assert words in said
    timeline.tell()


def test_a_claim_nobody_made_is_named_and_holds_nobody_up(modes: Plant) -> None:
    document = changed(on_device("wrong-claim"), "edge.publish", "pvc://no-such-claim/here")
    with modes.deployed(document) as timeline:
        modes.said("wrong-claim", "Ready", status="False")
        until(
            lambda: "no-such-claim" in modes.message("wrong-claim", "Ready"),
            "named",
            seconds=NAMED_WITHIN,
        )
        timeline.mark("said after")
        with modes.gateway() as url:
            assert httpx.get(f"{url}/v2/health/live", trust_env=False).status_code == 200
    timeline.tell()
