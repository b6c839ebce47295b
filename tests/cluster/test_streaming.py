"""The streaming mode on a cluster: a real Kafka, a real NATS, the trial PostgreSQL as the store."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import httpx
import pytest

from fourways_operator.facts import Json
from tests.kit.cluster.modes_rig import NAMESPACE, Plant, changed, example
from tests.kit.cluster.told import tell
from tests.kit.cluster.water_main import readings
from tests.kit.waiting import until
from tools import brokers
from tools.demo.questions import reading
from tools.installation import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

TOPIC = "water-readings"
EVENTS = 24


def on_kafka(name: str | None = None) -> Json:
    return example("kafka/water-flow.yaml", name)


def answered(url: str, name: str, key: object, wait: int = 20) -> Json:
    """Ask for a prediction and wait for it a while."""
    answer = httpx.get(
        f"{url}/predictions/{name}/{key}",
        headers={"Prefer": f"wait={wait}"},
        timeout=wait + 10,
        trust_env=False,
    )
    assert answer.status_code == 200, f"{key}: {answer.status_code} {answer.text}"
    found: Json = answer.json()
    return found


def until_answered(url: str, name: str, key: object, seconds: float = 30) -> Json:
    """Ask for a prediction nobody asked for before, until it is there."""
    told = ""

    def answered() -> Json | None:
        nonlocal told
        answer = httpx.get(f"{url}/predictions/{name}/{key}", trust_env=False)
        told = f"{answer.status_code} {answer.text}"
        return answer.json() if answer.status_code == 200 else None

    found: Json = until(
        answered, lambda: f"{key} is answered: {told}", seconds=seconds, interval=0.1
    )
    return found


@pytest.fixture(scope="module")
def flowing(modes: Plant, messaging: Cluster) -> Iterator[Plant]:
    """water-flow on Kafka, Ready."""
    brokers.make_topic(messaging, TOPIC, partitions=2)
    with modes.deployed(on_kafka()) as timeline:
        modes.ready("water-flow")
        timeline.mark("Ready")
        yield modes
    timeline.tell()


def test_events_become_answers(flowing: Plant, messaging: Cluster) -> None:
    sent = readings(0, EVENTS)
    started = time.monotonic()
    brokers.produce(messaging, TOPIC, sent)
    delivered = time.monotonic()
    with flowing.gateway() as url:
        for event in sent:
            outputs = until_answered(url, "water-flow", event["reading"])["outputs"]
            assert outputs["label"] in ("normal", "strange")
            assert outputs["score"] >= 0
    took = time.monotonic() - delivered
    tell(
        f"{EVENTS} events: delivered to Kafka after {delivered - started:.1f} s, "
        f"all answered and read {took:.1f} s later"
    )


def test_a_miss_becomes_an_event_and_its_answer_is_waited_for(flowing: Plant) -> None:
    key, tensors = reading("2022-04-28T03Z")
    with flowing.gateway() as url, httpx.Client(base_url=url, timeout=30, trust_env=False) as http:
        assert http.get(f"/predictions/water-flow/{key}").status_code == 404
        taken = http.post("/v2/models/water-flow/infer", json={"inputs": tensors})
        assert taken.status_code == 202, taken.text
        place, _, question = taken.headers["location"].partition("?question=")
        assert (place, len(question)) == (f"/predictions/water-flow/{key}", 32)
        assert int(taken.headers["retry-after"]) >= 1
        first = answered(url, "water-flow", key)
        # Asked again, the answer is there.
        again = http.post("/v2/models/water-flow/infer", json={"inputs": tensors})
        assert again.status_code == 200, again.text
        assert {o["name"]: o["data"][0] for o in again.json()["outputs"]} == first["outputs"]


def test_who_prefers_to_wait_gets_the_answer_at_once(flowing: Plant) -> None:
    _, tensors = reading("2022-04-28T04Z")
    with flowing.gateway() as url:
        started = time.monotonic()
        answer = httpx.post(
            f"{url}/v2/models/water-flow/infer",
            json={"inputs": tensors},
            headers={"Prefer": "wait=20"},
            timeout=30,
            trust_env=False,
        )
        assert answer.status_code == 200, answer.text
        tell(f"asked with Prefer: wait, answered after {time.monotonic() - started:.2f} s")


def test_events_of_nats_become_answers_too(modes: Plant, messaging: Cluster) -> None:
    brokers.make_stream(messaging, "WATER", "water.readings")
    sent = readings(100, 3)
    # As it stands in the repository, under a name of its own.
    with modes.deployed(example("water-flow.yaml", "nats-flow")) as timeline:
        modes.ready("nats-flow")
        timeline.mark("Ready")
        brokers.publish(messaging, "water.readings", sent)
        with modes.gateway() as url:
            for event in sent:
                until_answered(url, "nats-flow", event["reading"])
        timeline.mark("answers")
    timeline.tell()


SOURCE = "streaming.source.kafka"
WRONG = {
    "topic": (f"{SOURCE}.topic", "no-such-topic", "TopicNotFound"),
    "broker": (
        f"{SOURCE}.bootstrapServers",
        "no-such-broker.messaging.svc:9092",
        "BrokerUnavailable",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_named(modes: Plant, messaging: Cluster, wrong: str) -> None:
    field, value, reason = WRONG[wrong]
    document = changed(on_kafka(f"wrong-{wrong}"), field, value)
    named_within(modes, document, reason, value)


def named_within(plant: Plant, document: Json, reason: str, words: str) -> None:
    name = document["metadata"]["name"]
    with plant.deployed(document) as timeline:
        plant.said(name, "Ready", status="False", reason=reason)
        timeline.mark(f"{reason} said after")
        assert words in plant.message(name, "Ready")
        plant.said(name, "Degraded", 5, status="True", reason=reason)
    timeline.tell()


def test_a_missing_store_is_named(modes: Plant, messaging: Cluster) -> None:
    # The last test of all: the gateway has lost its store too, and takes a while to find it again.
    kubectl = modes.cluster.kubectl
    secret = modes.cluster.get("-n", NAMESPACE, "secret", "fourways-store")
    kubectl("-n", NAMESPACE, "delete", "secret", "fourways-store")
    try:
        named_within(modes, on_kafka("wrong-store"), "ConfigError", "fourways-store")
    finally:
        for field in ("resourceVersion", "uid"):
            del secret["metadata"][field]
        kubectl("-n", NAMESPACE, "create", "-f", "-", stdin=json.dumps(secret))
