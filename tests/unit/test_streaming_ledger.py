"""The store as a worker sees it while it hangs, is away, or takes no writes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from fourways_runtime.errors import StoreFull, StoreUnavailable
from fourways_runtime.io.brokers.source import OUTAGE_SECONDS
from fourways_runtime.io.store.streams.stream import Position
from fourways_runtime.workloads.streaming.ledger import StreamLedger
from tests.kit.waiting import until


class Store:
    """A store that answers, fails with ``failure``, or hangs until ``answers`` is set."""

    def __init__(self) -> None:
        self.failure: StoreUnavailable | None = None
        self.full = False
        self.answers = threading.Event()
        self.answers.set()
        self.pings = 0

    def positions(self, partitions: Any) -> dict[int, Position]:
        self._answer()
        return {partition: Position(1, 0) for partition in partitions}

    def send(self, *what: Any, attempts: int) -> None:
        self._answer()
        if self.full:
            raise StoreFull("no room")

    def receive(self) -> None:
        self._answer()

    def ping(self) -> None:
        self.pings += 1
        self._answer()

    def close(self) -> None: ...

    def _answer(self) -> None:
        self.answers.wait(30)
        if self.failure is not None:
            raise self.failure


class Rig:
    def __init__(self) -> None:
        self.store = Store()
        self.seconds = 1000.0
        self.stop = threading.Event()
        store: Any = self.store
        self.ledger = StreamLedger(store, self.stop, lambda: self.seconds)

    def send(self) -> None:
        nothing: Any = ()
        self.ledger.send(nothing, nothing, nothing, nothing, nothing, 1)


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.store.answers.set()


def test_a_call_that_hangs_is_a_problem_and_ends_the_worker_after_a_while(rig: Rig) -> None:
    rig.store.answers.clear()
    asking = threading.Thread(target=lambda: rig.ledger.positions({0: 0}), daemon=True)
    asking.start()
    until(lambda: rig.ledger._called is not None, "the call is under way")
    rig.seconds += 4
    assert rig.ledger.problem() == ""
    rig.seconds += 2
    assert rig.ledger.problem() == "the prediction store has not responded for 6 s"
    rig.ledger.ping()  # It does not wait behind the call that hangs.
    rig.ledger.watch()
    rig.seconds += OUTAGE_SECONDS - 5
    with pytest.raises(StoreUnavailable, match="not responded for 91 s"):
        rig.ledger.watch()
    rig.store.answers.set()
    asking.join(10)
    assert rig.ledger.problem() == ""
    rig.ledger.watch()


def test_an_idle_store_is_asked_whether_it_is_still_there(rig: Rig) -> None:
    rig.ledger.ping()
    assert rig.store.pings == 0
    rig.seconds += 6
    rig.store.failure = StoreUnavailable("gone")
    rig.ledger.ping()
    assert (rig.store.pings, rig.ledger.problem()) == (1, "gone")
    rig.seconds += OUTAGE_SECONDS + 3
    with pytest.raises(StoreUnavailable, match="gone"):
        rig.ledger.watch()
    rig.store.failure = None
    rig.ledger.ping()
    assert rig.ledger.problem() == ""
    rig.ledger.watch()


def test_a_refused_login_ends_the_worker_sooner(rig: Rig) -> None:
    refused = StoreUnavailable("refuses the login")
    refused.login_refused = True
    rig.seconds += 6
    rig.store.failure = refused
    rig.ledger.ping()
    rig.seconds += 14
    rig.ledger.watch()
    rig.seconds += 2
    with pytest.raises(StoreUnavailable, match="refuses the login"):
        rig.ledger.watch()


def test_a_store_that_can_be_read_and_not_written_is_an_outage(rig: Rig) -> None:
    rig.store.full = True
    with pytest.raises(StoreFull) as found:
        rig.send()
    rig.ledger.positions({0: 0})
    assert rig.ledger.problem() == "no room"
    rig.ledger.check_writes(found.value)
    rig.seconds += OUTAGE_SECONDS + 1
    rig.ledger.positions({0: 0})
    with pytest.raises(StoreFull):
        rig.ledger.check_writes(found.value)
    rig.store.full = False
    rig.send()
    rig.ledger.receive()
    assert rig.ledger.problem() == ""
    rig.ledger.check_writes(found.value)


def test_a_question_is_repeated_until_the_store_answers(rig: Rig) -> None:
    rig.store.failure = StoreUnavailable("gone")
    found: list[Any] = []
    asking = threading.Thread(target=lambda: found.append(rig.ledger.positions({0: 0})))
    asking.start()
    until(lambda: rig.ledger.problem() == "gone", "the outage is noted")
    rig.store.failure = None
    asking.join(10)
    assert found == [{0: Position(1, 0)}]
