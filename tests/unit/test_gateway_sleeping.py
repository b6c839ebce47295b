"""Deployments that scale to zero: requests wait for a replica, and the gateway says so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from fourways_api import Route, WakeConfig
from fourways_api.demand import DeploymentDemand, GatewayDemand
from fourways_cli.embedded.ports import free_port
from fourways_http import ByteRoom
from fourways_runtime.workloads.gateway import sleeping
from tests.kit.gateway_plane import CHURN, Running, run, running
from tests.kit.waiting import until_async

INFER = "/v2/models/score/infer"


class Replica:
    """A model server that is started and ended, and is ready when it says so."""

    def __init__(self) -> None:
        self.port = free_port()
        self.ready = True
        self.seen: list[bytes] = []
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def end(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._open):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
                body = await reader.readexactly(int(size or 0))
                status = b"200 OK"
                if b"/v2/health/ready" in head:
                    status = b"200 OK" if self.ready else b"503 Not Ready"
                else:
                    self.seen.append(head)
                answer = b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b"
                writer.write(answer % (status, len(body), body))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()


@asynccontextmanager
async def asleep(
    folder: Path,
    idle: float = 60.0,
    patience: float = 5.0,
    seconds: float = 1.0,
    stored: bool = False,
) -> AsyncIterator[tuple[Running, Replica]]:
    replica = Replica()
    route = Route(
        deployment="score",
        mode="realtime",
        version="3",
        url=f"http://127.0.0.1:{replica.port}",
        entity_key=CHURN.entity_key,
        timeout_seconds=seconds,
        wake=WakeConfig(idle_seconds=idle, timeout_seconds=patience, stored=stored),
    )
    async with running(folder, routes=(route,)) as plane:
        try:
            yield plane, replica
        finally:
            await replica.end()


async def demand(plane: Running, mark: str = "", wait: float = 0.0) -> GatewayDemand:
    got = await plane.client.get("/demand", params={"mark": mark, "wait": wait})
    assert got.status_code == 200, got.text
    return GatewayDemand.model_validate_json(got.content)


async def record(plane: Running) -> DeploymentDemand:
    (found,) = (await demand(plane)).deployments
    return found


def asked(plane: Running, body: str = "{}", **headers: str) -> asyncio.Task[httpx.Response]:
    return asyncio.create_task(plane.client.post(INFER, content=body, headers=headers))


async def held(plane: Running, count: int) -> None:
    async def waits() -> bool:
        return (await record(plane)).waiting >= 1 and len(handler(plane)._held) == count

    await until_async(waits, "the requests are held")


def handler(plane: Running) -> sleeping.SleepingHandler:
    found = plane.gateway._modes["score"]
    assert isinstance(found, sleeping.SleepingHandler)
    return found


async def test_requests_wait_for_a_replica_and_none_is_lost(tmp_path: Path) -> None:
    async with asleep(tmp_path) as (plane, replica):
        calls = [asked(plane, str(number)) for number in range(40)]
        await held(plane, 40)
        metrics = (await plane.client.get("/metrics")).text
        assert 'fourways_requests_held{deployment="score"} 40.0' in metrics
        assert 'fourways_requests_in_flight{deployment="score"} 40.0' in metrics
        await replica.start()
        answers = [await call for call in calls]
        assert [(a.status_code, a.text) for a in answers] == [(200, str(n)) for n in range(40)]
        assert len(replica.seen) == 40
        found = await record(plane)
        assert found.waiting == 0
        assert found.cold_start_seconds is not None
        assert found.woken_at is not None


async def test_a_replica_that_is_not_ready_gets_no_request(tmp_path: Path) -> None:
    async with asleep(tmp_path) as (plane, replica):
        replica.ready = False
        await replica.start()
        call = asked(plane)
        await held(plane, 1)
        assert not replica.seen
        replica.ready = True
        assert (await call).status_code == 200


async def test_a_replica_that_was_there_all_the_time_is_no_cold_start(tmp_path: Path) -> None:
    async with asleep(tmp_path) as (plane, replica):
        await replica.start()
        assert (await asked(plane)).status_code == 200
        assert (await record(plane)).cold_start_seconds is None


async def test_it_notices_itself_that_the_replica_has_ended(tmp_path: Path) -> None:
    async with asleep(tmp_path) as (plane, replica):
        await replica.start()
        assert (await asked(plane, "a")).text == "a"
        await replica.end()
        call = asked(plane, "b")
        await held(plane, 1)
        await replica.start()
        assert (await call).text == "b"


async def test_a_request_waits_no_longer_than_it_may(tmp_path: Path) -> None:
    async with asleep(tmp_path, patience=0.2) as (plane, _):
        answer = await asked(plane)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "one is starting" in answer.json()["error"]
        metrics = (await plane.client.get("/metrics")).text
        assert 'fourways_held_requests_expired_total{deployment="score"} 1.0' in metrics


async def test_a_request_waits_no_longer_than_its_client(tmp_path: Path) -> None:
    async with asleep(tmp_path, patience=60.0) as (plane, replica):
        answer = await asked(plane, **{"x-request-timeout": "0.2"})
        assert answer.status_code == 503
        call = asked(plane, **{"grpc-timeout": "5S"})
        await held(plane, 1)
        await replica.start()
        assert (await call).status_code == 200
        # The replica learns how much of the client's time is left.
        told = replica.seen[0].lower().partition(b"x-request-timeout: ")[2].partition(b"\r\n")[0]
        assert 0 < float(told) < 5


async def test_the_time_for_an_answer_begins_when_the_replica_is_ready(tmp_path: Path) -> None:
    """The route's own time-out has passed twice when it is: waiting does not count."""
    async with asleep(tmp_path, seconds=0.3) as (plane, replica):
        loop = asyncio.get_running_loop()
        began = loop.time()
        call = asked(plane)
        await held(plane, 1)
        await until_async(lambda: loop.time() > began + 0.7, "its time-out has passed twice")
        await replica.start()
        assert (await call).status_code == 200


@pytest.mark.thorough
async def test_a_client_that_leaves_is_not_waited_for(tmp_path: Path) -> None:
    async with asleep(tmp_path) as (plane, replica):
        call = asked(plane)
        await held(plane, 1)
        call.cancel()

        async def gone() -> bool:
            return (await record(plane)).waiting == 0

        await until_async(gone, "nothing waits")
        await replica.start()
        assert (await asked(plane)).status_code == 200
        assert len(replica.seen) == 1


async def test_held_requests_are_bounded_by_number_and_bytes(tmp_path: Path) -> None:
    async with asleep(tmp_path) as (plane, replica):
        handler(plane)._room = ByteRoom(100)
        first = asked(plane, "x" * 60)
        await held(plane, 1)
        answer = await asked(plane, "x" * 60)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        await replica.start()
        assert (await first).status_code == 200
        await replica.end()
        second = asked(plane, "x" * 60)  # the room was given back
        await held(plane, 1)
        await replica.start()
        assert (await second).status_code == 200


async def test_it_is_ready_while_it_sleeps_and_asking_wakes_nothing(tmp_path: Path) -> None:
    async with asleep(tmp_path) as (plane, replica):
        answer = await plane.client.get("/v2/models/score/ready")
        assert (answer.status_code, answer.json()["asleep"]) == (200, True)
        await replica.start()
        assert (await plane.client.get("/v2/models/score/ready")).status_code == 200
        assert replica.seen
        await replica.end()
        answer = await plane.client.get("/v2/models/score/ready")
        assert (answer.status_code, answer.json()["asleep"]) == (200, True)
        assert (await record(plane)).waiting == 0


async def test_a_reader_is_answered_once_something_changes(tmp_path: Path) -> None:
    async with asleep(tmp_path, idle=0.3) as (plane, replica):
        first = await demand(plane)
        assert not first.deployments[0].idle
        second = await demand(plane, first.mark, 10)
        assert second.deployments[0].idle
        reading = asyncio.create_task(demand(plane, second.mark, 10))
        call = asked(plane)
        third = await reading
        assert (third.deployments[0].waiting, third.deployments[0].idle) == (1, False)
        await replica.start()
        await call
        assert (await demand(plane, third.mark, 10)).deployments[0].woken_at is not None
        same = await demand(plane)
        assert (await demand(plane, same.mark, 0.05)).mark == same.mark


async def test_a_reader_who_asks_for_nonsense_is_told(tmp_path: Path) -> None:
    async with asleep(tmp_path) as (plane, _):
        for wait in ("x", "-1", "1e9"):
            answer = await plane.client.get("/demand", params={"wait": wait})
            assert answer.status_code == 400
            assert "wait" in answer.json()["error"]


# ---------------------------------------------------------------- stored predictions meanwhile


def stored_run(plane: Running) -> None:
    """Have the store hold predictions of the deployment, a minute old."""
    plane.store.runs["score"] = run(CHURN)
    plane.store.rows["score"] = {"c1": {"score": 0.25, "label": "l1", "ok": False}}


def by_key(key: str, *more: dict[str, object]) -> str:
    tensor = {"name": "customer", "datatype": "BYTES", "shape": [1], "data": [key]}
    return json.dumps({"inputs": [tensor, *more]})


async def test_the_store_answers_while_a_replica_starts_and_says_how_old(tmp_path: Path) -> None:
    async with asleep(tmp_path, stored=True) as (plane, replica):
        stored_run(plane)
        answer = await asked(plane, by_key("c1"))
        assert (answer.status_code, answer.json()["outputs"][0]["data"]) == (200, [0.25])
        assert int(answer.headers["age"]) >= 59
        assert answer.json()["parameters"]["age_seconds"] >= 59
        single = await plane.client.get("/predictions/score/c1")
        assert (single.status_code, single.json()["outputs"]["score"]) == (200, 0.25)
        assert int(single.headers["age"]) >= 59
        # Nobody waits any more, and a replica is asked for all the same.
        assert (await record(plane)).waiting == 1
        await replica.start()

        async def awake() -> bool:
            return (await record(plane)).woken_at is not None

        await until_async(awake, "the replica is found")
        fresh = await asked(plane, by_key("c1"))
        assert fresh.text == by_key("c1"), "the replica echoes"
        assert "age" not in fresh.headers


async def test_what_the_store_cannot_answer_waits(tmp_path: Path) -> None:
    async with asleep(tmp_path, stored=True) as (plane, replica):
        stored_run(plane)
        x = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}
        calls = [asked(plane, body) for body in (by_key("nobody"), by_key("c1", x), "not json")]
        await held(plane, 3)
        plane.store.down = True
        calls.append(asked(plane, by_key("c1")))
        await held(plane, 4)
        await replica.start()
        assert [(await call).status_code for call in calls] == [200] * 4


async def test_a_replica_that_is_there_is_preferred_to_the_store(tmp_path: Path) -> None:
    async with asleep(tmp_path, stored=True) as (plane, replica):
        stored_run(plane)
        await replica.start()
        assert (await asked(plane, by_key("c1"))).text == by_key("c1")


async def test_without_the_fallback_stored_predictions_are_not_used(tmp_path: Path) -> None:
    async with asleep(tmp_path, patience=0.2) as (plane, _):
        stored_run(plane)
        assert (await asked(plane, by_key("c1"))).status_code == 503
