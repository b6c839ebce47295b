"""Questions to a stream whose events became dead letters: who is told, and of which event."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fourways_runtime.io.store.streams.stream import DeadLetterReason, EventPosition
from fourways_runtime.workloads.gateway.refusals import FAILED
from tests.kit.gateway_plane import Running, asking
from tests.kit.gateway_streams import (
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

WHY = "score: the model answered NaN"
"""The model's fault: 500."""


def refuse(plane: Running, broker: Broker, at: int, why: str = WHY, attempts: int = 1) -> str:
    """Make the broker's event at a position a dead letter; return its id."""
    identity = broker.events[at][2]["ce-id"].decode()
    plane.store.letters[EventPosition(0, at)] = DeadLetterReason(identity, why, attempts)
    return identity


async def location(plane: Running, key: str = "c1", **headers: str) -> Any:
    return await plane.client.get(f"/predictions/sensor/{key}", headers=headers)


async def test_who_asks_for_a_refused_event_is_told_the_reason(
    both: tuple[Running, Broker],
) -> None:
    plane, broker = both
    await post(plane, tensors("c1"))
    assert (await location(plane)).status_code == 202
    identity = refuse(plane, broker, 0, attempts=2)
    told = {
        "error": f"the event was rejected: {WHY}",
        "deployment": "sensor",
        "key": "c1",
        "id": identity,
        "reason": WHY,
        "attempts": 2,
    }
    for got in (
        await location(plane),
        await post(plane, tensors("c1")),
        await post(plane, asking("c1")),
        await post(plane, tensors("c1"), prefer="wait=30"),
        await location(plane, prefer="wait=30"),
    ):
        assert (got.status_code, got.json()) == (500, told)
        assert "retry-after" not in got.headers
    assert len(broker.events) == 1
    # What is known is not asked for again.
    assert plane.store.asked_places == [EventPosition(0, 0)] * 2


async def test_a_repeated_question_finds_out_by_itself(both: tuple[Running, Broker]) -> None:
    plane, broker = both
    await post(plane, tensors("c1"))
    refuse(plane, broker, 0)
    assert (await post(plane, tensors("c1"))).status_code == 500


async def test_who_is_held_is_told_at_once(both: tuple[Running, Broker]) -> None:
    plane, broker = both
    held = [
        asyncio.ensure_future(post(plane, tensors(key), prefer="wait=30")) for key in ("c1", "c2")
    ]
    await published(broker, 2)
    first = broker.events[0][0].decode()
    held.append(asyncio.ensure_future(location(plane, first, prefer="wait=30")))
    refuse(plane, broker, 0)
    async with asyncio.timeout(20):
        got = [await each for each in (held[first == "c2"], held[2])]
    assert [(each.status_code, each.json()["key"]) for each in got] == [(500, first)] * 2
    assert got[0].headers["preference-applied"] == "wait=30"
    other = held[first == "c1"]
    assert not other.done()
    answer(plane, broker.events[1], stored(0.5))
    assert (await other).status_code == 200


async def test_only_the_question_s_own_event_counts(both: tuple[Running, Broker]) -> None:
    plane, broker = both
    old, new = tensors("c1"), tensors("c1", x=[2.5])
    held = asyncio.ensure_future(post(plane, new, prefer="wait=30"))
    await published(broker, 1)
    await post(plane, old)
    refuse(plane, broker, 1)
    assert (await post(plane, old)).status_code == 500
    newer = tensors("c1", x=[3.5])
    accepted = await post(plane, newer)
    assert accepted.status_code == 202
    pending = await location(plane)
    assert (pending.status_code, pending.json()["id"]) == (202, accepted.json()["id"])
    assert (await post(plane, old)).status_code == 500
    assert not held.done()
    # An answer of the key is one to its own question.
    answer(plane, broker.events[0], stored(0.5))
    assert (await held).status_code == 200
    assert (await post(plane, new)).status_code == 200
    assert (await post(plane, old)).status_code == 500
    assert (await post(plane, newer)).status_code == 202
    assert (await location(plane)).status_code == 200
    assert len(broker.events) == 3


async def test_an_older_question_of_the_key_is_found_refused(both: tuple[Running, Broker]) -> None:
    plane, broker = both
    old, new = tensors("c1"), tensors("c1", x=[2.5])
    for body in (old, new):
        await post(plane, body)
    refuse(plane, broker, 0)
    assert (await post(plane, old)).status_code == 500
    assert (await location(plane)).status_code == 202


async def test_another_event_at_its_place_is_not_its_own(both: tuple[Running, Broker]) -> None:
    plane, broker = both
    await post(plane, tensors("c1"))
    for identity in ("another", None):  # a stream made anew counts from the start
        plane.store.letters[EventPosition(0, 0)] = DeadLetterReason(identity, WHY, 1)
        assert (await location(plane)).status_code == 202
    refuse(plane, broker, 0)
    assert (await location(plane)).status_code == 500


async def test_a_key_given_again_later_is_not_judged_by_its_first_event(tmp_path: Path) -> None:
    route = ROUTE.model_copy(update={"freshness_seconds": 0.2})
    async with streaming(tmp_path, route) as (plane, broker):
        await post(plane, tensors("c1"), idempotency_key="mine")
        refuse(plane, broker, 0)
        await gone(plane)  # a refusal stands as long as an answer would
        broker.places.clear()  # the broker, too, has forgotten the id by now
        assert (await post(plane, tensors("c1"), idempotency_key="mine")).status_code == 202
        assert len(broker.events) == 2
        assert (await location(plane)).status_code != 500


async def test_who_knows_better_asks_under_another_key(both: tuple[Running, Broker]) -> None:
    plane, broker = both
    await post(plane, tensors("c1"), idempotency_key="one")
    refuse(plane, broker, 0)
    assert (await post(plane, tensors("c1"), idempotency_key="one")).status_code == 500
    second = await post(plane, tensors("c1"), idempotency_key="two")
    assert second.status_code == 202
    assert (await location(plane)).json()["id"] == second.json()["id"]


async def test_another_gateway_learns_of_it_from_a_broker_that_drops_duplicates(
    both: tuple[Running, Broker], tmp_path: Path
) -> None:
    plane, broker = both
    await post(plane, tensors("c1"))
    identity = refuse(plane, broker, 0)
    (tmp_path / "other").mkdir()
    async with streaming(tmp_path / "other") as (other, others_broker):
        other.store.letters = plane.store.letters
        others_broker.places, others_broker.events = broker.places, broker.events
        assert (await location(other)).status_code == 404
        assert (await post(other, tensors("c1"))).status_code == 202
        got = await location(other)
        assert (got.status_code, got.json()["id"]) == (500, identity)
        assert len(broker.events) == 1


async def test_of_several_keys_the_refused_are_named(both: tuple[Running, Broker]) -> None:
    plane, broker = both
    await post(plane, tensors("c2", n=[1]))
    answer(plane, broker.events[0], stored(0.5))
    body = tensors("c1", "c2", "c3", "c4")
    assert (await post(plane, body)).status_code == 202
    allow = {**body, "parameters": {"allow_missing": True}}
    patient = asyncio.ensure_future(post(plane, allow, prefer="wait=30"))
    held = asyncio.ensure_future(post(plane, body, prefer="wait=30"))
    ids = [refuse(plane, broker, 1), refuse(plane, broker, 3)]
    told = {
        "error": f"the events of 2 of 4 keys were rejected; the first reason: {WHY}",
        "deployment": "sensor",
        "refused": [
            {"key": key, "id": identity, "reason": WHY, "attempts": 1}
            for key, identity in zip(("c1", "c4"), ids, strict=True)
        ],
    }
    assert ((await held).status_code, (await held).json()) == (500, told)
    assert (await post(plane, body)).json() == told
    looks = len(plane.store.asked)
    await until_async(lambda: len(plane.store.asked) >= looks + 3, "three looks more")
    assert not patient.done()
    answer(plane, broker.events[2], stored(0.25))
    got = await patient
    assert (got.status_code, got.json()["outputs"][-1]["data"]) == (200, [False, True, True, False])
    assert len(broker.events) == 4


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("x: 11 is above 10", None),
        ("model: the model failed: /srv/model.py said p4ssw0rd", FAILED),
        ("model: the worker died over it 3 times: it crashed", None),
    ],
)
async def test_the_model_s_own_words_are_not_passed_on(
    both: tuple[Running, Broker], reason: str, told: str | None
) -> None:
    plane, broker = both
    await post(plane, tensors("c1"))
    refuse(plane, broker, 0, reason, 3)
    got = (await location(plane)).json()
    assert got["reason"] == (told or reason)
    assert "p4ssw0rd" not in str(got)


async def test_where_the_broker_does_not_say_where_an_event_is_nothing_is_known(
    both: tuple[Running, Broker],
) -> None:
    plane, broker = both
    broker.silent = True
    await post(plane, tensors("c1"))
    refuse(plane, broker, 0)
    assert (await location(plane)).status_code == 202
    assert plane.store.asked_places == []


async def test_dead_letters_are_asked_for_where_an_answer_is_awaited_and_nowhere_else(
    both: tuple[Running, Broker],
) -> None:
    plane, broker = both
    rows(plane)["c1"] = stored(0.5)
    where = (await post(plane, tensors("c2"))).headers["location"]
    assert (await location(plane, "c1")).status_code == 200
    assert plane.store.asked_places == []
    asked = len(plane.store.asked)
    assert (await plane.client.get(where)).status_code == 202
    assert plane.store.asked_places == [EventPosition(0, 0)]
    answer(plane, broker.events[0], stored(0.5))
    for _ in range(3):
        assert (await plane.client.get(where)).status_code == 200
        assert (await location(plane, "c2")).status_code == 200
    # With the last look that found it unanswered, and in the same question as its key.
    assert plane.store.asked_places == [EventPosition(0, 0)] * 2
    assert len(plane.store.asked) == asked + 7
    assert len(broker.events) == 1


@pytest.mark.parametrize(
    ("why", "status"),
    [
        (WHY, 500),
        ("model: RuntimeError: secret words", 500),
        ("score: 7 is above 5", 500),
        ("temperature: 'a' is not a number", 422),
    ],
)
async def test_the_status_and_the_count_say_whose_fault_it_is(
    both: tuple[Running, Broker], why: str, status: int
) -> None:
    plane, broker = both
    await post(plane, tensors("c1"))
    refuse(plane, broker, 0, why=why)
    got = await location(plane)
    assert got.status_code == status
    assert got.headers.get("x-fourways-fault") == ("model" if status == 500 else None)
    counted = 'fourways_gateway_faults_total{deployment="sensor",party="model"} 1.0'
    assert (counted in (await plane.client.get("/metrics")).text) == (status == 500)
