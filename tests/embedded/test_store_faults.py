"""The store when workers are killed, lines are cut and servers restart: old or new, never half."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg_pool.base import AttemptWithBackoff

from fourways_runtime.errors import StoreUnavailable
from fourways_runtime.io.postgres.connection import explain
from fourways_runtime.io.store import (
    StreamDeclaration,
    open_reader,
    open_run_store,
    open_stream_writer,
    postgres_database,
)
from fourways_runtime.io.store.runs.chunk import ChunkRecord
from fourways_runtime.io.store.streams import postgres_stream
from fourways_runtime.io.store.streams.stream import Move
from tests.kit.postgres import postgres_server
from tests.kit.stores import (
    Work,
    a_run,
    commit,
    contract,
    look,
    predictions,
    publish,
    runs_of,
    tables_of,
)
from tests.kit.waiting import until_async
from tools.servers.cut_line import CutLine
from tools.servers.postgres import Server

# Not forked from this process: threads of a pool may hold locks, which no one frees in a fork.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.kit.stores"])
WAIT = 20.0

pytestmark = pytest.mark.embedded


@pytest.fixture(params=["postgresql", "sqlite"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    server: Server = request.getfixturevalue("postgres")
    return server.database()


STAGES = ["begun", "claimed", "written", "recorded", "sealed", "published"]


def _work_until(stage: str, uri: str, here: Any) -> None:
    """Score run r2 up to a stage, say so, and hang: a worker about to be killed."""

    def stop(reached: str) -> None:
        if reached == stage:
            here.send(reached)
            signal.pause()

    work = Work.on(open_run_store(uri), a_run("n", "r2"))
    stop("begun")
    chunk = ChunkRecord(work.ledger, work.claim().number)
    stop("claimed")
    chunk.write(predictions([1, 2], 100))
    stop("written")
    chunk.done(2)
    stop("recorded")
    work.seal()
    stop("sealed")
    work.publish(1)
    stop("published")


@pytest.mark.parametrize("stage", STAGES)
async def test_a_worker_killed_at_any_stage_leaves_old_or_new_and_the_next_try_ends_well(
    uri: str, stage: str
) -> None:
    writer = open_run_store(uri)
    publish(writer, a_run("n", "r1"), predictions([1]))
    ours, theirs = PROCESSES.Pipe()
    worker = PROCESSES.Process(daemon=True, target=_work_until, args=(stage, uri, theirs))
    worker.start()
    assert ours.poll(WAIT)
    os.kill(worker.pid or 0, signal.SIGKILL)
    worker.join()
    seen = (await look(uri, "n", [1, 2])).rows
    new = {1: {"y": 100.0}, 2: {"y": 101.0}}
    assert seen == (new if stage == "published" else {1: {"y": 0.0}})

    done = writer.finished("n", "churn", "r2")
    if done is None:
        _await_unlocked(uri)
        with Work.on(writer, a_run("n", "r2")) as work:
            if not work.ledger.totals().complete:
                work.record(predictions([1, 2], 100))
            done = work.publish(1)
    assert (done.name, done.rows, done.rejects) == ("r2", 2, 0)
    assert (await look(uri, "n", [1, 2])).rows == new
    writer.close()


@pytest.mark.parametrize("stage", STAGES[:-1])
def test_what_a_dead_worker_left_is_dropped_by_another_run(uri: str, stage: str) -> None:
    ours, theirs = PROCESSES.Pipe()
    worker = PROCESSES.Process(daemon=True, target=_work_until, args=(stage, uri, theirs))
    worker.start()
    assert ours.poll(WAIT)
    worker.kill()
    worker.join()
    writer = open_run_store(uri)
    assert runs_of(uri, "n") == ["r2"]
    _await_unlocked(uri)
    publish(writer, a_run("n", "r3"), predictions([1]))
    assert runs_of(uri, "n") == ["r3"]
    assert len(tables_of(uri)) == 1
    writer.close()


def _await_unlocked(uri: str) -> None:
    """Wait until the server has noticed that the worker is gone."""
    if uri.startswith("postgresql"):
        with psycopg.connect(uri, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_advisory_lock((classid::bigint << 32) | objid::bigint), "
                "pg_advisory_unlock((classid::bigint << 32) | objid::bigint) FROM pg_locks "
                "WHERE locktype = 'advisory' AND objsubid = 1 AND pid <> pg_backend_pid()"
            )


@pytest.mark.parametrize("forward", [False, True], ids=["before the commit", "after the commit"])
async def test_a_line_cut_at_the_commit_is_resolved_by_the_next_try(
    postgres: Server,
    cut_line: Callable[..., CutLine],
    forward: bool,
) -> None:
    name = f"cut-{forward}"
    uri = postgres.uri()
    writer = open_run_store(uri)
    publish(writer, a_run(name, "r1"), predictions([1]))
    through = cut_line(b"COMMIT", forward=forward)
    cut_writer = open_run_store(through.uri(uri))
    run = Work.on(cut_writer, a_run(name, "r2"))
    run.record(predictions([1], 7))
    run.seal()
    through.arm()
    with pytest.raises(StoreUnavailable) as error:
        run.publish()
    assert "s3cret" not in str(error.value)
    run.__exit__()
    cut_writer.close()

    done = writer.finished(name, "churn", "r2")
    assert (done is not None) is forward
    assert (await look(uri, name, [1])).rows == {1: {"y": 7.0 if forward else 0.0}}
    if done is None:
        with Work.on(writer, a_run(name, "r2")) as again:
            done = again.publish()
    assert done.rows == 1
    assert (await look(uri, name, [1])).rows == {1: {"y": 7.0}}
    writer.close()


def _publish_through(uri: str, name: str, ready: Any) -> None:
    run = Work.on(open_run_store(uri), a_run(name, "r2"))
    run.record(predictions([1], 7))
    run.seal()
    ready.send("sealed")
    ready.recv()
    run.publish()


@pytest.mark.parametrize("forward", [False, True], ids=["before the commit", "after the commit"])
async def test_a_worker_killed_within_the_commit_leaves_old_or_new(
    postgres: Server,
    cut_line: Callable[..., CutLine],
    forward: bool,
) -> None:
    name = f"kill-{forward}"
    uri = postgres.uri()
    writer = open_run_store(uri)
    publish(writer, a_run(name, "r1"), predictions([1]))
    through = cut_line(
        b"COMMIT", forward=forward, then=lambda: os.kill(worker.pid or 0, signal.SIGKILL)
    )
    ours, theirs = PROCESSES.Pipe()
    worker = PROCESSES.Process(
        daemon=True, target=_publish_through, args=(through.uri(postgres.uri()), name, theirs)
    )
    worker.start()
    assert ours.recv() == "sealed"
    through.arm()
    ours.send("go")
    worker.join(WAIT)
    assert worker.exitcode == -signal.SIGKILL
    assert (await look(uri, name, [1])).rows == {1: {"y": 7.0 if forward else 0.0}}
    if writer.finished(name, "churn", "r2") is None:
        with Work.on(writer, a_run(name, "r2")) as again:
            again.publish()
    assert (await look(uri, name, [1])).rows == {1: {"y": 7.0}}
    writer.close()


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """A server these tests may stop; it runs before each and after."""
    with postgres_server() as server:
        yield server


async def test_readers_and_writers_recover_when_the_server_is_back(
    own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the server had been away for long: the pool's own backoff has grown.
    monkeypatch.setattr(AttemptWithBackoff, "INITIAL_DELAY", 30.0)
    uri = own_server.database()
    writer = open_run_store(uri)
    publish(writer, a_run("n"), predictions([1]))
    reader = open_reader(uri, 1.0)
    asked = [reader.lookup("n", "churn", [1]) for _ in range(20)]
    assert all(found is not None for found in await asyncio.gather(*asked))

    own_server.stop()
    with pytest.raises(StoreUnavailable) as error:
        await reader.lookup("n", "churn", [1])
    assert "s3cret" not in str(error.value)
    assert await reader.ready() is False
    with pytest.raises(StoreUnavailable):
        writer.published("n", "churn")
    writer.close()
    with pytest.raises(StoreUnavailable):
        open_run_store(uri)

    own_server.start()
    found = await until_async(
        lambda: reader.lookup("n", "churn", [1]), "the store answers", ignoring=StoreUnavailable
    )
    assert found.rows == {1: {"y": 0.0}}
    # Connections the pool held before are dead; none of them may reach a caller.
    asked = [reader.lookup("n", "churn", [1]) for _ in range(20)]
    assert all(found is not None for found in await asyncio.gather(*asked))
    await reader.close()

    publish(open_run_store(uri), a_run("n", "r2"), predictions([1], 7))
    assert (await look(uri, "n", [1])).rows == {1: {"y": 7.0}}


async def test_a_restart_between_two_questions_is_not_noticed(own_server: Server) -> None:
    uri = own_server.database()
    writer = open_run_store(uri)
    publish(writer, a_run("n"), predictions([1]))
    writer.close()
    reader = open_reader(uri, 5.0)
    assert await reader.lookup("n", "churn", [1]) is not None
    own_server.stop()
    own_server.start()
    assert await reader.lookup("n", "churn", [1]) is not None
    await reader.close()


async def test_a_server_that_hangs_is_unavailable_within_the_timeout(
    postgres: Server,
) -> None:
    uri = postgres.database()
    writer = open_run_store(uri)
    publish(writer, a_run("n"), predictions([1]))
    reader = open_reader(uri, 0.3)
    assert await reader.lookup("n", "churn", [1]) is not None
    blocker = psycopg.connect(uri)
    blocker.execute("LOCK TABLE fourways.published IN ACCESS EXCLUSIVE MODE")
    async with asyncio.timeout(20):
        with pytest.raises(StoreUnavailable):
            await reader.lookup("n", "churn", [1])
    blocker.close()
    await reader.close()
    writer.close()


def test_who_holds_a_lock_on_the_store_is_named(
    postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_database, "LOCK_SECONDS", 1)
    uri = postgres.database()
    writer = open_run_store(uri)
    with psycopg.connect(uri, application_name="pg_dump") as blocker:
        blocker.execute("LOCK TABLE fourways.runs IN SHARE MODE")
        with pytest.raises(StoreUnavailable, match=r"timeout; runs is held by .*pg_dump.*Share"):
            publish(writer, a_run("n"), predictions([1]))
    publish(writer, a_run("n"), predictions([1]))
    writer.close()


@pytest.mark.parametrize("lock", ["live", "streams", "positions"])
def test_who_holds_a_lock_that_a_stream_waits_for_is_named(
    postgres: Server, monkeypatch: pytest.MonkeyPatch, lock: str
) -> None:
    monkeypatch.setattr(postgres_stream, "LOCK_SECONDS", 1)
    uri = postgres.database()
    stream = StreamDeclaration("n", "anomaly", "v1", "sha256:0", contract(), "memory")
    writer = open_stream_writer(lambda: uri, stream)
    writer.begin({0: 0})

    def write() -> None:
        commit(writer, [Move(0, 0, 1)], predictions([1]))

    def declare() -> None:
        open_stream_writer(lambda: uri, stream).close()

    with psycopg.connect(uri, application_name="pg_dump") as blocker:
        tables = blocker.execute(
            "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
            "WHERE nspname = 'fourways' AND relkind = 'r'"
        ).fetchall()
        table = next(name for (name,) in tables if name.startswith(lock))
        blocker.execute(f"LOCK TABLE fourways.{table} IN SHARE MODE")
        with pytest.raises(StoreUnavailable, match=rf"timeout; {table} is held by .*pg_dump"):
            (declare if lock == "streams" else write)()
    write()
    writer.close()


async def test_a_rotated_secret_needs_no_restart(postgres: Server, tmp_path: Path) -> None:
    uri = postgres.database()
    writer = open_run_store(uri)
    publish(writer, a_run("n"), predictions([1]))
    file = tmp_path / "uri"
    file.write_text("postgresql://nobody-here@/missing?host=/nonexistent")
    reader = open_reader(file.read_text, 0.5)
    with pytest.raises(StoreUnavailable):
        await reader.lookup("n", "churn", [1])
    file.write_text(uri)
    await until_async(
        lambda: reader.lookup("n", "churn", [1]),
        "the new address is read",
        ignoring=StoreUnavailable,
    )
    await reader.close()
    writer.close()


def test_workers_that_start_at_once_make_one_schema(uri: str) -> None:
    barrier = threading.Barrier(6)
    failures: list[BaseException] = []

    def begin(number: int) -> None:
        try:
            barrier.wait()
            writer = open_run_store(uri)
            publish(writer, a_run("n", f"r{number}"), predictions([number]))
            writer.close()
        except BaseException as error:  # noqa: BLE001  (shown by the test)
            failures.append(error)

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    writer = open_run_store(uri)
    published = writer.published("n", "churn")
    assert published is not None
    assert published.name in {f"r{number}" for number in range(6)}
    writer.close()


def test_a_failed_prune_does_not_fail_the_run(postgres: Server) -> None:
    uri = postgres.database()
    writer = open_run_store(uri)
    publish(writer, a_run("n", "r1"), predictions([1]), keep=1)
    (table,) = tables_of(uri)
    with psycopg.connect(uri) as reader:
        reader.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier("fourways", table)))
        assert publish(writer, a_run("n", "r2"), predictions([1]), keep=1).name == "r2"
        assert table in tables_of(uri)
    publish(writer, a_run("n", "r3"), predictions([1]), keep=1)
    assert runs_of(uri, "n") == ["r3"]
    assert len(tables_of(uri)) == 1
    writer.close()


def test_errors_never_show_the_password(postgres: Server) -> None:
    uri = postgres.uri().replace("/postgres?", "/no-such-database?")
    with pytest.raises(StoreUnavailable) as error:
        open_run_store(uri)
    assert "no-such-database" in str(error.value)
    assert "s3cret" not in str(error.value)
    error_text = Exception("bad p@ss/word and p%40ss%2Fword")
    said = explain(error_text, "postgresql://u:p%40ss%2Fword@h/d")
    assert said == "bad *** and ***"


def test_times_are_kept_in_utc(uri: str) -> None:
    writer = open_run_store(uri)
    done = publish(writer, a_run("n"), predictions([1]))
    kept = writer.published("n", "churn")
    assert kept is not None
    assert kept.computed_at == done.computed_at
    assert abs((datetime.now(UTC) - kept.computed_at).total_seconds()) < 60
    writer.close()


def test_sqlite_leaves_no_files_behind(tmp_path: Path) -> None:
    writer = open_run_store(f"sqlite:///{tmp_path}/store.db")
    publish(writer, a_run("n"), predictions([1]))
    Work.on(writer, a_run("n", "r2")).__exit__()
    writer.close()
    assert [file.name for file in tmp_path.iterdir()] == ["store.db"]
