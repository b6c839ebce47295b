"""Streaming deployments: stored and fresh, accepted and under way, waited for, or not there."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from fourways_api.callers import CallerPolicy
from fourways_runtime.callers.api_keys import new_key
from fourways_runtime.errors import EventTooLarge
from tests.kit.gateway_plane import DIGEST, Running, asking
from tests.kit.gateway_streams import (
    CONTRACT,
    ROUTE,
    Broker,
    answer,
    gone,
    post,
    published,
    rows,
    stored,
    streaming,
    tensors,
)
from tests.kit.waiting import until_async


async def test_fresh_answers_come_from_the_store(both: tuple[Running, Broker]) -> None:
    plane, broker = both
    rows(plane).update({"c1": stored(0.5, age=2), "c2": stored(0.25, age=30)})
    status, told = await plane.infer("sensor", asking("c2", "c1", id="q"))
    assert status == 200
    parameters = told["parameters"]
    assert [output["data"] for output in told["outputs"]] == [[0.25, 0.5], ["ok", "ok"]]
    assert (told["model_version"], parameters["digest"]) == ("4", DIGEST)
    assert parameters["age_seconds"] == pytest.approx(30, abs=5)
    status, told = await plane.get("/predictions/sensor/c1")
    assert status == 200
    assert told["outputs"] == {"score": 0.5, "label": "ok"}
    assert told["age_seconds"] == pytest.approx(2, abs=5)
    assert broker.events == []


async def test_an_answer_is_given_to_the_same_key_and_inputs_only(
    both: tuple[Running, Broker],
) -> None:
    plane, broker = both
    rows(plane)["c1"] = stored(0.125)  # a producer's event: with which inputs, nobody knows
    mine, others = tensors("c1"), tensors("c1", x=[2.5])
    locations = []
    for body in (mine, others):
        got = await post(plane, body)
        assert got.status_code == 202
        locations.append(got.headers["location"])
    assert len(set(locations)) == len(broker.events) == 2
    for at, score in enumerate((0.5, 0.75)):
        answer(plane, broker.events[at], stored(score))
    for body, location, score in zip((mine, others), locations, (0.5, 0.75), strict=True):
        got = await post(plane, body)
        assert (got.status_code, got.json()["outputs"][0]["data"]) == (200, [score])
        assert (await plane.get(location))[1]["outputs"]["score"] == score
    # The same question in other words: numbers as text would be refused, whole numbers are equal.
    spelled = {**mine, "id": "again", "inputs": mine["inputs"][::-1]}
    assert (await plane.infer("sensor", spelled))[1]["outputs"][0]["data"] == [0.5]
    # A key alone gets the newest, whoever asked for it.
    assert (await plane.get("/predictions/sensor/c1"))[1]["outputs"]["score"] == 0.75
    assert (await plane.infer("sensor", asking("c1")))[1]["outputs"][0]["data"] == [0.75]
    assert len(broker.events) == 2
    assert (await plane.get("/predictions/sensor/c1?question=nonsense"))[0] == 400


async def test_who_waits_for_one_key_with_other_inputs_gets_his_own(
    both: tuple[Running, Broker],
) -> None:
    plane, broker = both
    asked = [
        asyncio.ensure_future(post(plane, tensors("c1", x=[float(n)]), prefer="wait=10"))
        for n in range(8)
    ]
    await published(broker, 8)
    for event in broker.events[::-1]:
        answer(plane, event, stored(event[1]["x"]))
    for n, each in enumerate(asked):
        assert (await each).json()["outputs"][0]["data"] == [float(n)]


async def test_a_request_with_keys_of_its_own_and_of_others(both: tuple[Running, Broker]) -> None:
    plane, broker = both
    await post(plane, tensors("c1", "c2"))
    answer(plane, broker.events[0], stored(0.5))
    allow = {**tensors("c1", "c2", x=[1.5, 3.0]), "parameters": {"allow_missing": True}}
    _, told = await plane.infer("sensor", allow)
    assert told["outputs"][-1]["data"] == [True, False]
    assert [event[1]["x"] for event in broker.events] == [1.5, 1.5, 3.0]


async def test_a_miss_with_inputs_becomes_an_event(both: tuple[Running, Broker]) -> None:
    plane, broker = both
    got = await post(plane, tensors("a/ b"), idempotency_key="once-1")
    assert got.status_code == 202
    identity = got.json()["id"]
    assert got.json() == {
        "deployment": "sensor",
        "key": "a/ b",
        "status": "accepted",
        "id": identity,
    }
    assert identity.startswith("fourways-")
    question = broker.events[0][2]["fourways-question"].decode()
    assert got.headers["location"] == f"/predictions/sensor/a%2F%20b?question={question}"
    assert got.headers["retry-after"] == "1"
    event = {"customer": "a/ b", "x": 1.5, "n": 0, "word": "ä", "pair": [0.5, 2.0]}
    headers = {"ce-id": identity.encode(), "fourways-question": question.encode()}
    assert broker.events == [(b"a/ b", event, headers)]
    pending = await plane.client.get(got.headers["location"])
    assert (pending.status_code, pending.json()["status"]) == (202, "pending")
    answer(plane, broker.events[0], stored(0.5))
    assert (await plane.client.get(got.headers["location"])).json()["outputs"]["score"] == 0.5


async def test_several_keys_publish_only_what_is_missing(both: tuple[Running, Broker]) -> None:
    plane, broker = both
    await post(plane, tensors("c2", n=[1]))
    answer(plane, broker.events.pop(), stored(0.5))
    got = await post(plane, tensors("c1", "c2", "c3"))
    assert got.status_code == 202
    assert got.headers["location"] == "/v2/models/sensor/infer"
    told = [(each["key"], each["location"].split("?")[0]) for each in got.json()["predictions"]]
    assert told == [("c1", "/predictions/sensor/c1"), ("c3", "/predictions/sensor/c3")]
    assert [(key, event["n"]) for key, event, _ in broker.events] == [(b"c1", 0), (b"c3", 2)]
    allow = {**tensors("c1", "c2", "c3"), "parameters": {"allow_missing": True}}
    status, answered = await plane.infer("sensor", allow)
    assert (status, answered["outputs"][-1]["data"]) == (200, [False, True, False])
    assert len(broker.events) == 2


async def test_equal_questions_are_joined(both: tuple[Running, Broker]) -> None:
    plane, broker = both
    broker.hold = asyncio.Event()
    asked = [asyncio.ensure_future(post(plane, tensors("c1"))) for _ in range(5)]
    await asyncio.sleep(0.05)
    broker.hold.set()
    ids = {(await each).json()["id"] for each in asked}
    ids.add((await post(plane, tensors("c1"))).json()["id"])
    assert len(ids) == 1
    assert len(broker.events) == 1
    await post(plane, tensors("c1", x=[2.5]))
    assert len(broker.events) == 2
    for _ in range(2):
        await post(plane, tensors("c1", x=[3.5]), idempotency_key="mine")
    assert len(broker.events) == 3


async def test_an_idempotency_key_holds_for_one_request(both: tuple[Running, Broker]) -> None:
    plane, broker = both
    first = await post(plane, tensors("c1"), idempotency_key="order-1")
    assert first.status_code == 202
    for other in (tensors("c2"), tensors("c1", x=[9.5]), tensors("c1", "c2")):
        got = await post(plane, other, idempotency_key="order-1")
        assert got.status_code == 422
        assert "Idempotency-Key" in got.json()["error"]
    again = await post(plane, tensors("c1"), idempotency_key="order-1")
    assert again.json()["id"] == first.json()["id"]
    assert len(broker.events) == 1


async def test_callers_do_not_share_idempotency_keys(tmp_path: Path) -> None:
    folder = tmp_path / "callers"
    folder.mkdir()
    keys = {}
    for name in ("one", "two"):
        keys[name], digest = new_key(name)
        record = {"sha256": [digest], "scopes": ["predict:*"]}
        (folder / name).write_text(orjson.dumps(record).decode())
    policy = CallerPolicy(keys_dir=str(folder))
    async with streaming(tmp_path, ROUTE, callers=policy) as (plane, broker):
        ids = set()
        for name, key in (("one", "c1"), ("two", "c2"), ("two", "c2")):
            got = await post(
                plane,
                tensors(key),
                idempotency_key="order-1",
                authorization=f"Bearer {keys[name]}",
            )
            assert got.status_code == 202
            ids.add(got.json()["id"])
        assert len(ids) == len(broker.events) == 2


@pytest.mark.thorough
async def test_prefer_wait_holds_until_the_answer_is_there(both: tuple[Running, Broker]) -> None:
    plane, broker = both
    asked = [
        asyncio.ensure_future(post(plane, tensors(f"c{n}"), prefer="respond-async, wait=10"))
        for n in range(30)
    ]
    await published(broker, 30)
    plane.store.asked.clear()
    await asyncio.sleep(0.1)
    assert 0 < len(plane.store.asked) < 15  # one look for all of them
    by_key = {event[0]: event for event in broker.events}
    for n in range(30):
        answer(plane, by_key[b"c%d" % n], stored(n))
    for n, each in enumerate(asked):
        got = await each
        assert got.status_code == 200
        assert got.headers["preference-applied"] == "wait=10"
        assert got.json()["outputs"][0]["data"] == [n]
    got = await post(plane, tensors("late"), prefer="wait=1")
    assert got.status_code == 202
    assert got.headers["location"].startswith("/predictions/sensor/late?question=")
    held = asyncio.ensure_future(
        plane.client.get("/predictions/sensor/late", headers={"prefer": "wait=100"})
    )
    looks = len(plane.store.asked)
    await until_async(lambda: len(plane.store.asked) > looks, "the store is asked again")
    rows(plane)["late"] = stored(7)
    got = await held
    assert (got.status_code, got.headers["preference-applied"]) == (200, "wait=30")


async def test_who_waits_is_let_go_in_a_drain(both: tuple[Running, Broker]) -> None:
    plane, broker = both
    held = asyncio.ensure_future(post(plane, tensors("c1"), prefer="wait=30"))
    await published(broker, 1)
    assert await plane.server.drain(0, 5)
    assert (await held).status_code == 202


async def test_stale_counts_as_missing(both: tuple[Running, Broker]) -> None:
    plane, broker = both
    rows(plane)["c1"] = stored(0.5, age=100)
    got = await plane.client.get("/predictions/sensor/c1")
    assert (got.status_code, got.headers["retry-after"]) == (404, "1")
    assert got.json()["error"] == "the prediction for that key is older than 60 s"
    assert (await post(plane, tensors("c1"))).status_code == 202
    assert len(broker.events) == 1


async def test_nothing_there_and_nothing_to_make_it_from(both: tuple[Running, Broker]) -> None:
    plane, _ = both
    status, answer = await plane.infer("sensor", asking("c1"))
    assert status == 404
    assert answer["missing"] == ["c1"]
    assert answer["send"] == ["customer", "x", "n", "word", "pair"]
    assert (await plane.get("/predictions/sensor/c1"))[0] == 404
    allow = asking("c1", parameters={"allow_missing": True})
    assert (await plane.infer("sensor", allow))[0] == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (tensors("c1", x=[11.0]), "x"),
        (tensors("c1", x=["one"]), "x"),
        (tensors("c1", n=[1.5]), "n"),
        ({"inputs": tensors("c1")["inputs"][:-1]}, "inputs"),
        ({"inputs": tensors("c1")["inputs"][1:]}, "x"),
        (tensors("c1", "c1"), "inputs[4].data"),
        ({**tensors("c1"), "outputs": [{"name": "nope"}]}, "outputs[0].name"),
        ({**tensors("c1"), "parameters": {"allow_missing": 1}}, "parameters.allow_missing"),
    ],
)
async def test_what_the_contract_refuses_is_no_event(
    both: tuple[Running, Broker], body: Any, field: str
) -> None:
    plane, broker = both
    status, answer = await plane.infer("sensor", body)
    assert (status, answer["field"]) == (400, field)
    assert broker.events == []


async def test_binary_tensors(both: tuple[Running, Broker]) -> None:
    plane, broker = both
    body = tensors("c1")
    pair = body["inputs"][3]
    del pair["data"]
    pair["parameters"] = {"binary_data_size": 16}
    head = orjson.dumps(body)
    data = b"\0\0\0\0\0\0\xe0\x3f\0\0\0\0\0\0\0\x40"
    got = await plane.client.post(
        "/v2/models/sensor/infer",
        content=head + data,
        headers={"inference-header-content-length": str(len(head))},
    )
    assert got.status_code == 202
    assert broker.events[0][1]["pair"] == [0.5, 2.0]


async def test_broker_down_is_503_and_forgotten(both: tuple[Running, Broker]) -> None:
    plane, broker = both
    broker.down = True
    got = await post(plane, tensors("c1"), idempotency_key="k")
    assert (got.status_code, got.headers["retry-after"]) == (503, "1")
    assert got.json() == {"error": "the broker does not accept events now"}
    assert (await plane.get("/predictions/sensor/c1"))[0] == 404
    broker.down = False
    assert (await post(plane, tensors("c1"), idempotency_key="k")).status_code == 202
    assert len(broker.events) == 1
    got = await post(plane, tensors("c2"), idempotency_key="two words")
    assert (got.status_code, got.json()["field"]) == (400, "Idempotency-Key")


async def test_the_first_question_finds_the_broker_connected(
    both: tuple[Running, Broker],
) -> None:
    plane, broker = both
    await plane.gateway.connect()
    assert broker.connected == 1
    broker.down = True
    await plane.gateway.connect()  # a broker that is away is its questions' business


async def test_no_worker_yet(both: tuple[Running, Broker]) -> None:
    plane, _ = both
    del plane.store.streams["sensor"]
    for path in ("/v2/models/sensor", "/v2/models/sensor/ready", "/predictions/sensor/c1"):
        got = await plane.client.get(path)
        assert (got.status_code, got.headers["retry-after"]) == (503, "1")
        assert got.json()["error"] == "no worker of this stream has started yet"
    plane.store.streams["sensor"] = CONTRACT
    _, model = await plane.get("/v2/models/sensor")
    assert model["platform"] == "fourways_streaming"
    assert [tensor["name"] for tensor in model["inputs"]] == ["customer", "x", "n", "word", "pair"]
    assert (await plane.get("/v2/models/sensor/versions/3"))[0] == 404


async def test_what_is_accepted_is_forgotten_when_it_is_stale(tmp_path: Path) -> None:
    route = ROUTE.model_copy(update={"freshness_seconds": 0.1})
    async with streaming(tmp_path, route) as (plane, broker):
        first = (await post(plane, tensors("c1"))).json()["id"]
        await gone(plane)
        second = (await post(plane, tensors("c1"))).json()["id"]
        assert len(broker.events) == 2
        assert first != second  # a broker that drops duplicates takes it


async def test_an_event_above_the_broker_s_limit_is_the_client_s_fault(
    both: tuple[Running, Broker],
) -> None:
    plane, broker = both
    broker.refusal = EventTooLarge("the event has 9 bytes; the broker takes at most 8")
    got = await post(plane, tensors("c1"))
    assert (got.status_code, "retry-after" in got.headers) == (413, False)
    assert got.json()["error"] == "the event has 9 bytes; the broker takes at most 8"
    broker.refusal = None
    assert (await post(plane, tensors("c1"))).status_code == 202
