"""What a Job says of a run that a Ray cluster carries out, by what is in the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from fourways_api import RunReport
from fourways_runtime.errors import GoldenMismatch, StoreUnavailable, Unavailable
from fourways_runtime.io.store import Run, RunStore, open_run_store
from fourways_runtime.io.store.runs.ledger import RunLedger
from fourways_runtime.io.store.runs.plan import RunSettings
from fourways_runtime.workloads.batch.wait_for_run import wait_for_run
from tests.kit.batch_world import World


class Clock:
    """Moves on when somebody sleeps, and lets something happen each time."""

    def __init__(self, *acts: Callable[[], object]) -> None:
        self.now = 0.0
        self._acts = list(acts)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self._acts:
            self._acts.pop(0)()


@pytest.fixture
def store(world: World) -> Iterator[RunStore]:
    opened = open_run_store(world.uri)
    yield opened
    opened.close()


def wait(world: World, *acts: Callable[[], object]) -> RunReport:
    clock = Clock(*acts)
    return wait_for_run(
        lambda: open_run_store(world.uri),
        world.config(),
        "r1",
        now=lambda: clock.now,
        sleep=clock.sleep,
    )


def begun(world: World, store: RunStore) -> RunLedger:
    contract = world.config().contract
    run = Run("n", "churn", "r1", "v1", "sha256:0", contract, datetime.now(UTC))
    ledger = store.ledger(run, RunSettings("f"), "driver")
    assert ledger.join()
    return ledger


def test_a_published_run_is_told_with_its_figures(world: World) -> None:
    report = wait(world, lambda: None, lambda: world.run("r1"))
    assert (report.outcome, report.rows, report.rejects) == ("Succeeded", 4, 0)
    assert report.digest is not None
    assert report.version == "v1"


def test_what_ended_the_run_is_what_the_job_ends_with(world: World, store: RunStore) -> None:
    def fail() -> None:
        with begun(world, store) as ledger:
            ledger.fail("GoldenMismatch", "vector 3 differs", 3)

    with pytest.raises(GoldenMismatch, match="vector 3 differs"):
        wait(world, fail)


def test_a_run_that_is_gone_on_with_is_not_held_to_its_past(world: World, store: RunStore) -> None:
    with begun(world, store) as ledger:
        ledger.fail("TooManyRejects", "of old", 5)
    report = wait(world, lambda: None, lambda: world.run("r1"))
    assert report.outcome == "Succeeded"


def test_a_store_that_is_away_is_waited_for(world: World) -> None:
    world.run("r1")
    clock, away = Clock(), [StoreUnavailable("restarts")] * 3

    def open_store() -> RunStore:
        if away:
            raise away.pop()
        return open_run_store(world.uri)

    done = wait_for_run(open_store, world.config(), "r1", now=lambda: clock.now, sleep=clock.sleep)
    assert done.outcome == "Succeeded"


def test_where_nobody_comes_the_job_ends(world: World) -> None:
    with pytest.raises(
        Unavailable, match="no worker of the Ray cluster has worked on the run for 600 s"
    ):
        wait(world)


def test_the_wait_begins_anew_with_each_sign_of_a_worker(world: World, store: RunStore) -> None:
    began: list[RunLedger] = []
    acts = [lambda: began.append(begun(world, store)), *[lambda: None] * 400]
    with pytest.raises(Unavailable):
        wait(world, *acts, lambda: began[0].__exit__())
    assert began[0].run_id
