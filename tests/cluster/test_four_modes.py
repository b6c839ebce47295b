"""One deployment of one model through all modes, by editing `mode`: the answers stay the same.

Each edit ends with the new mode's objects in place and the old one's gone, and the golden vectors
come out equal through a batch run, an InferenceService, a Kafka stream and a device.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from modes_rig import NAMESPACE, Plant, changed

from fourways_operator.facts import Json
from tests import parity
from tools import brokers
from tools.demo.device import Device
from tools.installation import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

NAME = "parity"
TOPIC = "parity-customers"
KINDS = ("cronjobs", "jobs", "inferenceservices", "deployments")
OBJECTS = {
    "batch": {"CronJob/parity-batch"},
    "realtime": {"InferenceService/parity-realtime", "Deployment/parity-realtime-predictor"},
    "streaming": {"Deployment/parity-streaming"},
    "edge": {"Job/parity-edge"},
}
"""What stands for each mode, and for no other; a build's Job is named by its content too."""


def document(mode: str) -> Json:
    made = changed(parity.documents()["batch"], "mode", mode)
    kafka = {"kafka": {"bootstrapServers": brokers.KAFKA, "topic": TOPIC}}
    made = changed(made, "streaming.source", kafka)
    return {**made, "metadata": {"name": NAME}}


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
    plant.until(lambda: of_modes(objects(plant)) == OBJECTS[mode], f"{mode} alone", 60)


def of_modes(found: set[str]) -> set[str]:
    return {name for name in found if any(name in names for names in OBJECTS.values())}


def run(plant: Plant) -> None:
    """Start a batch run now, as `fourways run` does."""
    kubectl = plant.cluster.kubectl
    kubectl("-n", NAMESPACE, "wait", "--for=create", f"cronjob/{NAME}-batch", "--timeout=30s")
    made = kubectl("-n", NAMESPACE, "get", "jobs", "-o", "name").split()
    kubectl(
        "-n", NAMESPACE, "create", "job", f"{NAME}-run-{len(made)}", f"--from=cronjob/{NAME}-batch"
    )


def ask_batch(plant: Plant) -> dict[str, Json]:
    with plant.gateway() as url, client_of(url) as http:
        return {
            key: http.get(f"/predictions/{NAME}/{key}").raise_for_status().json()["outputs"]
            for key in parity.vectors()
        }


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


def client_of(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=30, trust_env=False)
