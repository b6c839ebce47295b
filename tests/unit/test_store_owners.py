"""Predictions belong to a uid: what is asked for one is never answered with another's."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fourways_api import PurgeConfig
from fourways_runtime.errors import ConfigError, StoreUnavailable
from fourways_runtime.io.store import (
    Owners,
    RunStore,
    StreamDeclaration,
    StreamWriter,
    open_database,
    open_reader,
    open_run_store,
    open_stream_writer,
)
from fourways_runtime.io.store.streams.stream import DeadLetter, EventPosition, Fenced, Move
from fourways_runtime.workloads.purge import purge
from tests.kit.stores import (
    Work,
    a_run,
    ask,
    commit,
    contract,
    predictions,
    publish,
    tables_of,
)

OLD, NEW = "0f0f-old", "1a1a-new"


def _owners(namespace: str, uid: str) -> Owners:
    return Owners(namespace, {"churn": uid})


def _publish(uri: str, owners: Owners, name: str, value: float) -> None:
    with closing(open_run_store(uri, owners)) as store:
        publish(store, a_run(owners.namespace, name), predictions([1], y=[value]))


async def _answer(uri: str, owners: Owners) -> float | None:
    reader = open_reader(uri, 5.0, owners)
    try:
        assert await reader.ready()
        found = await reader.lookup(owners.namespace, "churn", [1])
        listed = await reader.deployments(owners.namespace)
        assert [name for name, _ in listed] == (["churn"] if found else [])
        return found.rows[1]["y"] if found else None
    finally:
        await reader.close()


async def test_another_uid_of_the_name_is_not_answered_with_its_run(
    uri: str, namespace: str
) -> None:
    old, new = _owners(namespace, OLD), _owners(namespace, NEW)
    _publish(uri, old, "r1", 1.0)
    assert await _answer(uri, old) == 1.0
    assert await _answer(uri, new) is None
    assert await _answer(uri, Owners(namespace, {"other": NEW})) is None, "deleted"
    _publish(uri, new, "r1", 2.0)
    assert await _answer(uri, new) == 2.0
    assert await _answer(uri, old) == 1.0, "the runs of both have the same name"


async def test_a_run_of_a_deleted_deployment_that_ends_late_is_its_own(
    uri: str, namespace: str
) -> None:
    old, new = _owners(namespace, OLD), _owners(namespace, NEW)
    with closing(open_run_store(uri, old)) as store, Work.on(store, a_run(namespace)) as work:
        work.record(predictions([1], y=[1.0]))
        _publish(uri, new, "r2", 2.0)
        work.publish()
    assert (await _answer(uri, new), await _answer(uri, old)) == (2.0, 1.0)


async def test_rows_without_a_uid_are_adopted_once(
    uri: str, writer: RunStore, namespace: str
) -> None:
    publish(writer, a_run(namespace), predictions([1], y=[3.0]))
    assert await _answer(uri, _owners(namespace, OLD)) == 3.0
    assert await _answer(uri, _owners(namespace, NEW)) is None


async def test_a_store_of_the_version_before_is_adopted_by_its_reader(
    uri: str, writer: RunStore, namespace: str
) -> None:
    publish(writer, a_run(namespace), predictions([1], y=[3.0]))
    if uri.startswith("sqlite"):
        with closing(open_database(uri)) as database:
            database.change("DROP TABLE @owners")
            database.change("UPDATE @schema_version SET version = 4")
    assert await _answer(uri, _owners(namespace, OLD)) == 3.0


def test_runs_and_rollbacks_are_those_of_the_uid(uri: str, namespace: str) -> None:
    old, new = _owners(namespace, OLD), _owners(namespace, NEW)
    for at, name in enumerate(("a", "b")):
        _publish(uri, old, name, float(at))
    _publish(uri, new, "c", 5.0)
    with closing(open_run_store(uri, new)) as store:
        assert [run.name for run in store.runs(namespace, "churn")] == ["c"]
        with pytest.raises(ConfigError, match="no earlier run of churn"):
            store.rollback(namespace, "churn")
        with pytest.raises(ConfigError, match="no run a of churn"):
            store.rollback(namespace, "churn", "a")
    with closing(open_run_store(uri, old)) as store:
        assert store.rollback(namespace, "churn") == "a"
    with closing(open_run_store(uri, new, read_only=True)) as store:
        assert [run.current for run in store.runs(namespace, "churn")] == [True]


def test_only_runs_of_current_uids_are_under_way(uri: str, namespace: str) -> None:
    old, new = _owners(namespace, OLD), _owners(namespace, NEW)
    with (
        closing(open_run_store(uri, old)) as of_old,
        closing(open_run_store(uri, new)) as of_new,
        Work.on(of_old, a_run(namespace, "r1")),
        Work.on(of_new, a_run(namespace, "r2")),
    ):
        assert of_old.under_way(namespace) == [("churn", "r1")]
        assert of_new.under_way(namespace) == [("churn", "r2")]
        with closing(open_run_store(uri, Owners(namespace, {}), read_only=True)) as gateway:
            assert gateway.under_way(namespace) == []


def _stream(uri: str, owners: Owners, **more: Any) -> StreamWriter:
    told = StreamDeclaration(owners.namespace, "churn", "v1", "sha256:0", contract(), "kafka t")
    return open_stream_writer(uri, told, owners)


def _score(writer: StreamWriter, value: float, start: int = 0) -> None:
    at = writer.positions({0: start})[0].next
    writer.begin({0: at})
    letter = DeadLetter(0, at, b"k", b"v", (), 1, f"bad {value}")
    commit(writer, [Move(0, at, at + 1)], predictions([1], y=[value]), [letter])


async def _live(uri: str, owners: Owners) -> tuple[float | None, str | None]:
    reader = open_reader(uri, 5.0, owners)
    place = EventPosition(0, 0)
    try:
        found = await reader.live(owners.namespace, "churn", [1], [place])
        if found is None:
            return None, None
        refused = found.refused.get(place)
        answer = found.answers.get(1)
        return answer.outputs["y"] if answer else None, refused.reason if refused else None
    finally:
        await reader.close()


async def test_a_stream_made_anew_starts_over_and_answers_its_own(uri: str, namespace: str) -> None:
    old, new = _owners(namespace, OLD), _owners(namespace, NEW)
    with closing(_stream(uri, old)) as first:
        _score(first, 1.0)
        assert await _live(uri, old) == (1.0, "bad 1.0")
        assert await _live(uri, new) == (None, None)
        with closing(_stream(uri, new)) as second:
            assert await _live(uri, new) == (None, None), "declared, and nothing scored"
            _score(second, 2.0)
            _score(first, 3.0)
    assert await _live(uri, new) == (2.0, "bad 2.0")
    assert await _live(uri, old) == (3.0, "bad 1.0")


@pytest.mark.parametrize("first", [OLD, NEW])
async def test_a_purge_removes_one_uid_and_nothing_of_another(
    uri: str, namespace: str, first: str
) -> None:
    for uid in sorted((OLD, NEW), key=lambda u: u != first):
        owners = _owners(namespace, uid)
        _publish(uri, owners, "r1", 1.0)
        with closing(_stream(uri, owners)) as writer:
            _score(writer, 2.0)
    old, new = _owners(namespace, OLD), _owners(namespace, NEW)
    tables = len(tables_of(uri))
    with closing(open_database(uri)) as database:
        listed = purge(database, PurgeConfig(namespace=namespace, name="churn")).stored
        assert {(d.uid, d.runs, d.rows, d.live, d.dead_letters) for d in listed} == {
            (OLD, 1, 1, 1, 1),
            (NEW, 1, 1, 1, 1),
        }
        for _ in range(2):  # safe to repeat
            purge(database, PurgeConfig(namespace=namespace, name="churn", uids=(OLD,)))
        left = purge(database, PurgeConfig(namespace=namespace, name="churn")).stored
        assert [data.uid for data in left] == [NEW]
    assert await _answer(uri, old) is None
    assert await _answer(uri, new) == 1.0
    assert await _live(uri, new) == (2.0, "bad 2.0")
    assert len(tables_of(uri)) == tables - 1
    for name in ("runs", "streams", "positions", "dead_letters", "published"):
        query = f"SELECT 1 FROM {{0}}{name} WHERE namespace = '{{1}}'"  # noqa: S608
        assert len(ask(uri, query, namespace)) == 1


def test_a_worker_of_a_purged_uid_writes_nothing_more(uri: str, namespace: str) -> None:
    old = _owners(namespace, OLD)
    with (
        closing(open_run_store(uri, old)) as store,
        Work.on(store, a_run(namespace)) as work,
        closing(_stream(uri, old)) as writer,
    ):
        work.record(predictions([1]))
        _score(writer, 1.0)
        with closing(open_database(uri)) as database:
            purge(database, PurgeConfig(namespace=namespace, name="churn", uids=(OLD,)))
        with pytest.raises((ConfigError, StoreUnavailable)):
            work.publish()
        with pytest.raises((Fenced, StoreUnavailable)):
            _score(writer, 2.0)
    for again in (lambda: _publish(uri, old, "r2", 1.0), lambda: _stream(uri, old)):
        with pytest.raises(ConfigError, match=f"uid {OLD}.*purged"):
            again()
    with closing(open_database(uri)) as database:
        assert purge(database, PurgeConfig(namespace=namespace, name="churn")).stored == ()


def test_rows_without_a_uid_can_be_purged(uri: str, writer: RunStore, namespace: str) -> None:
    publish(writer, a_run(namespace), predictions([1, 2]))
    with closing(open_database(uri)) as database:
        config = PurgeConfig(namespace=namespace, name="churn")
        assert [(d.uid, d.rows) for d in purge(database, config).stored] == [("", 2)]
        purge(database, config.model_copy(update={"uids": ("",)}))
        assert purge(database, config).stored == ()


async def test_a_reader_that_may_not_write_leaves_the_uids_to_the_workers(
    postgres: Any, tmp_path: Path, namespace: str
) -> None:
    """The gateway of a read-only login still answers what workers have claimed."""
    uri = postgres.uri()
    owners = _owners(namespace, OLD)
    _publish(uri, owners, "r1", 4.0)
    read_only = uri + ("&" if "?" in uri else "?") + "options=-cdefault_transaction_read_only%3Don"
    assert await _answer(read_only, owners) == 4.0
    assert await _answer(read_only, _owners(namespace, NEW)) is None
