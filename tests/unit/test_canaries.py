"""Personal data stays out of logs, reports and metrics: canaries in it are looked for everywhere.

``FOURWAYS_CANARIES`` is the number of random tables and events; ``make torture-security`` sets it.
"""

from __future__ import annotations

import json
import logging
import os
import random
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from fourways_runtime.errors import WorkloadError
from fourways_runtime.io.brokers.source import Events
from fourways_runtime.io.postgres.connection import explain
from fourways_runtime.io.store import open_database, open_run_store
from fourways_runtime.logs import JsonFormatter
from fourways_runtime.process import failure
from fourways_runtime.scoring.columns import Reject
from fourways_runtime.workloads.batch.limits import described
from fourways_runtime.workloads.streaming.observed import StreamMetrics
from tests.kit.batch_world import World
from tests.kit.gateway_plane import Running, asking
from tests.kit.gateway_streams import Broker, post, tensors
from tests.kit.stores import rejects_of
from tests.kit.stream_worker import Memory, Rig

CANARY = "c4n4ry"
KEY = CANARY.encode()
ROUNDS = int(os.environ.get("FOURWAYS_CANARIES", "8"))

FAULTS: dict[str, Callable[[random.Random], Any]] = {
    "text": lambda r: f"{CANARY} {r.random()}",
    "quotes": lambda r: f"' is below 0; {CANARY}\" is above \\'",
    "long": lambda r: CANARY * r.randrange(2, 60),
    "lines": lambda r: f"1\n{CANARY} is missing",
    "pretends": lambda r: f"3 is below {CANARY}",
    "list": lambda r: [CANARY, 1],
    "object": lambda r: {CANARY: CANARY},
    "hidden": lambda r: f"\u202e{CANARY}\0",
}


def said(caplog: pytest.LogCaptureFixture, *more: str) -> str:
    """Everything that we logged, as a cluster's collector gets it, and more texts."""
    ours = [record for record in caplog.records if record.name.startswith("fourways")]
    return "\n".join([*map(JsonFormatter().format, ours), *more])


def table(world: World, kind: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Write a table; return the changes of the configuration that read it."""
    if kind == "jsonl":
        world.file("t.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)) + b"\n")
        return {"batch__source": {"uri": "pvc://data/t.jsonl", "format": "JSONLines"}}
    texts = {
        name: [v if isinstance(v, str) else json.dumps(v) for v in (row[name] for row in rows)]
        for name in ("id", "age", "spend")
    }
    if kind == "parquet":
        pq.write_table(pa.table(texts), world.file("t.parquet"))
        return {"batch__source": {"uri": "pvc://data/t.parquet"}}
    quoted = [['"' + cell.replace('"', '""') + '"' for cell in each] for each in texts.values()]
    lines = ["id,age,spend", *map(",".join, zip(*quoted, strict=True))]
    world.file("t.csv").write_text("\n".join(lines) + "\n")
    return {"batch__source": {"uri": "pvc://data/t.csv", "format": "CSV"}}


def test_no_cell_and_no_key_of_a_table_leaves_the_rejects(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    chance = random.Random(7)
    world = World(tmp_path, f"sqlite:///{tmp_path}/store.db", "shop")
    found = 0
    for round_ in range(ROUNDS):
        kind = chance.choice(["jsonl", "csv", "parquet"])
        fault = chance.choice(list(FAULTS.values()))
        column = chance.choice(["age", "spend"])
        rows: list[dict[str, Any]] = [
            {"id": f"{CANARY}-{n}", "age": 30, "spend": 0.5} for n in range(6)
        ]
        for at in chance.sample(range(6), chance.randrange(1, 6)):
            rows[at][column] = fault(chance)
        changes = table(world, kind, rows) | {"batch__max_rejects": chance.choice(["0", "100%"])}
        config = world.config(**changes)
        report = ""
        try:
            world.run(f"r{round_}", **changes)
        except WorkloadError as error:
            told, _ = failure(error, config, logging.getLogger("fourways"))
            report = told.model_dump_json()
            assert "row" in report
        assert CANARY not in said(caplog, report)
        caplog.clear()
        found += CANARY in str(rejects_of(world.uri, "shop"))
    assert found, "the rejects in the store have keys and values"


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("130 is above 120", "row 7: age is above 120"),
        ("'a is below 3' is not a number", "row 7: age is not a number"),
        ("missing", "row 7: age: missing"),
        ("line 5: it is not JSON: it is empty", "row 7: age: line 5: it is not JSON: it is empty"),
        (f"['{CANARY}'] is not a number", "row 7: age"),
        (f"{CANARY} came from somewhere", "row 7: age"),
        (f"2026-01-01 {CANARY} is below 3", "row 7: age"),
    ],
)
def test_a_reject_is_told_by_position_field_and_kind(reason: str, told: str) -> None:
    assert described(Reject(7, CANARY, "age", reason)) == told


class Canaries(Memory):
    """Events with any bytes as values."""

    raw: list[bytes]

    def poll(self, most: int, wait: float, gather: float) -> Events | None:
        events = super().poll(most, wait, gather)
        if events is None:
            return None
        values = [self.raw[at] for at in events.positions]
        return replace(events, values=values, keys=[KEY] * len(values))


def event(chance: random.Random) -> bytes:
    value = chance.choice(list(FAULTS.values()))(chance)
    return chance.choice(
        [
            orjson.dumps({"x": value}),
            orjson.dumps({"x": 1, "id": value}),
            orjson.dumps({"x": [value]}),
            str(value).encode()[:50],
            b'{"x": 1, "' + CANARY.encode(),
            b'{"x": 13}',
        ]
    )


def test_no_event_and_no_key_leaves_the_dead_letters(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    chance = random.Random(7)
    rig = Rig(tmp_path)
    registry = CollectorRegistry()
    rig.metrics = StreamMetrics(registry)
    source = Canaries([0.0] * ROUNDS, [])
    source.raw = [event(chance) for _ in range(ROUNDS)]
    rig.work(source, maxAttempts=1)
    worker = rig.worker
    told = [str(worker.faults()), str(worker.warnings()), generate_latest(registry).decode()]
    assert CANARY not in said(caplog, *told)
    with closing(open_database(rig.uri)) as database:
        ((letters,),) = database.rows("SELECT count(*) FROM @dead_letters WHERE key = ?", (KEY,))
    assert letters, "the dead letters have keys and values"


async def test_no_request_leaves_the_response(
    both: tuple[Running, Broker], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    plane, broker = both
    await post(plane, tensors(CANARY), idempotency_key=CANARY)
    broker.down = True
    await post(plane, tensors(f"{CANARY}-2"))
    chance = random.Random(7)
    for fault in FAULTS.values():
        await post(plane, tensors(CANARY, x=[fault(chance)]))
        await post(plane, asking(fault(chance)))
    for path in (f"/predictions/sensor/{CANARY}", f"/v2/models/{CANARY}/infer", f"/{CANARY}"):
        await plane.client.get(path, headers={"authorization": f"Bearer {CANARY}"})
    await plane.client.post("/v2/models/sensor/infer", content=CANARY.encode())
    plane.store.down = True
    await post(plane, tensors(f"{CANARY}-3"))
    metrics = (await plane.client.get("/metrics")).text
    assert "fourways" in metrics
    assert CANARY not in said(caplog, metrics)


@pytest.mark.parametrize(
    "uri",
    [
        f"postgresql://shop:{CANARY}@127.0.0.1:1/shop",
        f"postgresql://shop@127.0.0.1:1/shop?password={CANARY}",
        f"postgresql://shop:{CANARY}%zz@127.0.0.1:1/shop",
        f"postgresql://shop:{CANARY}@127.0.0.1:port/shop",
        f"mysql://shop:{CANARY}@127.0.0.1/shop",
        CANARY,
    ],
)
def test_no_password_of_the_store_leaves_its_secret(
    uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(WorkloadError) as caught:
        open_run_store(uri)
    assert CANARY not in said(caplog, str(caught.value))


@pytest.mark.parametrize(
    ("kind", "text", "told"),
    [
        (
            psycopg.errors.InvalidTextRepresentation,
            f'invalid input syntax for type integer: "{CANARY}"\nLINE 1: {CANARY}',
            "invalid input syntax for type integer",
        ),
        (psycopg.errors.NumericValueOutOfRange, f'"{CANARY}" is large', "NumericValueOutOfRange"),
        (psycopg.errors.DivisionByZero, "division by zero", "division by zero"),
        (psycopg.errors.UndefinedTable, 'relation "t" does not exist', None),
    ],
)
def test_a_database_s_error_over_a_value_does_not_quote_it(
    kind: type[psycopg.Error], text: str, told: str | None
) -> None:
    assert explain(kind(text), "postgresql://u:p4ss@h/d") == (told or text)
