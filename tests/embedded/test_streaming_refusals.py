"""A question whose event kills its model, from the gateway through a real broker and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from fourways_api import Route, StreamSource
from fourways_runtime.io.store import open_reader
from fourways_runtime.workloads.gateway.circuit_breaker import StoreCircuitBreaker
from fourways_runtime.workloads.gateway.refusals import FAILED
from fourways_runtime.workloads.gateway.shell import build
from tests.kit.gateway_plane import Running
from tests.kit.stream_rig import PATIENCE, WorkerProcess, configure, dead_letters, nats_server
from tests.kit.waiting import until_async
from tools.servers.postgres import Server

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(900)]


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[dict[str, Any]]:
    with nats_server(tmp_path) as server:
        server.make_stream("SENSORS", "sensors.>", "other")
        # The stream counts more than ours.
        server.do(lambda jetstream: jetstream.publish("other", b"-"))
        yield {"nats": {"servers": server.url, "stream": "SENSORS", "subject": "sensors.*"}}


class OnBroker(Running):
    """Reads the store at the address, and publishes to the route's source."""

    async def start(self) -> None:
        registry = CollectorRegistry()
        self.link = StoreCircuitBreaker(str(self.file), open_reader, 5.0, registry)
        await self.link.start()
        self.server, self.gateway = build(self.config, self.link, registry)
        await self.listen()

    async def post(self, x: float, **headers: str) -> Any:
        inputs = [
            {"name": "id", "datatype": "BYTES", "shape": [1], "data": ["k"]},
            {"name": "x", "datatype": "FP64", "shape": [1], "data": [x]},
        ]
        path, body = "/v2/models/anomaly/infer", {"inputs": inputs}
        return await self.client.post(path, json=body, headers=headers, timeout=60)


@asynccontextmanager
async def gateway(folder: Path, store: str, source: dict[str, Any]) -> AsyncIterator[OnBroker]:
    route = Route(
        deployment="anomaly",
        mode="streaming",
        version="v1",
        freshness_seconds=1e6,
        source=StreamSource.model_validate(source),
    )
    plane = OnBroker(folder, store, routes=(route,))
    plane.config = plane.config.model_copy(update={"namespace": "n"})
    await plane.start()
    try:
        yield plane
    finally:
        await plane.stop()


async def check(folder: Path, store: str, source: dict[str, Any], scored: int) -> None:
    """Ask by two gateways, one after the other; the event is ``scored`` so often in all."""
    worker = WorkerProcess(folder, configure(folder, store, source))
    await until_async(
        lambda: asyncio.to_thread(worker.ready), "the worker is ready", seconds=30 * PATIENCE
    )
    async with (
        gateway(folder, store, source) as one,
        gateway(folder, store, source) as two,
    ):
        got = await one.post(13, prefer="wait=30")
        told = got.json()
        assert (got.status_code, told["key"], told["reason"], told["attempts"]) == (
            500,
            "k",
            FAILED,
            3,
        )
        assert await one.get("/predictions/anomaly/k") == (500, told)
        assert (await one.post(13)).json() == told

        assert (await two.get("/predictions/anomaly/k"))[0] == 404
        assert (await two.post(13)).status_code == 202

        async def is_told() -> bool:
            return await two.get("/predictions/anomaly/k") == (500, told)

        await until_async(is_told, "the refusal is known", seconds=60)
        why = "model: its code failed: ValueError"
        assert dead_letters(store) == [("k", 3, why)] * scored

        got = await one.post(5, prefer="wait=30")
        assert (got.status_code, got.json()["outputs"][0]["data"]) == (200, [11])
        for each in (one, two):  # another question of the key is still refused
            assert (await each.get("/predictions/anomaly/k"))[0] == 200
            assert (await each.post(5)).status_code == 200
            assert (await each.post(13)).status_code == 500
    assert await asyncio.to_thread(worker.stop) == 0


@pytest.mark.parametrize("database", ["postgresql", "sqlite"])
async def test_a_refused_question_is_told_and_one_that_nats_drops_is_too(
    nats: dict[str, Any], database: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    store = f"sqlite:///{tmp_path}/store.db"
    if database == "postgresql":
        server: Server = request.getfixturevalue("postgres")
        store = server.database()
    await check(tmp_path, store, nats, scored=1)


async def test_a_refused_question_is_told_of_its_place_in_kafka(
    broker: Any,
    topic: str,
    tmp_path: Path,
) -> None:
    source = {"kafka": {"bootstrapServers": broker.bootstrap, "topic": topic}}
    await check(tmp_path, f"sqlite:///{tmp_path}/store.db", source, scored=2)
