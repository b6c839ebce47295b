"""Batch runs while lines are cut, servers restart, disks fill, tables change: old or new."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from fourways_runtime.errors import SourceError, StoreFull, Unavailable, WorkloadError
from fourways_runtime.io.store import open_run_store, sqlite_database
from fourways_runtime.workloads import place_watch
from fourways_runtime.workloads.batch import BatchRun, chunk_loop, claims, run_context
from tests.kit.batch_world import World
from tools.servers.postgres import Server
from tools.torture.batch import Scenario, torture

pytestmark = [
    pytest.mark.embedded,
    # A transaction that nobody ends is found by the garbage collector.
    pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning"),
]

ROWS = 30_000
CHUNKS = 10


def world_of(folder: Path, uri: str) -> World:
    world = World(folder, uri, "n")
    grow(world, 0)
    return world


def grow(world: World, base: float) -> None:
    """Write the table; the answer of row n is 2 * (n % 100 + base)."""
    world.table(
        id=[f"c{n}" for n in range(ROWS)],
        age=np.arange(ROWS) % 100,
        spend=np.full(ROWS, base, np.float32),
        row_group_size=ROWS // CHUNKS,
    )


def run_of(world: World, name: str) -> BatchRun:
    return BatchRun(world.config(memoryBytes=8 * (ROWS // CHUNKS) * (8 * 3 + 64)), name)


def at(run: BatchRun, stage: str, act: Callable[[], object], times: int = 1) -> None:
    """Act when the run says a stage, the first so many times."""
    original = run.context.log
    left = times

    def log(said: str, **details: Any) -> None:
        nonlocal left
        original(said, **details)
        if said == stage and left:
            left -= 1
            act()

    run.context.log = log  # type: ignore[method-assign]


async def seen(world: World, *uris: str) -> float:
    """Return what the rows of the published run say their base is: the same for all of them."""
    if uris:
        (world.uri,) = uris
    keys = [f"c{n}" for n in range(0, ROWS, 373)]
    rows = await world.rows(*keys)
    assert set(rows) == set(keys)
    bases = {rows[key]["y"] / 2 - int(key[1:]) % 100 for key in keys}
    assert len(bases) == 1, "half a run"
    return float(bases.pop())


@pytest.fixture(autouse=True)
def say_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_loop, "SAY_SECONDS", -1.0)
    monkeypatch.setattr(run_context, "RETRY_SECONDS", 0.05)


async def test_a_server_that_restarts_midway_costs_no_recorded_chunk(
    own_server: Server, tmp_path: Path
) -> None:
    world = world_of(tmp_path, own_server.database())
    run = run_of(world, "r1")

    def restart() -> None:
        own_server.stop()
        own_server.start()

    at(run, "progress", restart, times=3)
    done = await asyncio.to_thread(run.execute)
    assert done.rows == ROWS
    assert await seen(world) == 0.0
    writer = open_run_store(world.uri)
    # Read twice at the most is what was under way; what was recorded before is not scored again.
    ((most, rows),) = writer.database.rows("SELECT max(attempts), sum(rows) FROM @chunks")
    assert (int(rows), int(most) <= 4) == (ROWS, True)
    writer.close()


async def test_a_full_disk_is_named_and_the_next_try_goes_on(
    postgres: Server,
    tmp_path: Path,
) -> None:
    uri = postgres.database()
    world = world_of(tmp_path, uri)
    open_run_store(uri).close()
    full = """
        CREATE FUNCTION no_room() RETURNS trigger AS $$ BEGIN IF NEW.number > 3 THEN
        RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
        END IF; RETURN NEW; END $$ LANGUAGE plpgsql;
        CREATE TRIGGER no_room BEFORE UPDATE ON fourways.chunks FOR EACH ROW
        WHEN (NEW.state = 'done') EXECUTE FUNCTION no_room()"""
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(full)
        with pytest.raises(StoreFull, match="No space left on device") as error:
            await asyncio.to_thread(run_of(world, "r1").execute)
        assert error.value.exit_code == 75
        connection.execute("DROP TRIGGER no_room ON fourways.chunks")
        before = connection.execute("SELECT count(*) FROM fourways.chunks WHERE state = 'done'")
        assert before.fetchone() == (4,)
    again = run_of(world, "r1")
    await asyncio.to_thread(again.execute)
    assert again.progress.rows == ROWS * 6 // CHUNKS
    assert await seen(world) == 0.0


async def test_a_full_sqlite_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_of(tmp_path, f"sqlite:///{tmp_path}/store.db")
    connect = sqlite_database.connect

    def small(path: Path) -> Any:
        connection = connect(path)
        connection.execute("PRAGMA max_page_count = 120")
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(sqlite_database, "connect", small)
        with pytest.raises(StoreFull, match="full"):
            await asyncio.to_thread(run_of(world, "r1").execute)
    await asyncio.to_thread(run_of(world, "r1").execute)
    assert await seen(world) == 0.0


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda world: grow(world, 9), "changed while it was read"),
        (lambda world: world.file("table.parquet").unlink(), "no longer exists"),
    ],
    ids=["changes", "vanishes"],
)
async def test_a_table_that_does_not_last_ends_the_run_and_publishes_nothing(
    tmp_path: Path, harm: Callable[[World], None], told: str
) -> None:
    world = world_of(tmp_path, f"sqlite:///{tmp_path}/store.db")
    await asyncio.to_thread(run_of(world, "r1").execute)
    grow(world, 7)
    run = run_of(world, "r2")
    at(run, "progress", lambda: harm(world))
    with pytest.raises(WorkloadError, match=told) as error:
        await asyncio.to_thread(run.execute)
    assert isinstance(error.value, SourceError)
    assert await seen(world) == 0.0
    writer = open_run_store(world.uri)
    assert [(r.name, r.state) for r in writer.runs("n", "churn")] == [
        ("r2", "failed"),
        ("r1", "published"),
    ]
    writer.close()


@pytest.mark.parametrize(
    ("disturb", "store", "sink"),
    [("kill", "postgresql", "table"), ("kill", "sqlite", ""), ("term", "postgresql", "")],
)
def test_workers_disturbed_at_random_moments_publish_what_they_would_in_peace(
    postgres: Server,
    tmp_path: Path,
    disturb: str,
    store: str,
    sink: str,
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    scenario = Scenario(store, sink=sink, disturb=disturb, times=4, rows=50_000, seed=seed)
    told = torture(scenario, tmp_path, postgres if store == "postgresql" else None)
    assert told.startswith("4 times"), f"seed {seed}"


@pytest.mark.parametrize(("stage", "what"), [("written", "publishing the run"), (None, "writing")])
def test_a_store_that_stands_still_is_named_with_what_the_run_does(
    stage: str | None,
    what: str,
    own_server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(place_watch, "QUIET_SECONDS", 1.0)
    monkeypatch.setattr(place_watch, "ASK_SECONDS", 0.2)
    monkeypatch.setattr(place_watch, "LOOK_SECONDS", 0.1)
    world = world_of(tmp_path, own_server.database())
    run = run_of(world, "r1")
    told: list[str] = []

    def stop() -> None:
        own_server.pause(accepting=False)

    def stuck(error: Unavailable) -> None:
        told.append(f"{error.reason}: {error}")
        own_server.resume()

    if stage is not None:
        at(run, stage, stop)
    else:
        original, left = claims.Recorder._write, [stop]

        def write(recorder: Any, outcome: Any) -> Any:
            if left:
                left.pop()()
            return original(recorder, outcome)

        monkeypatch.setattr(claims.Recorder, "_write", write)
    run.context.end_if_stuck(stuck)
    assert run.execute().rows == ROWS
    (said,) = told
    assert said.startswith(f"StoreUnavailable: {what}")
    assert said.endswith("the prediction store has not answered for 1 s")
