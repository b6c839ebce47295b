"""A gateway that serves on a real socket, over a small store in memory that can misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson
from prometheus_client import CollectorRegistry

from fourways_api import Contract, GatewayConfig, Paths
from fourways_http import Limits
from fourways_runtime.errors import StoreUnavailable
from fourways_runtime.io.store.base import Lookup, PublishedRun
from fourways_runtime.io.store.streams.stream import (
    AnswerKey,
    DeadLetterReason,
    EventPosition,
    LiveAnswer,
    LiveLookup,
)
from fourways_runtime.scoring.columns import Key
from fourways_runtime.workloads.gateway.circuit_breaker import StoreCircuitBreaker
from fourways_runtime.workloads.gateway.shell import build
from tests.kit.waiting import until_async

DIGEST = "sha256:" + "a" * 64
COMPUTED = datetime.now(UTC) - timedelta(seconds=60)


def contract(key_type: str, *outputs: tuple[str, str, list[int]]) -> Contract:
    return Contract.model_validate(
        {
            "entityKey": {"name": "customer", "type": key_type},
            "inputs": [{"name": "x", "type": "float32"}],
            "outputs": [{"name": n, "type": t, "shape": s} for n, t, s in outputs],
        }
    )


def run(described: Contract, version: str = "7") -> PublishedRun:
    return PublishedRun(f"run-{version}", version, DIGEST, described, COMPUTED, 3, 0)


CHURN = contract("string", ("score", "float32", []), ("label", "string", []), ("ok", "bool", []))
GRID = contract("int64", ("grid", "float64", [2, 3]), ("n", "int64", []))


ROWS = {f"c{i}": {"score": i / 4, "label": f"l{i}", "ok": i % 2 == 0} for i in range(2000)}


class MemoryStore:
    """A StoreReader over dicts. ``down`` makes it fail, ``hold`` makes it wait."""

    def __init__(self) -> None:
        self.runs = {"churn": run(CHURN), "grid": run(GRID)}
        self.rows: dict[str, dict[Key, dict[str, Any]]] = {
            "churn": dict(ROWS),
            "grid": {i: {"grid": [[i, 1, 2], [3, 4, 5]], "n": i} for i in (-1, 5, 2**63 - 1)},
        }
        self.rows["churn"]["ä/ b%2F"] = {"score": 9.0, "label": "odd", "ok": True}
        self.streams: dict[str, Contract] = {}
        self.live_rows: dict[str, dict[AnswerKey, LiveAnswer]] = {}
        self.letters: dict[EventPosition, DeadLetterReason] = {}
        self.asked: list[tuple[str, list[Any]]] = []
        self.asked_places: list[EventPosition] = []
        self.probes = 0
        self.down = self.closed = False
        self.fail_once = False
        self.hold: asyncio.Event | None = None
        self.broken: Exception | None = None

    async def _answer(self) -> None:
        if self.hold is not None:
            await self.hold.wait()
        if self.broken is not None:
            raise self.broken
        if self.down or self.fail_once:
            self.fail_once = False
            raise StoreUnavailable("connection to 10.1.2.3 refused")

    async def lookup(self, namespace: str, deployment: str, keys: list[Key]) -> Lookup | None:
        self.asked.append((deployment, list(keys)))
        await self._answer()
        found = self.runs.get(deployment)
        if found is None or namespace != "shop":
            return None
        rows = self.rows[deployment]
        return Lookup(found, {key: rows[key] for key in keys if key in rows})

    async def live(
        self,
        namespace: str,
        deployment: str,
        keys: list[AnswerKey],
        places: Sequence[EventPosition] = (),
    ) -> LiveLookup | None:
        self.asked.append((deployment, list(keys)))
        self.asked_places += places
        await self._answer()
        if deployment not in self.streams or namespace != "shop":
            return None
        rows = self.live_rows.get(deployment, {})
        return LiveLookup(
            self.streams[deployment],
            {key: rows[key] for key in keys if key in rows},
            {place: self.letters[place] for place in places if place in self.letters},
        )

    async def deployments(self, namespace: str) -> list[tuple[str, PublishedRun]]:
        await self._answer()
        return sorted(self.runs.items())

    async def ready(self) -> bool:
        self.probes += 1
        await self._answer()
        return True

    async def close(self) -> None:
        self.closed = True


class Running:
    """A gateway that serves, its stores by address, and a client of it."""

    def __init__(
        self,
        folder: Path,
        address: str | None = "one",
        limits: Limits | None = None,
        publisher: Any = None,
        history: Any = None,
        **config: Any,
    ) -> None:
        self.limits = limits or Limits()
        self.history = history
        self.publisher = publisher
        self.file = folder / "uri"
        if address is not None:
            self.file.write_text(f"{address}\n")
        self.stores = {"one": MemoryStore(), "two": MemoryStore()}
        self.config = GatewayConfig(
            namespace="shop",
            host="127.0.0.1",
            port=0,
            paths=Paths(
                store_uri_file=str(self.file),
                secrets_root=str(folder / "secrets"),
                volumes_root=str(folder / "volumes"),
            ),
            **{"store_timeout_seconds": 1.0, "max_keys": 1000, **config},
        )

    @property
    def store(self) -> MemoryStore:
        return self.stores["one"]

    async def start(self) -> None:
        registry = CollectorRegistry()
        self.link = StoreCircuitBreaker(
            str(self.file),
            lambda uri, _: self.stores[uri],
            self.config.store_timeout_seconds,
            registry,
        )
        await self.link.start()
        self.server, self.gateway = build(
            self.config,
            self.link,
            registry,
            self.limits,
            lambda route: self.publisher,
            lambda: self.history,
        )
        await self.listen()

    async def listen(self) -> None:
        await self.server.start("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.port}"
        # Nothing here is encrypted, and loading the authorities' certificates is slow.
        self.client = httpx.AsyncClient(base_url=self.url, timeout=10, verify=False)  # noqa: S501

    async def stop(self) -> None:
        for store in self.stores.values():
            store.hold = None
        await self.client.aclose()
        await self.server.drain(0, 0.2)
        await self.gateway.close()
        await self.link.close()

    async def get(self, path: str) -> tuple[int, Any]:
        answer = await self.client.get(path)
        return answer.status_code, answer.json()

    async def infer(self, deployment: str, body: Any, suffix: str = "") -> tuple[int, Any]:
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        answer = await self.client.post(f"/v2/models/{deployment}{suffix}/infer", content=content)
        return answer.status_code, answer.json()

    async def ready_is(self, expected: bool) -> None:
        async def so() -> bool:
            return (await self.client.get("/v2/health/ready")).is_success is expected

        await until_async(so, f"readiness is {expected}")


def asking(*keys: Any, **more: Any) -> dict[str, Any]:
    tensor = {"name": "customer", "datatype": "BYTES", "shape": [len(keys)], "data": list(keys)}
    return {"inputs": [tensor], **more}


@asynccontextmanager
async def running(folder: Path, **config: Any) -> AsyncIterator[Running]:
    """Serve for the length of the context."""
    plane = Running(folder, **config)
    await plane.start()
    try:
        yield plane
    finally:
        await plane.stop()


def raw_infer(body: Any, deployment: str = "churn") -> bytes:
    """Return an inference request as bytes, for sending many at once."""
    content = orjson.dumps(body)
    start = f"POST /v2/models/{deployment}/infer HTTP/1.1\r\nHost: localhost"
    return f"{start}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


async def raw_answer(reader: asyncio.StreamReader) -> Any:
    """Read one answer's JSON."""
    async with asyncio.timeout(30):
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return orjson.loads(await reader.readexactly(size))
