"""One deployment of one model through all modes, by editing `mode`: the answers stay the same.

Each edit ends with the new mode's objects in place and the old one's gone, and the golden vectors
come out equal through a batch run, an InferenceService, a Kafka stream and a device.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fourways_operator.facts import Json
from tests.kit import parity
from tests.kit.cluster.modes_rig import NAMESPACE, Plant
from tests.kit.cluster.parity_run import NAME, TOPIC, ask_batch, client_of, document, run
from tests.kit.waiting import until
from tools import brokers
from tools.demo.device import Device
from tools.installation import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

KINDS = ("cronjobs", "jobs", "inferenceservices", "deployments")
OBJECTS = {
    "batch": {"CronJob/parity-batch"},
    "realtime": {"InferenceService/parity-realtime", "Deployment/parity-realtime-predictor"},
    "streaming": {"Deployment/parity-streaming"},
    "edge": {"Job/parity-edge"},
}
"""What stands for each mode, and for no other; a build's Job is named by its content too."""


def objects(plant: Plant) -> set[str]:
    items = plant.cluster.get("-n", NAMESPACE, ",".join(KINDS))["items"]
    found = {f"{i['kind']}/{i['metadata']['name']}" for i in items}
    ours = {name for name in found if name.partition("/")[2].startswith(f"{NAME}-")}
    builds = {name for name in ours if name.startswith("Job/parity-edge-")}
    # A run's Job goes with its CronJob.
    return (ours - builds) | ({"Job/parity-edge"} if builds else set())


def test_one_model_through_all_modes_by_edits(
    modes: Plant, messaging: Cluster, tmp_path: Path
) -> None:
    brokers.make_topic(messaging, TOPIC)
    asked: dict[str, Callable[[Plant], dict[str, Json]]] = {
        "batch": ask_batch,
        "realtime": ask_realtime,
        "streaming": ask_streaming,
        "edge": lambda plant: ask_device(plant, tmp_path / "device"),
    }
    with modes.deployed(document("batch")) as timeline:
        for mode in (*parity.MODES, "batch"):
            modes.apply(document(mode))
            if mode == "batch":
                run(modes)
            status = modes.ready(NAME)
            timeline.mark(f"{mode} Ready")
            assert status["mode"] == mode
            until_alone(modes, mode)
            timeline.mark("alone")
            answers = asked[mode](modes)
            assert parity.disagreements(answers) == [], mode
            timeline.mark("answers equal")
    timeline.tell()


def until_alone(plant: Plant, mode: str) -> None:
    """Wait until the objects of a mode are there, and those of no other."""
    until(lambda: of_modes(objects(plant)) == OBJECTS[mode], f"{mode} alone", seconds=60)


def of_modes(found: set[str]) -> set[str]:
    return {name for name in found if any(name in names for names in OBJECTS.values())}


def ask_realtime(plant: Plant) -> dict[str, Json]:
    answers = {}
    with plant.gateway() as url, client_of(url) as http:
        for key, vector in parity.vectors().items():
            answer = http.post(f"/v2/models/{NAME}/infer", json=question(key, vector))
            assert answer.status_code == 200, answer.text
            answers[key] = parity.row(answer.json())
    return answers


def ask_streaming(plant: Plant) -> dict[str, Json]:
    answers = {}
    with plant.gateway() as url, client_of(url) as http:
        for key, vector in parity.vectors().items():
            taken = http.post(f"/v2/models/{NAME}/infer", json=question(key, vector))
            # What a batch run answered once is no answer of the stream.
            assert taken.status_code == 202, taken.text
        for key in parity.vectors():
            answer = http.get(f"/predictions/{NAME}/{key}", headers={"Prefer": "wait=20"})
            assert answer.status_code == 200, answer.text
            answers[key] = answer.json()["outputs"]
    return answers


def ask_device(plant: Plant, state: Path) -> dict[str, Json]:
    device = Device(state, plant.public_key, deployment=NAME, target="till")
    with plant.gateway() as url:
        device.fetch(url)
    return {key: device.predict(v["inputs"]) for key, v in parity.vectors().items()}


def question(key: str, vector: Json) -> Json:
    return parity.question(key, vector["inputs"])
