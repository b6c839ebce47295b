"""What a prediction store promises, held to over PostgreSQL and SQLite alike."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fourways_runtime.errors import ConfigError, StoreUnavailable
from fourways_runtime.io.store import RunStore, open_reader, open_run_store, read_uri
from fourways_runtime.io.store.runs.plan import RunSettings
from fourways_runtime.scoring.columns import Reject
from tests.kit.stores import (
    Work,
    a_run,
    contract,
    look,
    predictions,
    publish,
    rejects_of,
    runs_of,
    tables_of,
)

pytestmark = pytest.mark.embedded


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
