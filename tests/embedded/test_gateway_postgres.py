"""The gateway on a real PostgreSQL that is stopped and started under it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from fourways_runtime.io.store import open_reader
from fourways_runtime.workloads.gateway.circuit_breaker import StoreCircuitBreaker
from fourways_runtime.workloads.gateway.shell import build
from tests.kit.gateway_plane import Running
from tests.kit.gateway_process import publish
from tests.kit.postgres import postgres_server
from tests.kit.waiting import until_async
from tools.servers.postgres import Server

pytestmark = pytest.mark.embedded


@pytest.fixture
def database() -> Iterator[Server]:
    """A server of its own: others do not like theirs stopped."""
    with postgres_server() as server:
        yield server


class OnPostgres(Running):
    """Reads the store at the address for what it is."""

    async def start(self) -> None:
        registry = CollectorRegistry()
        self.link = StoreCircuitBreaker(str(self.file), open_reader, 1.0, registry)
        await self.link.start()
        self.server, self.gateway = build(self.config, self.link, registry)
        await self.listen()


async def test_a_restart_of_the_database_heals_within_a_second(
    tmp_path: Path, database: Server
) -> None:
    uri = database.database()
    await asyncio.to_thread(publish, uri, "run-1")
    plane = OnPostgres(tmp_path, address=uri)
    await plane.start()
    codes: list[int] = []
    enough = asyncio.Event()

    async def ask() -> None:
        while not enough.is_set():
            status, answer = await plane.get("/predictions/churn/1")
            assert status == 503 or answer["outputs"]["label"] == "l1"
            codes.append(status)

    async def is_answered() -> bool:
        return (await plane.get("/predictions/churn/1"))[0] == 200

    try:
        assert await is_answered()
        askers = [asyncio.ensure_future(ask()) for _ in range(2)]
        await asyncio.to_thread(database.stop)
        await plane.ready_is(False)
        await asyncio.to_thread(database.start)
        await until_async(is_answered, "the store is read again")
        enough.set()
        await asyncio.gather(*askers)
        assert set(codes) == {200, 503}
    finally:
        await plane.stop()
