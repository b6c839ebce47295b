"""Runs under Ray, on a real Ray cluster of this machine: the same rows as by Jobs."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from fourways_api import RunReport, RuntimeConfig
from fourways_api.runtime_config import CONFIG_VARIABLE, RUN_VARIABLE
from fourways_cli.embedded.ports import free_port
from fourways_runtime.errors import ModelNotLoadable, TooManyRejects, Unavailable, WorkloadError
from fourways_runtime.io.store import PublishedRun, open_run_store
from fourways_runtime.io.store.database import quoted, table
from fourways_runtime.workloads import batch
from tests.kit.batch_world import Process, World
from tests.kit.waiting import until
from tools.servers.postgres import Server

# Ray starts a process for each worker, and imports much in each: on a busy machine that takes long.
pytestmark = [pytest.mark.embedded, pytest.mark.timeout(600)]

ROWS, CHUNKS, PATIENCE = 40_000, 20, 240.0
UNDER_RAY = {"batch__engine": "Ray", "batch__workers": 2}
PROGRAM = ("-m", "fourways_runtime", "batch")
IMPATIENT = (
    "-c",
    "import sys; from fourways_runtime.workloads import batch;"
    "from fourways_runtime.workloads.batch import ray_engine;"
    "ray_engine.LATE_SECONDS = 5.0; sys.exit(batch.main())",
)


Outcome = tuple[list[Any], list[Any]]
"""Predictions and rejects of a run."""


@pytest.fixture(scope="module", autouse=True)
def ray_cluster() -> Iterator[int]:
    """A Ray cluster of two workers on loopback; returns the id of its first process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", "0")
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        # Ray gives its own start half a minute, which a busy machine may need more than once.
        started, address = next(filter(None, (start_ray() for _ in range(5))))
        patch.setenv("RAY_ADDRESS", address)
        yield started.pid
        started.terminate()
        started.communicate(timeout=60)


def start_ray() -> tuple[subprocess.Popen[str], str] | None:
    """Start a Ray cluster; None where it did not come up."""
    port = free_port()
    started = subprocess.Popen(
        [
            Path(sys.executable).with_name("ray"),
            "start",
            "--head",
            "--block",
            "--node-ip-address=127.0.0.1",
            f"--port={port}",
            "--num-cpus=2",
            "--object-store-memory=80000000",
            "--include-dashboard=false",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None
    if any("Ray runtime started" in line for line in started.stdout):
        return started, f"127.0.0.1:{port}"
    started.wait()
    return None


@pytest.fixture
def world(each_world: World) -> World:
    fill(each_world)
    return each_world


@pytest.fixture
def slow(postgres: Server, tmp_path: Path) -> World:
    """A world whose store takes its time over each chunk, so that workers die over them."""
    world = World(tmp_path, postgres.database(), "n")
    fill(world)
    open_run_store(world.uri).close()
    with psycopg.connect(world.uri, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_sleep(0.3); RETURN NEW; END $$"
        )
        connection.execute(
            "CREATE TRIGGER linger BEFORE UPDATE ON fourways.chunks FOR EACH ROW "
            "WHEN (NEW.state = 'done') EXECUTE FUNCTION linger()"
        )
    return world


@pytest.fixture(scope="module")
def by_jobs(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """What a run by Jobs publishes of the table that every test has."""
    folder = tmp_path_factory.mktemp("jobs")
    world = World(folder, f"sqlite:///{folder}/store.db", "n")
    fill(world)
    run(world, "jobs")
    return outcome(world, "jobs")


def fill(world: World) -> None:
    ages = np.arange(ROWS) % 100
    ages[[5, ROWS // 2]] = 500  # refused: beyond the contract's range
    world.table(
        id=[f"c{n}" for n in range(ROWS)],
        age=ages,
        spend=np.arange(ROWS, dtype=np.float32),
        row_group_size=ROWS // CHUNKS,
    )


def config_of(world: World, **changes: Any) -> RuntimeConfig:
    memory = 8 * (ROWS // CHUNKS) * (8 * 3 + 64)
    return world.config(**{"memoryBytes": memory, "batch__maxRejects": "1%", **changes})


def run(world: World, name: str, **changes: Any) -> PublishedRun:
    return batch.open_run(config_of(world, **changes), name).execute()


def run_under_ray(world: World, name: str, **changes: Any) -> RunReport:
    return report_of(driver(world, name, **changes))


def outcome(world: World, name: str) -> Outcome:
    """Return a published run's predictions and its rejects."""
    store = open_run_store(world.uri)
    try:
        data = store.database
        ((view, run_id, state),) = data.rows(
            "SELECT table_name, id, state FROM @runs WHERE namespace = ? AND name = ?",
            (world.namespace, name),
        )
        assert state == "published"
        rows = data.rows(f"SELECT * FROM {table(view)} ORDER BY {quoted('id')}")  # noqa: S608
        rejects = data.rows(
            "SELECT position, key, field, reason FROM @rejects WHERE run_id = ? ORDER BY position",
            (run_id,),
        )
        return rows, rejects
    finally:
        store.close()


def chunks(world: World, state: str) -> dict[int, tuple[Any, ...]]:
    """Return the chunks of the run r1 in this state."""
    with psycopg.connect(world.uri) as connection:
        found = connection.execute(
            "SELECT number, owner, attempts, done_at FROM fourways.chunks c "
            "JOIN fourways.runs r ON r.id = c.run_id WHERE r.name = 'r1' AND c.state = %s",
            (state,),
        ).fetchall()
    return {number: tuple(rest) for number, *rest in found}


def recorded(world: World, at_least: int = 0) -> dict[int, tuple[Any, ...]]:
    """Return the chunks of the run r1 that are recorded, once there are so many."""
    found: dict[int, tuple[Any, ...]] = {}

    def enough() -> bool:
        found.clear()
        found.update(chunks(world, "done"))
        return len(found) >= at_least

    until(enough, lambda: f"{at_least} chunks are recorded: {len(found)}", seconds=PATIENCE)
    return found


def actors(of: int) -> list[int]:
    """Return the processes of actors among the descendants of a process."""
    children: dict[int, list[int]] = {}
    names = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(folder.name)] = (folder / "cmdline").read_text()
        except OSError:
            continue  # it has ended meanwhile
        children.setdefault(parent, []).append(int(folder.name))
    found, ahead = [], [of]
    while ahead:
        pid = ahead.pop()
        ahead += children.get(pid, [])
        if names.get(pid, "").startswith("ray::RayWorker"):
            found.append(pid)
    return found


def driver(
    world: World, name: str = "r1", program: tuple[str, ...] = PROGRAM, **changes: Any
) -> Process:
    """Start a run under Ray, in a process of its own.

    Ray leaves threads behind in its caller, and they end the process some time after the cluster
    is gone.
    """
    config = json.dumps(config_of(world, **{**UNDER_RAY, **changes}).to_json())
    (world.root / "last-words").unlink(missing_ok=True)
    started = subprocess.Popen(
        [sys.executable, *program],
        env={**os.environ, CONFIG_VARIABLE: config, RUN_VARIABLE: name},
        stderr=(world.root / "log").open("w"),
        text=True,
    )
    return Process(started, world.root / "last-words")


def report_of(process: Process) -> RunReport:
    process.started.wait(timeout=PATIENCE)
    return RunReport.model_validate_json(process.last_words.read_text())


def test_a_run_under_ray_is_that_of_jobs(world: World) -> None:
    by_jobs = run(world, "jobs")
    by_ray = run_under_ray(world, "ray")
    assert (by_ray.rows, by_ray.rejects) == (by_jobs.rows, by_jobs.rejects) == (ROWS - 2, 2)
    assert outcome(world, "ray") == outcome(world, "jobs")


def test_a_killed_worker_costs_its_chunk_and_no_more(
    slow: World, ray_cluster: int, by_jobs: Outcome
) -> None:
    process = driver(slow)
    before = recorded(slow, at_least=3)
    victims = actors(ray_cluster)
    assert victims
    os.kill(victims[0], signal.SIGKILL)
    assert report_of(process).rows == ROWS - 2
    assert outcome(slow, "r1") == by_jobs
    after = recorded(slow)
    assert {number: after[number] for number in before} == before
    assert len(after) == CHUNKS


def test_the_chunk_of_a_hung_worker_is_scored_by_another(
    slow: World, ray_cluster: int, by_jobs: Outcome
) -> None:
    process = driver(slow)
    recorded(slow, at_least=3)
    victims = actors(ray_cluster)
    os.kill(victims[0], signal.SIGSTOP)
    try:
        before = recorded(slow)
        assert len(before) < CHUNKS
        assert report_of(process).rows == ROWS - 2
    finally:
        process.started.kill()
    until(
        lambda: victims[0] not in actors(ray_cluster), "the hung worker is gone", seconds=PATIENCE
    )
    assert outcome(slow, "r1") == by_jobs
    after = recorded(slow)
    assert {number: after[number] for number in before} == before


@pytest.mark.long
def test_the_only_worker_that_hangs_is_replaced(slow: World, ray_cluster: int) -> None:
    process = driver(slow, program=IMPATIENT, batch__workers=1)
    recorded(slow, at_least=3)
    (stopped,) = actors(ray_cluster)
    os.kill(stopped, signal.SIGSTOP)
    assert report_of(process).rows == ROWS - 2
    assert outcome(slow, "r1")[0]


def test_a_killed_driver_is_gone_on_with(slow: World, by_jobs: Outcome) -> None:
    process = driver(slow)
    recorded(slow, at_least=3)
    process.started.kill()
    process.started.wait()
    before = recorded(slow)
    assert len(before) < CHUNKS
    assert run_under_ray(slow, "r1").rows == ROWS - 2
    assert outcome(slow, "r1") == by_jobs
    after = recorded(slow)
    assert {number: after[number] for number in before} == before


def test_workers_lost_too_often_end_the_run(slow: World, ray_cluster: int) -> None:
    process = driver(slow, batch__backoffLimit=0, batch__workers=1)
    # One of them is claimed ahead: what is being recorded may still get through.
    until(
        lambda: len(chunks(slow, "claimed")) >= 2 or process.started.poll() is not None,
        "two chunks are claimed",
        seconds=PATIENCE,
    )
    assert process.started.poll() is None
    for victim in actors(ray_cluster):
        os.kill(victim, signal.SIGKILL)
    process.started.wait(timeout=PATIENCE)
    assert process.started.returncode == Unavailable.exit_code
    message = report_of(process).message
    assert "a worker was lost, and no chunk was recorded meanwhile" in message
    assert "spec.resources.memory" in message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"batch__maxRejects": "0"}, TooManyRejects),
        ({"model__format": "onnx", "model__uri": "pvc://data/broken.onnx"}, ModelNotLoadable),
    ],
)
def test_what_a_worker_finds_out_ends_the_run(
    slow: World, changes: dict[str, Any], expected: type[WorkloadError]
) -> None:
    world = slow
    world.file("broken.onnx").write_bytes(b"no model")
    assert run_under_ray(world, "r1", **changes).reason == expected.__name__
    store = open_run_store(world.uri)
    try:
        assert store.runs(world.namespace, "churn")[0].reason == expected.__name__
    finally:
        store.close()
