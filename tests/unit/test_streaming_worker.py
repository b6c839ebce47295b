"""The worker on a source in memory and a real store: whose fault a failure is, who was first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fourways_runtime.errors import BrokerUnavailable, StoreFull, StoreUnavailable
from fourways_runtime.io.brokers.source import (
    PositionsOutOfRange,
    SourceReplaced,
)
from fourways_runtime.io.store import (
    StreamWriter,
)
from fourways_runtime.io.store.streams.stream import Move, Position
from fourways_runtime.scoring.columns import Predictions
from tests.kit.stores import commit
from tests.kit.stream_worker import Failing, Memory, Rig
from tests.kit.waiting import until


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_all_is_answered_and_a_healthy_stop_leaves_no_try(rig: Rig) -> None:
    source = Memory(range(20, 30), range(30, 37))
    left = rig.work(source)
    assert left == {0: Position(10, 0), 1: Position(7, 0)}
    expected = {f"0-{at}": (20.0 + at) * 2 for at in range(10)}
    assert rig.answers() == expected | {f"1-{at}": (30.0 + at) * 2 for at in range(7)}
    assert rig.letters() == []
    assert source.closed
    assert rig.failure is None


def test_of_two_requests_for_one_key_in_one_batch_each_has_its_answer(rig: Rig) -> None:
    source = Memory([1, 2, 3, 13], [])
    for at, question in enumerate((b"first", b"second", b"", b"refused")):
        source.key_of[0, at] = b"0-0"
        source.question_of[0, at] = question
    rig.work(source, maxAttempts=1)  # the last one fails: all are scored one by one
    asked = (b"first", b"second", b"refused")
    assert rig.answers(*asked) == {"first": 2.0, "second": 4.0, "0-0": 6.0}


def test_the_answers_of_requests_in_a_batch_are_kept_by_question(rig: Rig) -> None:
    source = Memory([1, 2, 3], [])
    for at, question in enumerate((b"first", b"second", b"first")):
        source.key_of[0, at] = b"0-0"
        source.question_of[0, at] = question
    rig.work(source)
    assert rig.model.given == [[1, 2, 3]]
    assert rig.answers(b"first", b"second") == {"first": 6.0, "second": 4.0, "0-0": 6.0}


def test_where_the_model_fails_the_batch_is_scored_one_by_one(rig: Rig) -> None:
    left = rig.work(Memory([1, 2, 13, 4, 5], []), maxAttempts=2)
    assert left[0] == Position(5, 0)
    assert rig.answers() == {"0-0": 2.0, "0-1": 4.0, "0-3": 8.0, "0-4": 10.0}
    assert rig.letters() == [(0, 2, 2, "model: thirteen", '[["n","2"]]')]
    assert rig.model.given[:6] == [[1, 2, 13, 4], [1], [2], [13], [13], [4]]


def test_an_error_of_ours_ends_the_worker_and_stays_counted(rig: Rig) -> None:
    rig.start(Memory([1, 14, 3], []))
    until(lambda: rig.failure is not None, "the worker ends with an error", interval=0.005)
    left = rig.end()
    assert isinstance(rig.failure, AttributeError)
    assert left[0] == Position(1, 1)
    assert (rig.answers(), rig.letters()) == ({"0-0": 2.0}, [])


def test_where_a_worker_died_events_are_scored_alone_until_past_what_was_in_flight(
    rig: Rig,
) -> None:
    before = rig.writer()
    before.begin({0: 0})
    before.close()
    rig.work(Memory(range(20, 40), []))
    assert [len(given) for given in rig.model.given] == [1] * 16 + [4]
    assert rig.letters() == []
    assert len(rig.answers()) == 20


def test_the_event_they_died_over_is_put_aside_unscored(rig: Rig) -> None:
    before = rig.writer()
    for _ in range(3):
        before.begin({0: 0})
    before.close()
    rig.work(Memory([7, 8], []))
    reason = "model: the worker died over it 3 times"
    ((*told, said, headers),) = rig.letters()
    assert (told, headers) == ([0, 0, 3], '[["n","0"]]')
    assert said.startswith(reason)
    assert rig.model.given == [[8.0]]


def test_a_death_over_one_partition_is_not_counted_against_another(rig: Rig) -> None:
    before = rig.writer()
    before.begin({0: 0})
    commit(
        before,
        [Move(0, 0, 1)],
        Predictions(np.array([], object), np.array([]), {"y": np.array([])}),
    )
    before.close()
    for _ in range(5):  # Workers that come and go while nothing of partition 0 is tried.
        rig.start(Memory([20], []))
        rig.end()
        rig.stop.clear()
    assert rig.positions() == {0: Position(1, 1), 1: Position(0, 0)}
    rig.work(Memory([20, 21], [30]))
    assert rig.answers() == {"0-1": 42.0, "1-0": 60.0}


def test_a_worker_that_was_overtaken_goes_on_where_the_store_stands(rig: Rig) -> None:
    source = Memory(range(20, 24), [])
    rig.start(source)
    until(lambda: rig.positions()[0].next == 4, "4 events are done", interval=0.005)
    other = rig.writer()
    nothing = Predictions(np.array([], object), np.array([]), {"y": np.array([])})
    commit(other, [Move(0, 4, 8)], nothing)
    other.close()
    source.values[0] += range(24, 34)
    until(lambda: rig.positions()[0].next == 14, "14 events are done", interval=0.005)
    rig.end()
    answered = {f"0-{at}": (20.0 + at) * 2 for at in range(14) if at not in range(4, 8)}
    assert rig.answers() == answered
    assert rig.letters() == []


def test_a_broker_that_is_away_for_good_ends_the_worker_with_the_reason(rig: Rig) -> None:
    source = Memory([20], [])
    rig.start(source)
    until(lambda: rig.positions()[0].next == 1, "1 events are done", interval=0.005)
    source.failure = BrokerUnavailable("gone")
    rig.thread.join(10)
    assert str(rig.failure) == "gone"
    assert source.closed


def failing(
    rig: Rig, error: StoreUnavailable, times: int, *, committed: bool = False
) -> list[Failing]:
    made: list[Failing] = []

    def wrap(writer: StreamWriter) -> StreamWriter:
        made.append(Failing(writer, error, times, committed=committed))
        return made[-1]  # type: ignore[return-value]

    rig.wrap = wrap
    return made


def test_a_commit_that_fails_is_repeated_though_no_further_event_comes(rig: Rig) -> None:
    failing(rig, StoreUnavailable("the connection was lost"), 1)
    left = rig.work(Memory([1.0], []))
    assert left[0] == Position(1, 0)
    assert rig.answers() == {"0-0": 2.0}
    assert rig.failure is None


def test_a_commit_whose_confirmation_is_lost_leaves_the_worker_ready_though_no_event_comes(
    rig: Rig,
) -> None:
    stores = failing(rig, StoreUnavailable("the connection was lost"), 1, committed=True)
    rig.start(Memory([1.0], []))
    until(lambda: stores and stores[0].asked == 2, "it asks where the store stands, once more")
    until(lambda: rig.worker.problem() == "", "the worker is ready", seconds=5)
    rig.end()
    assert rig.answers() == {"0-0": 2.0}
    assert rig.failure is None


def test_a_store_that_takes_no_writes_is_asked_less_and_less_often(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fourways_runtime.workloads.streaming.worker._FIRST_PAUSE_SECONDS", 0.1)
    stores = failing(rig, StoreFull("no room"), 3)
    source = Memory(range(20, 30), [])
    rig.start(source)
    until(lambda: rig.worker.problem() == "no room", "the worker is not ready")
    assert [(f.reason, f.message) for f in rig.worker.faults()] == [("StoreFull", "no room")]
    until(lambda: rig.positions()[0].next == 10, "10 events are done", interval=0.005)
    assert rig.worker.problem() == ""
    assert rig.worker.faults() == ()
    # Once at the start, and after each of the failures: of the two batches in flight one counts.
    assert stores[0].asked <= 5
    rig.end()


def test_writes_that_fail_while_events_are_scored_alone_are_not_deaths(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fourways_runtime.workloads.streaming.worker._LAST_PAUSE_SECONDS", 0.001)
    failing(rig, StoreFull("no room"), 9)
    # The model fails on the fourth event, so the others are scored alone too.
    assert rig.work(Memory([1, 2, 3, 13], [])) == {0: Position(4, 0), 1: Position(0, 0)}
    assert rig.answers() == {"0-0": 2.0, "0-1": 4.0, "0-2": 6.0}
    ((_, position, attempts, reason, _),) = rig.letters()
    assert (position, attempts, reason) == (3, 3, "model: thirteen")


def test_positions_that_the_log_has_not_are_looked_up_again(rig: Rig) -> None:
    source = Memory(range(20, 24), [])
    rig.start(source)
    until(lambda: rig.positions()[0].next == 4, "4 events are done", interval=0.005)
    source.once = PositionsOutOfRange("partition 0")
    source.at[0] = 99  # Where it would read on, had it not been told.
    source.values[0] += range(24, 30)
    until(lambda: rig.positions()[0].next == 10, "10 events are done", interval=0.005)
    rig.end()
    assert len(rig.answers()) == 10
    assert rig.letters() == []


def test_a_log_restored_to_an_older_state_is_read_from_its_oldest_event(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fourways_runtime.workloads.streaming.reader._ASK_AGAIN_SECONDS", 0.01)
    before = rig.writer()
    before.begin({0: 50})
    before.close()
    source = Memory(range(20, 24), [])
    source.oldest = 1
    rig.start(source)
    until(lambda: rig.positions()[0].next == 4, "4 events are done", interval=0.005)
    (warning,) = rig.worker.warnings()
    assert "restored to an older state" in warning
    rig.end()
    assert sorted(rig.answers()) == ["0-1", "0-2", "0-3"]


def test_events_that_retention_deleted_are_counted_and_the_rest_is_read(rig: Rig) -> None:
    before = rig.writer()
    before.begin({0: 1})
    before.release({0: 1})
    before.close()
    source = Memory(range(20, 26), [])
    source.oldest = 4
    rig.start(source)
    until(lambda: rig.positions()[0].next == 6, "6 events are done", interval=0.005)
    (warning,) = rig.worker.warnings()
    assert "deleted the positions 1 to 3 of partition 0" in warning
    (fault,) = rig.worker.faults()
    assert fault.reason == "EventsExpired"
    assert fault.message == f"{warning}; 3 positions lost so far"
    rig.end()
    assert sorted(rig.answers()) == ["0-4", "0-5"]


def test_positions_without_events_are_passed_and_neither_wait_nor_expire(rig: Rig) -> None:
    """As the markers of a transaction, or the events of a stream's other subjects."""
    source = Memory(range(20, 26), [])
    rig.start(source)
    until(lambda: rig.positions()[0].next == 6, "6 events are done", interval=0.005)
    source.ends = {0: 9, 1: 4, 7: 3}
    until(lambda: rig.positions()[0].next == 9, "the markers are passed", interval=0.005)
    until(lambda: rig.positions()[1].next == 4, "also without an event", interval=0.005)
    assert rig.end() == {0: Position(9, 0), 1: Position(4, 0)}
    assert rig.failure is None
    assert len(rig.answers()) == 6


def test_a_source_made_anew_ends_the_worker_with_all_written_that_was_read(rig: Rig) -> None:
    source = Memory(range(20, 28), [])
    rig.start(source)
    until(lambda: source.at.get(0) == 8, "8 events are read", interval=0.001)
    source.failure = SourceReplaced("made anew")
    rig.thread.join(10)
    assert isinstance(rig.failure, SourceReplaced)
    assert rig.positions()[0].next == 8
    assert source.closed


def test_a_tombstone_deletes_the_answer(rig: Rig) -> None:
    source = Memory([1, 2], [])
    source.values[0] += [None]  # type: ignore[list-item]
    source.key_of[(0, 2)] = b"0-0"
    assert rig.work(source)[0] == Position(3, 0)
    assert rig.answers() == {"0-1": 4.0}
    assert rig.letters() == []


@pytest.mark.thorough
def test_a_broker_that_is_away_while_bounds_are_asked_for_is_waited_for(rig: Rig) -> None:
    source = Memory(range(20, 24), [])
    source.away = 2
    assert rig.work(source)[0] == Position(4, 0)
    assert rig.failure is None
