"""A batch run on each kind of database, and as a process of its own."""

from __future__ import annotations

import signal
from typing import Any

import numpy as np
import psycopg
import pytest

from fourways_api import RunReport
from fourways_runtime.errors import (
    StoreUnavailable,
)
from fourways_runtime.io.sources import BATCH_ROWS
from fourways_runtime.io.store import open_run_store
from fourways_runtime.workloads import batch
from tests.kit.batch_world import World
from tools.servers.postgres import Server

pytestmark = pytest.mark.embedded


async def test_a_table_is_scored_and_looked_up(each_world: World) -> None:
    done = each_world.run()
    assert (done.name, done.rows, done.rejects, done.version) == ("r1", 4, 0, "v1")
    assert done.digest.startswith("sha256:")
    assert await each_world.rows("c1", "c3", "c9") == {"c1": {"y": 61.0}, "c3": {"y": 181.0}}


@pytest.mark.parametrize("threads", [1, 3])
async def test_many_batches_come_out_whole_whatever_the_number_of_threads(
    each_world: World, threads: int
) -> None:
    count = 3 * BATCH_ROWS + 7
    each_world.table(
        id=[f"c{n}" for n in range(count)],
        age=np.arange(count) % 100,
        spend=np.arange(count, dtype=np.float32),
    )
    done = each_world.run(threads=threads)
    assert (done.rows, done.rejects) == (count, 0)
    asked = [f"c{n}" for n in range(0, count, 997)]
    expected = {f"c{n}": {"y": float(2 * (n % 100 + n))} for n in range(0, count, 997)}
    assert await each_world.rows(*asked) == expected


async def test_rejects_within_the_limit_are_left_out_and_counted(each_world: World) -> None:
    each_world.table(id=["a", "b", "a", None], age=[1, -3, 2, 3], spend=[0.0] * 4)
    done = each_world.run(batch__maxRejects="75%")
    assert (done.rows, done.rejects) == (1, 3)
    assert await each_world.rows("a", "b") == {"a": {"y": 4.0}}


async def test_a_store_that_goes_away_midway_is_waited_for(
    world: World,
    postgres: Server,
) -> None:
    uri = postgres.database()
    database = uri.partition("?")[0].rpartition("/")[2]
    (world.root / "uri").write_text(uri)
    run = batch.BatchRun(world.config(), "r1")
    original = run.context.log
    said = []

    def cut_when_laid_out(stage: str, **details: Any) -> None:
        original(stage, **details)
        said.append(stage)
        if said.count("laid out") == 1 and stage == "laid out":
            with psycopg.connect(postgres.uri(), autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                    (database,),
                )

    run.context.log = cut_when_laid_out  # type: ignore[method-assign]
    assert run.execute().rows == 4
    assert said.count("store unavailable") == 1


def test_patience_with_a_store_has_an_end(
    world: World,
    postgres: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fourways_runtime.workloads.batch.run_context.PATIENCE_SECONDS", -1.0)
    (world.root / "uri").write_text(postgres.database())
    run = batch.BatchRun(world.config(), "r1")
    original = run.context.log

    def take_away(stage: str, **details: Any) -> None:
        original(stage, **details)
        if stage == "laid out":
            (world.root / "uri").write_text("postgresql://nobody@/none?host=/nonexistent")
            database = uri.partition("?")[0].rpartition("/")[2]
            with psycopg.connect(postgres.uri(), autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                    (database,),
                )

    uri = (world.root / "uri").read_text()
    run.context.log = take_away  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        run.execute()


async def test_the_command_publishes_and_leaves_its_last_words(world: World) -> None:
    code, report, log = world.process(world.config()).end()
    assert code == 0
    assert report == RunReport(
        outcome="Succeeded",
        message="4 rows published, 0 rejected",
        rows=4,
        rejects=0,
        digest=report.digest,
        version="v1",
    )
    assert [line["message"] for line in log] == [
        "started",
        "model loaded",
        "source opened",
        "laid out",
        "scored",
        "written",
        "published",
        "succeeded",
    ]
    assert log[4]["run"] == "r1"
    assert await world.rows("c1") == {"c1": {"y": 61.0}}


def test_the_command_ends_with_the_errors_code_and_reason(world: World) -> None:
    world.table(id=["a"] * 9, age=[-1] * 9, spend=[0.0] * 9)
    code, report, _ = world.process(world.config()).end()
    assert (code, report.outcome, report.reason) == (5, "Failed", "TooManyRejects")
    assert (report.rejects, report.version) == (9, "v1")


async def test_sigterm_ends_the_run_promptly_and_leaves_nothing(world: World) -> None:
    world.run("r0")
    count = 500_000
    world.table(id=np.arange(count).astype(str), age=[1] * count, spend=[0.5] * count)
    process = world.process(world.config())
    process.until("source opened")
    process.started.send_signal(signal.SIGTERM)
    code, report, _ = process.end()
    assert (code, report.outcome, report.reason) == (143, "Failed", "Terminated")
    assert await world.rows("c0") == {"c0": {"y": 1.0}}
    writer = open_run_store(world.uri)
    assert writer.finished("n", "churn", "r1") is None
    writer.close()
