"""A gateway in front of a streaming deployment, and a broker in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from fourways_api import Contract, Route
from fourways_runtime.errors import BrokerUnavailable
from fourways_runtime.io.store.streams.stream import (
    QUESTION_HEADER,
    AnswerKey,
    EventPosition,
    LiveAnswer,
)
from tests.kit.gateway_plane import DIGEST, Running, asking, running
from tests.kit.waiting import until_async

CONTRACT = Contract.model_validate(
    {
        "entityKey": {"name": "customer", "type": "string"},
        "inputs": [
            {"name": "x", "type": "float32", "range": {"min": 0, "max": 10}},
            {"name": "n", "type": "int32"},
            {"name": "word", "type": "string"},
            {"name": "pair", "type": "float64", "shape": [2]},
        ],
        "outputs": [{"name": "score", "type": "float32"}, {"name": "label", "type": "string"}],
    }
)


ROUTE = Route(deployment="sensor", mode="streaming", version="4", freshness_seconds=60)


class Broker:
    """Takes events in memory. ``down`` refuses them, ``hold`` makes them wait.

    As NATS does, it drops an event with an id it knows, and says where the first one is.
    """

    def __init__(self) -> None:
        self.places: dict[bytes, EventPosition] = {}
        self.silent = False
        self.events: list[tuple[bytes, Any, dict[str, bytes]]] = []
        self.down = self.closed = False
        self.hold: asyncio.Event | None = None
        self.connected = 0
        self.refusal: Exception | None = None

    async def connect(self) -> None:
        if self.down:
            raise BrokerUnavailable("10.1.2.3:9092 refused")
        self.connected += 1

    async def publish(
        self, key: bytes, value: bytes, headers: Mapping[str, bytes]
    ) -> EventPosition | None:
        if self.hold is not None:
            await self.hold.wait()
        if self.down:
            raise BrokerUnavailable("10.1.2.3:9092 refused")
        if self.refusal is not None:
            raise self.refusal
        identity = headers["ce-id"]
        if identity not in self.places:
            self.places[identity] = EventPosition(0, len(self.events))
            self.events.append((key, orjson.loads(value), dict(headers)))
        return None if self.silent else self.places[identity]

    async def close(self) -> None:
        self.closed = True


def stored(score: float, age: float = 1.0, version: str = "4") -> LiveAnswer:
    computed = datetime.now(UTC) - timedelta(seconds=age)
    return LiveAnswer({"score": score, "label": "ok"}, computed, version, DIGEST)


def tensors(*keys: str, **change: Any) -> dict[str, Any]:
    rows = len(keys)
    columns = {
        "x": ("FP32", [rows], [1.5] * rows),
        "n": ("INT32", [rows], list(range(rows))),
        "word": ("BYTES", [rows], ["ä"] * rows),
        "pair": ("FP64", [rows, 2], [0.5, 2.0] * rows),
    }
    inputs = [
        {"name": name, "datatype": datatype, "shape": shape, "data": change.get(name, data)}
        for name, (datatype, shape, data) in columns.items()
    ]
    return {"inputs": [*inputs, *asking(*keys)["inputs"]]}


@asynccontextmanager
async def streaming(
    folder: Path, route: Route = ROUTE, **config: Any
) -> AsyncIterator[tuple[Running, Broker]]:
    broker = Broker()
    async with running(folder, routes=(route,), publisher=broker, **config) as plane:
        plane.store.streams["sensor"] = CONTRACT
        plane.store.live_rows["sensor"] = {}
        yield plane, broker
    assert broker.closed or not broker.events


def rows(plane: Running) -> dict[AnswerKey, LiveAnswer]:
    return plane.store.live_rows["sensor"]


def answer(
    plane: Running, event: tuple[bytes, Any, dict[str, bytes]], answered: LiveAnswer
) -> None:
    """Answer an event as a worker does: for its question, and as the newest of its key."""
    key, _, headers = event
    rows(plane)[bytes.fromhex(headers[QUESTION_HEADER].decode())] = answered
    rows(plane)[key.decode()] = answered


async def post(plane: Running, body: Any, **headers: str) -> Any:
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    path = "/v2/models/sensor/infer"
    return await plane.client.post(path, content=orjson.dumps(body), headers=told)


async def published(broker: Broker, count: int) -> None:
    """Wait until the broker holds so many events."""
    await until_async(lambda: len(broker.events) == count, f"{count} events are published")


async def gone(plane: Running) -> None:
    """Wait until the gateway has forgotten the question about c1."""

    async def unknown() -> bool:
        return (await plane.get("/predictions/sensor/c1"))[0] == 404

    await until_async(unknown, "the question about c1 is forgotten")
