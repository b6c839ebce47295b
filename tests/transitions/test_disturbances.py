"""Whatever befalls the operator on the way, the end is the same."""

from __future__ import annotations

import asyncio
from functools import cache

import pytest

from fourways_operator.errors import Conflict, ServerError, Throttled
from fourways_operator.facts import Json

from .changes import CHANGES
from .fake_cluster import FakeCluster
from .faults import Faults
from .rig import play, state_of

FAST = ("create", "delete")
"""The changes that `make test-fast` disturbs: one of each kind. `make test` disturbs all."""

EVERY_CHANGE = pytest.mark.parametrize(
    "change",
    [
        change if change in FAST else pytest.param(change, marks=pytest.mark.thorough)
        for change in CHANGES
    ],
)


@cache
def _before(change: str) -> FakeCluster:
    return asyncio.run(play(FakeCluster(), CHANGES[change][0]))


def _run(change: str, faults: Faults | None = None) -> FakeCluster:
    cluster = _before(change).clone()
    cluster.faults = faults or Faults()
    return asyncio.run(play(cluster, CHANGES[change][1]))


@cache
def _undisturbed(change: str) -> tuple[FakeCluster, dict[str, Json]]:
    cluster = _run(change)
    return cluster, state_of(cluster)


def _assert_same_end(change: str, faults: Faults, told: str) -> FakeCluster:
    cluster = _run(change, faults)
    assert state_of(cluster) == _undisturbed(change)[1], f"{change}, {told}"
    return cluster


@EVERY_CHANGE
def test_killed_at_every_write(change: str) -> None:
    undisturbed = _undisturbed(change)[0]
    for number, write in enumerate(undisturbed.writes):
        _assert_killed(change, Faults(kill_after=number), f"killed after {write}")
        # Else dying before this write leaves just what dying after the one before it leaves.
        if number in undisturbed.first_writes.values():
            _assert_killed(change, Faults(kill_before=number), f"killed before {write}")


def _assert_killed(change: str, faults: Faults, told: str) -> None:
    cluster = _assert_same_end(change, faults, told)
    assert cluster.faults.kill_before is cluster.faults.kill_after is None, "never killed"


@EVERY_CHANGE
def test_every_watch_event_lost_or_late(change: str) -> None:
    for number in range(_undisturbed(change)[0].sent):
        one = frozenset({number})
        _assert_same_end(change, Faults(lost_events=one), f"event {number} lost")
        _assert_same_end(change, Faults(delayed_events=one), f"event {number} late")


@EVERY_CHANGE
def test_all_watch_events_lost_or_doubled(change: str) -> None:
    everything = frozenset(range(1000))
    _assert_same_end(change, Faults(lost_events=everything), "no event at all")
    _assert_same_end(change, Faults(doubled_events=everything), "every event twice")


@EVERY_CHANGE
def test_stale_read_at_every_read(change: str) -> None:
    # The others would have been answered the same: playing them again would show nothing new.
    reads = sorted(_undisturbed(change)[0].reads_that_matter)
    assert reads
    for number in reads:
        _assert_same_end(change, Faults(stale_reads=frozenset({number})), f"read {number} stale")
    _assert_same_end(change, Faults(stale_reads=frozenset(reads)), "all reads stale")


@EVERY_CHANGE
def test_every_write_refused_or_its_answer_lost(change: str) -> None:
    for number, write in enumerate(_undisturbed(change)[0].writes):
        for fault in (Conflict("409"), Throttled("429", 1.0)):
            _assert_same_end(change, Faults(answers={number: fault}), f"{fault} to {write}")
        lost = ServerError("500")
        _assert_same_end(change, Faults(lost_answers={number: lost}), f"{lost} after {write}")


@EVERY_CHANGE
def test_every_read_fails_once(change: str) -> None:
    for number in range(0, _undisturbed(change)[0].reads, 7):
        faults = Faults(read_answers={number: ServerError("500")})
        _assert_same_end(change, faults, f"read {number} fails")


@EVERY_CHANGE
def test_garbage_is_collected_late(change: str) -> None:
    cluster = _before(change).clone()
    cluster.collector_sleeps = True
    asyncio.run(play(cluster, [*CHANGES[change][1], FakeCluster.wake_collector]))
    assert state_of(cluster) == _undisturbed(change)[1]
