"""How the gateway asks its store, and what it does when that is slow, gone or another one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fourways_runtime.workloads.gateway import batch
from fourways_runtime.workloads.gateway.circuit_breaker import PROBE_SECONDS
from tests.kit.gateway_plane import CHURN, Running, asking, raw_answer, raw_infer, run, running
from tests.kit.waiting import until_async


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path) as plane:
        yield plane


async def waiting(plane: Running, requests: int) -> bool:
    return f"fourways_requests_waiting {requests}.0" in (await plane.client.get("/metrics")).text


async def answers_version(plane: Running, version: str) -> bool:
    status, answer = await plane.infer("churn", asking("c1"))
    return status == 200 and answer["model_version"] == version


async def test_questions_of_one_turn_share_a_lookup_and_equal_keys(plane: Running) -> None:
    await plane.infer("churn", asking("c0"))
    plane.store.asked.clear()
    keys = [f"c{i % 20}" for i in range(60)]
    reader, writer = await asyncio.open_connection("127.0.0.1", plane.server.port)
    writer.write(b"".join(raw_infer(asking(key)) for key in keys))
    for key in keys:
        assert (await raw_answer(reader))["outputs"][1]["data"] == [f"l{key[1:]}"]
    writer.close()
    assert plane.store.asked == [("churn", [f"c{i}" for i in range(20)])]


async def test_questions_gather_while_the_store_is_busy(plane: Running) -> None:
    await plane.infer("churn", asking("c0"))
    plane.store.hold = asyncio.Event()
    plane.store.asked.clear()
    questions = []
    for number in range(12):
        questions.append(asyncio.ensure_future(plane.infer("churn", asking(f"c{number}"))))
        if number < 4:
            await until_async(lambda: len(plane.store.asked) == len(questions), "it is asked")
    await until_async(lambda: waiting(plane, 8), "eight requests wait")
    plane.store.hold.set()
    assert [status for status, _ in await asyncio.gather(*questions)] == [200] * 12
    assert [len(keys) for _, keys in plane.store.asked] == [1, 1, 1, 1, 8]


async def test_unknown_names_do_not_reach_the_store_again_and_again(
    plane: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(batch, "monotonic", lambda: now)
    for _ in range(20):
        assert (await plane.infer("nothing", asking("c1")))[0] == 404
    assert len(plane.store.asked) == 1
    now += batch.UNKNOWN_SECONDS
    assert (await plane.infer("nothing", asking("c1")))[0] == 404
    assert len(plane.store.asked) == 2, "it may have been published meanwhile"


async def test_store_down_is_503_at_once_and_it_comes_back(plane: Running) -> None:
    assert (await plane.infer("churn", asking("c1")))[0] == 200
    plane.store.down = True
    answer = await plane.client.get("/predictions/churn/c1")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json() == {"error": "the prediction store is not available"}
    await plane.ready_is(False)
    plane.store.asked.clear()
    before = plane.store.probes
    loop = asyncio.get_running_loop()
    began = loop.time()
    for _ in range(40):
        assert (await plane.get("/predictions/churn/c1"))[0] == 503
        assert (await plane.get("/"))[0] == 503
    assert plane.store.asked == []
    assert plane.store.probes - before <= 1 + (loop.time() - began) / PROBE_SECONDS
    assert "fourways_store_up 0.0" in (await plane.client.get("/metrics")).text
    plane.store.down = False
    await until_async(lambda: answers_version(plane, "7"), "version 7 answers")
    await plane.ready_is(True)


async def test_one_cut_connection_fails_no_request(plane: Running) -> None:
    assert (await plane.infer("churn", asking("c1")))[0] == 200
    plane.store.fail_once = True
    assert (await plane.infer("churn", asking("c1")))[0] == 200


async def test_a_store_that_hangs_ends_the_request_in_time(plane: Running) -> None:
    assert (await plane.infer("churn", asking("c1")))[0] == 200
    plane.store.hold = asyncio.Event()
    async with asyncio.timeout(20):
        assert (await plane.infer("churn", asking("c1")))[0] == 503


async def test_a_bug_in_the_store_is_a_bare_500(plane: Running) -> None:
    assert (await plane.infer("churn", asking("c1")))[0] == 200
    plane.store.broken = RuntimeError("relation secret_table")
    status, answer = await plane.infer("churn", asking("c1"))
    assert (status, answer) == (500, {"error": "internal error"})
    plane.store.broken = None
    assert (await plane.infer("churn", asking("c1")))[0] == 200


async def test_no_address_yet(tmp_path: Path) -> None:
    async with running(tmp_path, address=None) as plane:
        await plane.ready_is(False)
        assert (await plane.infer("churn", asking("c1")))[0] == 503
        assert (await plane.get("/v2/health/live"))[0] == 200
        plane.file.write_text("one")
        await plane.ready_is(True)
        assert await answers_version(plane, "7")


@pytest.mark.thorough
async def test_a_rotated_address_is_taken_when_its_store_answers(plane: Running) -> None:
    two = plane.stores["two"]
    two.down = True
    two.runs["churn"] = run(CHURN, "8")
    plane.file.write_text("two")

    async def put_away() -> bool:
        assert await answers_version(plane, "7")
        return two.closed

    await until_async(put_away, "the store that does not answer is closed")
    two.down = False
    await until_async(lambda: answers_version(plane, "8"), "version 8 answers")


async def test_draining_is_not_ready_and_still_answers(plane: Running) -> None:
    await plane.infer("churn", asking("c1"))
    hurry = asyncio.Event()
    drained = asyncio.ensure_future(plane.server.drain(60, 1, hurry))
    await plane.ready_is(False)
    assert (await plane.infer("churn", asking("c1")))[0] == 200
    hurry.set()
    assert await drained
