"""The quality worker is ready while its store answers and its comparisons go on."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from fourways_http import HttpError
from fourways_runtime.errors import StoreUnavailable
from fourways_runtime.io.brokers.source import OUTAGE_SECONDS
from fourways_runtime.io.store import open_database
from fourways_runtime.io.store.database import Database
from fourways_runtime.workloads.quality import COMPARISON_SECONDS, STORE_SECONDS, readiness
from fourways_runtime.workloads.repeating import repeat
from fourways_runtime.workloads.report_writer import ReportWriter
from tests.kit.batch_world import World
from tests.kit.waiting import until


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_the_store_may_be_away_for_as_long_as_for_a_stream_worker() -> None:
    assert STORE_SECONDS == OUTAGE_SECONDS


def test_a_store_that_is_away_for_long_is_told_until_it_is_back(
    tmp_path: Path, clock: Clock
) -> None:
    world = World(tmp_path, f"sqlite:///{tmp_path}/store.db", "n")
    away = False

    def opened() -> Database:
        if away:
            raise StoreUnavailable("no route to host")
        return open_database(world.uri)

    reports = ReportWriter(world.config(), opened, "w", lambda: {"version": "1"}, clock)
    clock.now = 30
    reports.tell()
    reports.close()
    away = True
    clock.now += STORE_SECONDS
    with pytest.raises(StoreUnavailable):
        reports.tell()
    assert readiness(reports.silent_seconds, 0).status == 200
    clock.now += 1
    with pytest.raises(HttpError, match="store has not answered for 91 s"):
        readiness(reports.silent_seconds, 0)
    away = False
    reports.tell()
    reports.close()
    assert readiness(reports.silent_seconds, 0).status == 200


@pytest.mark.parametrize("hangs", [True, False])
def test_comparisons_that_stand_still_are_told(clock: Clock, hangs: bool) -> None:
    began, goes_on = threading.Event(), threading.Event()

    def compare() -> float:
        began.set()
        if hangs:
            assert goes_on.wait(60)
        return 3_600

    repeated = repeat("quality", compare, 0, clock)
    assert began.wait(60)
    if not hangs:  # The next one is due in an hour.
        clock.now += 1
        until(lambda: repeated.late_seconds == 0, "the call has returned")
        clock.now += 3_600
    clock.now += COMPARISON_SECONDS - repeated.late_seconds
    assert readiness(0, repeated.late_seconds).status == 200
    clock.now += 1
    with pytest.raises(HttpError, match="comparison with labels has stood still for 901 s"):
        readiness(0, repeated.late_seconds)
    goes_on.set()
    if hangs:
        until(lambda: repeated.late_seconds == 0, "the comparison has ended")
