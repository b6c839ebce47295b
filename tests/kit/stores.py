"""Runs written to a prediction store and read back, for tests over any store."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import psycopg

from fourways_api import Contract
from fourways_runtime.io.store import PublishedRun, Run, RunStore, StreamWriter, open_reader
from fourways_runtime.io.store.runs import publish as publishing
from fourways_runtime.io.store.runs.chunk import ChunkRecord
from fourways_runtime.io.store.runs.ledger import RunLedger
from fourways_runtime.io.store.runs.plan import Claim, Plan, RunSettings
from fourways_runtime.io.store.runs.publish import Sealed
from fourways_runtime.io.store.streams.stream import (
    DeadLetter,
    EventPosition,
    Move,
    QuestionAnswer,
)
from fourways_runtime.scoring.columns import Key, Predictions, Reject
from fourways_runtime.scoring.splits import Split

OpenStream = Callable[..., StreamWriter]
"""Opens a writer of stream "anomaly", with other outputs or another source if they are given."""

STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def contract(*outputs: dict[str, Any], key: str = "int64") -> Contract:
    return Contract.model_validate(
        {
            "entityKey": {"name": "id", "type": key},
            "inputs": [{"name": "x", "type": "float32"}],
            "outputs": list(outputs) or [{"name": "y", "type": "float64"}],
        }
    )


def a_run(namespace: str, name: str = "r1", spec: Contract | None = None, **more: Any) -> Run:
    told = {"deployment": "churn", "version": "v1", "digest": "sha256:0", **more}
    return Run(
        namespace=namespace, name=name, contract=spec or contract(), started_at=STARTED, **told
    )


def predictions(keys: list[Any], first_row: int = 0, **columns: Any) -> Predictions:
    kind = np.int64 if all(isinstance(key, int) for key in keys) else object
    values = columns or {"y": [float(first_row + at) for at in range(len(keys))]}
    return Predictions(
        np.array(keys, kind),
        np.arange(first_row, first_row + len(keys)),
        {name: np.asarray(column) for name, column in values.items()},
    )


def commit(
    writer: StreamWriter,
    moves: Sequence[Move],
    answers: Predictions,
    dead: Sequence[DeadLetter] = (),
    deleted: Sequence[Key] = (),
    attempts: int = 1,
    answered: Sequence[QuestionAnswer] = (),
) -> None:
    """Write a stream's answers, and wait until that is done."""
    writer.send(moves, answers, dead, deleted, answered, attempts=attempts)
    writer.receive()


@dataclass
class Work:
    """One worker that has joined a run of one chunk, and has claimed it."""

    ledger: RunLedger

    @classmethod
    def on(cls, writer: RunStore, run: Run, splits: int = 1) -> Work:
        ledger = writer.ledger(run, RunSettings(f"{run.version} {run.digest}"), "w")
        assert ledger.join(), "published already"
        parts = [Split(at, "table", {}, None, "") for at in range(splits)]
        ledger.lay_out(lambda base: Plan(parts, None))
        return cls(ledger)

    def __enter__(self) -> Work:
        return self

    def __exit__(self, *exc: object) -> None:
        self.ledger.__exit__(*exc)

    def claim(self) -> Claim:
        claim = self.ledger.claim()
        assert claim is not None
        return claim

    def record(self, *batches: Predictions, rejects: tuple[Reject, ...] = ()) -> bool:
        chunk = ChunkRecord(self.ledger, self.claim().number)
        for batch in batches:
            chunk.write(batch)
        chunk.reject(list(rejects))
        return chunk.done(sum(len(batch) for batch in batches) + len(rejects))

    def seal(self) -> Sealed:
        return publishing.seal(self.ledger)

    def publish(self, keep: int = 3) -> PublishedRun:
        return publishing.publish(self.ledger, self.seal(), keep)


def publish(writer: RunStore, run: Run, *batches: Predictions, keep: int = 3) -> PublishedRun:
    with Work.on(writer, run) as work:
        work.record(*batches)
        return work.publish(keep)


async def look(uri: str, namespace: str, keys: list[Any], deployment: str = "churn") -> Any:
    reader = open_reader(uri, 5.0)
    try:
        return await reader.lookup(namespace, deployment, keys)
    finally:
        await reader.close()


def rejects_of(uri: str, namespace: str) -> list[tuple[Any, ...]]:
    query = (
        "SELECT position, CAST(key AS text), field, reason FROM {0}rejects WHERE run_id IN "
        "(SELECT id FROM {0}runs WHERE namespace = '{1}') ORDER BY position"
    )
    return ask(uri, query, namespace)


def ask(uri: str, query: str, namespace: str) -> list[tuple[Any, ...]]:
    if uri.startswith("sqlite"):
        import sqlite3

        connection: Any = sqlite3.connect(uri.removeprefix("sqlite:///"))
        prefix = ""
    else:
        import psycopg

        connection, prefix = psycopg.connect(uri), "fourways."
    try:
        return list(connection.execute(query.format(prefix, namespace)).fetchall())
    finally:
        connection.close()


def tables_of(uri: str) -> set[str]:
    if uri.startswith("sqlite"):
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'run_*'"
    else:
        query = "SELECT tablename FROM pg_tables WHERE tablename ~ '^run_'"
    return {row[0] for row in ask(uri, query, "")}


def runs_of(uri: str, namespace: str) -> list[str]:
    query = "SELECT name FROM {0}runs WHERE namespace = '{1}' ORDER BY id"
    return [row[0] for row in ask(uri, query, namespace)]


async def look_live(uri: str, namespace: str, keys: list[Any], *places: EventPosition) -> Any:
    reader = open_reader(uri, 5.0)
    try:
        return await reader.live(namespace, "anomaly", keys, places)
    finally:
        await reader.close()


def letter(position: int, **more: Any) -> DeadLetter:
    told: dict[str, Any] = {
        "partition": 0,
        "key": b"k",
        "value": b"\xff\0{",
        "attempts": 1,
        "reason": "x: bad \0 text",
        "headers": (("ce-id", b"1"), ("raw", b"\xff")),
    }
    return DeadLetter(position=position, **(told | more))


def query(uri: str, statement: str) -> list[tuple[Any, ...]]:
    if uri.startswith("sqlite"):
        statement = statement.replace("fourways.", "")
        lite = sqlite3.connect(uri.removeprefix("sqlite:///"))
        rows = lite.execute(statement).fetchall()
        lite.commit()
        lite.close()
        return rows
    with psycopg.connect(uri, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []
