"""What a prediction store promises, held to over PostgreSQL and SQLite alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fourways_api import Contract
from fourways_runtime.errors import ConfigError, StoreUnavailable
from fourways_runtime.io.store import (
    PublishedRun,
    Run,
    RunStore,
    StreamWriter,
    open_reader,
    open_run_store,
    read_uri,
)
from fourways_runtime.io.store.runs import publish as publishing
from fourways_runtime.io.store.runs.chunk import ChunkRecord
from fourways_runtime.io.store.runs.ledger import Claim, Plan, RunLedger, RunSettings
from fourways_runtime.io.store.runs.publish import Sealed
from fourways_runtime.io.store.streams.stream import DeadLetter, Move
from fourways_runtime.scoring.columns import Predictions, Reject
from fourways_runtime.scoring.splits import Split
from tests.unit.postgres import Server, postgres  # noqa: F401  (a fixture)

NUMBERS = count()
STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(params=["postgresql", "sqlite"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    server: Server = request.getfixturevalue("postgres")
    return server.uri()


@pytest.fixture
def writer(uri: str) -> Iterator[RunStore]:
    opened = open_run_store(uri)
    yield opened
    opened.close()


@pytest.fixture
def namespace() -> str:
    """A namespace of the test's own: the server is everybody's."""
    return f"n{next(NUMBERS)}"


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
    tries: int = 1,
) -> None:
    """Write a stream's answers, and wait until that is done."""
    writer.send(moves, answers, dead, tries=tries)
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


async def test_what_is_published_is_found_under_the_keys_as_asked(
    uri: str, writer: RunStore, namespace: str
) -> None:
    done = publish(writer, a_run(namespace), predictions([1, 2]), predictions([-3], 2))
    assert (done.name, done.rows, done.rejects, done.version) == ("r1", 3, 0, "v1")
    found = await look(uri, namespace, [1, "2", "-3", 4, "x", "1", 2**70])
    assert found.rows == {1: {"y": 0.0}, "1": {"y": 0.0}, "2": {"y": 1.0}, "-3": {"y": 2.0}}
    assert found.run == done == writer.published(namespace, "churn")
    assert found.run.contract == contract()
    assert found.run.computed_at.tzinfo == UTC


async def test_text_keys_are_found_exactly(uri: str, writer: RunStore, namespace: str) -> None:
    keys = ["a", "A", "ü'\"%s", "1"]
    publish(writer, a_run(namespace, spec=contract(key="string")), predictions(keys))
    found = await look(uri, namespace, [*keys, 1, "b\0", "\ud800", "a "])
    assert found.rows == {key: {"y": float(at)} for at, key in enumerate(keys)} | {1: {"y": 3.0}}


EVERY_TYPE: dict[str, list[Any]] = {
    "bool": [True, False],
    "string": ["", "ü\n\t\\N"],
    "int8": [-128, 127],
    "int16": [-(2**15), 2**15 - 1],
    "int32": [-(2**31), 2**31 - 1],
    "int64": [-(2**63), 2**63 - 1],
    "uint8": [0, 255],
    "uint16": [0, 2**16 - 1],
    "uint32": [0, 2**32 - 1],
    "uint64": [10_001, 2**64 - 1],
    "float32": [-0.5, float(np.float32(3.4e38))],
    "float64": [5e-324, 1.7976931348623157e308],
}


@pytest.mark.parametrize("key", ["int64", "string"])
async def test_every_type_and_shape_comes_back_as_it_went(
    uri: str, writer: RunStore, namespace: str, key: str
) -> None:
    """One table of all types: text between numbers is where packing by offsets could slip."""
    outputs, columns = [], {}
    for kind, values in EVERY_TYPE.items():
        dtype = object if kind == "string" else kind
        outputs += [
            {"name": f"o_{kind}", "type": kind},
            {"name": f"v_{kind}", "type": kind, "shape": [2]},
            {"name": f"m_{kind}", "type": kind, "shape": [1, 2]},
        ]
        columns[f"o_{kind}"] = np.array(values, dtype)
        columns[f"v_{kind}"] = np.array([values, values[::-1]], dtype)
        columns[f"m_{kind}"] = np.array([[values], [values[::-1]]], dtype)
    keys = [1, 2] if key == "int64" else ["one", "ü2"]
    publish(
        writer, a_run(namespace, spec=contract(*outputs, key=key)), predictions(keys, **columns)
    )
    found = (await look(uri, namespace, keys)).rows
    assert found == {
        asked: {
            name: column[at].tolist() if hasattr(column[at], "tolist") else column[at]
            for name, column in columns.items()
        }
        for at, asked in enumerate(keys)
    }
    kinds = {name: type(value) for name, value in found[keys[0]].items()}
    assert kinds["o_bool"] is bool
    assert kinds["o_uint64"] is int


async def test_names_a_database_keeps_for_itself_or_does_not_tell_apart_are_fine(
    uri: str, writer: RunStore, namespace: str
) -> None:
    names = ["xmin", "ctid", "Score", "score", "SELECT", "position", "n" * 63, "N" * 63]
    outputs = [{"name": name, "type": "int32"} for name in names]
    batch = predictions([1], **{name: [at] for at, name in enumerate(names)})
    publish(writer, a_run(namespace, spec=contract(*outputs)), batch)
    found = await look(uri, namespace, [1])
    assert found.rows == {1: {name: at for at, name in enumerate(names)}}


async def test_nothing_published_is_told_from_nothing_found(
    uri: str, writer: RunStore, namespace: str
) -> None:
    assert await look(uri, namespace, [1]) is None
    publish(writer, a_run(namespace), predictions([1]))
    assert (await look(uri, namespace, [2])).rows == {}
    assert (await look(uri, namespace, [])).rows == {}
    assert await look(uri, namespace, [1], deployment="other") is None


async def test_readers_see_the_run_before_until_the_next_is_published(
    uri: str, writer: RunStore, namespace: str
) -> None:
    publish(writer, a_run(namespace), predictions([1]))
    with Work.on(writer, a_run(namespace, "r2")) as work:
        work.record(predictions([1], 7))
        work.seal()
        assert (await look(uri, namespace, [1])).rows == {1: {"y": 0.0}}
        work.publish()
        assert (await look(uri, namespace, [1])).rows == {1: {"y": 7.0}}


@pytest.mark.parametrize("keep", [1, 3])
async def test_one_reader_follows_the_pointer_and_outlives_dropped_tables(
    uri: str, writer: RunStore, namespace: str, keep: int
) -> None:
    reader = open_reader(uri, 5.0)
    for at in range(4):
        publish(writer, a_run(namespace, f"r{at}"), predictions([1], at), keep=keep)
        found = await reader.lookup(namespace, "churn", [1])
        assert found is not None
        assert (found.run.name, found.rows) == (f"r{at}", {1: {"y": float(at)}})
    await reader.close()


def test_of_a_key_that_occurs_again_the_row_furthest_down_stays(
    uri: str, writer: RunStore, namespace: str
) -> None:
    odd = (Reject(99, "k", "x", "nul \0 and \ud800 too"),) if "sql:" in uri else ()
    with Work.on(writer, a_run(namespace)) as work:
        work.record(predictions([1, 2, 1], 10), predictions([2, 1], 0), rejects=odd)
        sealed = work.seal()
        extra = len(odd)
        assert (sealed.rows, sealed.rejects) == (2, 3 + extra)
        done = work.publish()
    assert (done.rows, done.rejects) == (2, 3 + extra)
    rows = rejects_of(uri, namespace)
    assert [row for row in rows if row[0] != 99] == [
        (0, "2", "id", "a later row has the same key"),
        (1, "1", "id", "a later row has the same key"),
        (10, "1", "id", "a later row has the same key"),
    ]


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


def test_only_the_latest_runs_are_kept(uri: str, writer: RunStore, namespace: str) -> None:
    before = tables_of(uri)
    for at in range(5):
        publish(writer, a_run(namespace, f"r{at}"), predictions([at]), keep=2)
    assert runs_of(uri, namespace) == ["r3", "r4"]
    assert len(tables_of(uri) - before) == 2
    assert writer.finished(namespace, "churn", "r3") is not None
    assert writer.finished(namespace, "churn", "r0") is None


def test_a_run_already_published_says_so_and_is_not_touched(
    uri: str, writer: RunStore, namespace: str
) -> None:
    done = publish(writer, a_run(namespace), predictions([1]))
    publish(writer, a_run(namespace, "r2"), predictions([1]))
    assert writer.finished(namespace, "churn", "r1") == done
    assert writer.finished(namespace, "churn", "r9") is None
    again = writer.ledger(a_run(namespace), RunSettings("v1 sha256:0"), "w")
    with again:
        assert again.join() is False
    assert writer.finished(namespace, "churn", "r1") == done


def test_a_run_that_is_still_written_is_not_taken_for_dead(
    uri: str, writer: RunStore, namespace: str
) -> None:
    other = open_run_store(uri)
    with Work.on(other, a_run(namespace, "slow")) as slow:
        slow.record(predictions([1]))
        publish(writer, a_run(namespace, "quick"), predictions([1]))
        assert slow.publish().name == "slow"
    other.close()


def test_deployments_do_not_meet(uri: str, writer: RunStore, namespace: str) -> None:
    publish(writer, a_run(namespace, deployment="a"), predictions([1]), keep=1)
    publish(writer, a_run(namespace, deployment="b"), predictions([2]), keep=1)
    assert writer.finished(namespace, "a", "r1") is not None
    assert writer.published(namespace, "c") is None


async def test_a_reader_lists_what_is_published(uri: str, writer: RunStore, namespace: str) -> None:
    reader = open_reader(uri, 5.0)
    assert await reader.deployments(namespace) == []
    publish(writer, a_run(namespace, deployment="b"), predictions([1]))
    publish(writer, a_run(namespace, deployment="a"), predictions([1]))
    assert [name for name, _ in await reader.deployments(namespace)] == ["a", "b"]
    assert await reader.ready() is True
    await reader.close()


def test_a_store_of_a_newer_version_is_left_alone(uri: str, tmp_path: Path, request: Any) -> None:
    if uri.startswith("postgresql"):
        uri = request.getfixturevalue("postgres").database()
    open_run_store(uri).close()
    if uri.startswith("sqlite"):
        import sqlite3

        connection: Any = sqlite3.connect(uri.removeprefix("sqlite:///"))
        connection.execute("UPDATE schema_version SET version = 99")
    else:
        import psycopg

        connection = psycopg.connect(uri)
        connection.execute("UPDATE fourways.schema_version SET version = 99")
    connection.commit()
    connection.close()
    with pytest.raises(ConfigError, match="schema version 99"):
        open_run_store(uri)


@pytest.mark.parametrize(
    "text", ["mysql://u:hunter2@h/d", "hunter2", "postgresql://u:hunter2@h/d?colour=red"]
)
def test_a_uri_that_names_no_store_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        open_run_store(text)
    assert "hunter2" not in str(error.value)


def test_the_uri_comes_from_a_mounted_file(tmp_path: Path) -> None:
    file = tmp_path / "uri"
    with pytest.raises(ConfigError, match="cannot be read"):
        read_uri(str(file))
    file.write_text("\n")
    with pytest.raises(ConfigError, match="empty"):
        read_uri(str(file))
    file.write_text("sqlite:///x\n")
    assert read_uri(str(file)) == "sqlite:///x"


async def test_a_sqlite_file_that_is_not_there_yet_has_nothing_published(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/later.db"
    reader = open_reader(uri, 5.0)
    assert await reader.lookup("n", "churn", [1]) is None
    assert await reader.deployments("n") == []
    writer = open_run_store(uri)
    publish(writer, a_run("n"), predictions([1]))
    writer.close()
    assert await reader.lookup("n", "churn", [1]) is not None
    await reader.close()


async def test_a_sqlite_file_that_is_none_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_text("no database at all, whatever its name says" * 100)
    with pytest.raises(StoreUnavailable):
        open_run_store(f"sqlite:///{tmp_path}/store.db")
    with pytest.raises(StoreUnavailable):
        await look(f"sqlite:///{tmp_path}/store.db", "n", [1])
