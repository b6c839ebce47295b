"""Workers that share a run: each chunk is recorded once, whoever claimed it and whoever died."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fourways_runtime import sigterm
from fourways_runtime.errors import ConfigError, StoreUnavailable
from fourways_runtime.io.store import RunStore, open_run_store
from fourways_runtime.io.store.runs import ledger
from fourways_runtime.io.store.runs.chunk import ChunkRecord
from fourways_runtime.io.store.runs.publish import alone
from fourways_runtime.scoring.columns import Reject
from tests.kit.stores import Work, a_run, ask, contract, look, predictions, publish, rejects_of
from tests.kit.waiting import until
from tools.servers.postgres import Server

pytestmark = pytest.mark.embedded


def claims_of(uri: str, namespace: str) -> list[tuple[Any, ...]]:
    query = (
        "SELECT number, state, attempts FROM {0}chunks WHERE run_id IN "
        "(SELECT id FROM {0}runs WHERE namespace = '{1}') ORDER BY number"
    )
    return ask(uri, query, namespace)


@pytest.fixture
def two(writer: RunStore, namespace: str) -> Iterator[tuple[Work, Work]]:
    """Two workers of one run of three chunks."""
    with (
        Work.on(writer, a_run(namespace), splits=3) as one,
        Work.on(writer, a_run(namespace), splits=3) as other,
    ):
        yield one, other


def test_no_chunk_is_claimed_by_two(two: tuple[Work, Work]) -> None:
    one, other = two
    assert [one.claim().number, other.claim().number, one.claim().number] == [0, 1, 2]
    assert one.ledger.claim() is None
    assert other.ledger.claim() is None


async def test_many_workers_at_once_record_each_chunk_once(
    uri: str,
    writer: RunStore,
    namespace: str,
) -> None:
    chunks, workers = 12, 4
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with Work.on(writer, a_run(namespace), splits=chunks) as mine:
                while (found := mine.ledger.claim()) is not None:
                    chunk = ChunkRecord(mine.ledger, found.number)
                    chunk.write(predictions([found.number], found.number))
                    assert chunk.done(1)
        except BaseException as error:  # noqa: BLE001  (shown by the test)
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert claims_of(uri, namespace) == [(at, "done", 1) for at in range(chunks)]
    with Work.on(writer, a_run(namespace)) as last:
        assert last.ledger.totals().complete
        assert last.publish().rows == chunks
    found = await look(uri, namespace, list(range(chunks)))
    assert found.rows == {at: {"y": float(at)} for at in range(chunks)}


def test_a_run_begun_again_goes_on_where_it_ended(
    uri: str,
    writer: RunStore,
    namespace: str,
) -> None:
    with Work.on(writer, a_run(namespace), splits=3) as one:
        one.record(predictions([1]), rejects=(Reject(7, "k", "x", "missing"),))
        one.claim()
    assert claims_of(uri, namespace) == [(0, "done", 1), (1, "todo", 1), (2, "todo", 0)]
    assert rejects_of(uri, namespace) == [(7, "k", "x", "missing")]
    assert writer.rejects(namespace, "churn", "r1") == [Reject(7, "k", "x", "missing")]
    with Work.on(writer, a_run(namespace), splits=3) as again:
        again.record(predictions([2], 1))
        again.record(predictions([3], 2))
        done = again.publish()
    assert (done.rows, done.rejects) == (3, 1)
    assert claims_of(uri, namespace) == [(0, "done", 1), (1, "done", 2), (2, "done", 1)]


def test_what_is_written_of_a_chunk_counts_only_with_its_record(
    uri: str,
    writer: RunStore,
    namespace: str,
) -> None:
    with Work.on(writer, a_run(namespace)) as one:
        chunk = ChunkRecord(one.ledger, one.claim().number)
        chunk.write(predictions([1, 2, 3]))
        chunk.reject([Reject(7, "k", "x", "missing")])
    assert rejects_of(uri, namespace) == []
    with Work.on(writer, a_run(namespace)) as again:
        again.record(predictions([1]))
        assert again.publish().rows == 1


@pytest.mark.parametrize("first", [0, 1])
def test_the_first_to_record_a_chunk_counts(
    two: tuple[Work, Work], monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    monkeypatch.setattr(ledger, "LEASE_SECONDS", -1.0)
    one, other = two
    mine, theirs = one.claim(), other.claim()
    assert (mine.number, theirs.number) == (0, 1)
    one.claim()
    taken = other.claim()  # The lease of chunk 0 is over.
    assert (taken.number, taken.attempt) == (0, 2)
    works = [(one, mine, 5), (other, taken, 6)]
    for at in (first, 1 - first):
        work, held, value = works[at]
        chunk = ChunkRecord(work.ledger, held.number)
        chunk.write(predictions([1], value))
        chunk.reject([Reject(value, None, "x", "missing")])
        assert chunk.done(2) is (at == first)
    totals = one.ledger.totals()
    assert (totals.done, totals.rows, totals.rejects) == (1, 2, 1)


def test_a_worker_that_sigterm_interrupts_in_a_query_releases_its_chunks(
    postgres: Server,
) -> None:
    uri, namespace = postgres.database(), "n"
    active = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"

    def terminate() -> None:
        until(lambda: ask(uri, active, "")[0][0], "the query runs")
        os.kill(os.getpid(), signal.SIGTERM)

    def work() -> None:
        with Work.on(writer, a_run(namespace)) as one:
            one.claim()
            threading.Thread(target=terminate).start()
            one.ledger.control.rows("SELECT pg_sleep(60)")

    handler = signal.signal(signal.SIGTERM, sigterm.terminate)
    writer = open_run_store(uri)
    try:
        with pytest.raises(sigterm.Terminated):
            work()
    finally:
        signal.signal(signal.SIGTERM, handler)
        writer.close()
    assert claims_of(uri, namespace) == [(0, "todo", 1)]


def test_a_worker_that_hangs_before_it_commits_does_not_keep_its_chunk(
    postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "LEASE_SECONDS", -1.0)
    store = open_run_store(postgres.database())
    try:
        with Work.on(store, a_run("n")) as hung, Work.on(store, a_run("n")) as other:
            chunk = ChunkRecord(hung.ledger, hung.claim().number)
            chunk.write(predictions([1]))
            with monkeypatch.context() as patch:
                patch.setattr(chunk, "_end", lambda: None)
                assert chunk.done(1)
            assert other.ledger.claim() is None, "its record is locked"
            taken = until(other.ledger.claim, "the chunk is free", seconds=60)
            second = ChunkRecord(other.ledger, taken.number)
            second.write(predictions([1], 7))
            assert second.done(1)
            with pytest.raises(StoreUnavailable):
                hung.ledger.data.rows("SELECT 1")
    finally:
        store.close()


def test_a_renewed_claim_is_not_taken(
    two: tuple[Work, Work], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two
    for _ in range(3):
        one.claim()
    assert other.ledger.claim() is None
    monkeypatch.setattr(ledger, "LEASE_SECONDS", -1.0)
    one.ledger.renew()
    assert other.claim().attempt == 2


def test_the_chunks_of_a_worker_that_is_gone_are_taken_at_once(two: tuple[Work, Work]) -> None:
    one, other = two
    for _ in range(3):
        one.claim()
    assert other.ledger.claim() is None
    one.ledger.control.close()  # As when the process dies: nothing is given back.
    # The server notices the end of the connection, and frees its locks, a moment later.
    first = until(other.ledger.claim, "the chunks are free")
    assert [first.number, *(other.claim().number for _ in range(2))] == [0, 1, 2]


def test_a_thread_of_a_worker_that_leaves_claims_nothing_more(
    uri: str,
    writer: RunStore,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late: list[Any] = []
    with Work.on(writer, a_run(namespace), splits=3) as one:
        one.claim()
        give_back = one.ledger.control.change

        def and_claim(*statement: Any) -> int:
            done = give_back(*statement)
            late.append(one.ledger.claim())
            return done

        monkeypatch.setattr(one.ledger.control, "change", and_claim)
    assert late == [None]
    assert [state for _, state, _ in claims_of(uri, namespace)] == ["todo"] * 3


def test_a_slow_workers_chunk_is_stolen_once_its_time_is_unusual(two: tuple[Work, Work]) -> None:
    one, other = two
    one.claim()
    assert other.ledger.steal(times_slower=0.0, at_least=0.0) is None, "nothing to compare with"
    other.record(predictions([1]))
    other.record(predictions([2], 1))
    assert other.ledger.steal() is None, "it has hardly begun"
    stolen = other.ledger.steal(times_slower=0.0, at_least=0.0)
    assert stolen is not None
    assert (stolen.number, stolen.attempt) == (0, 2)


def test_a_run_that_is_given_up_ends_for_all_and_begins_anew(
    uri: str,
    writer: RunStore,
    namespace: str,
    two: tuple[Work, Work],
) -> None:
    one, other = two
    one.record(predictions([1]))
    one.ledger.fail("TooManyRejects", "too many", 5)
    assert other.ledger.claim() is None
    failure = other.ledger.failure()
    assert failure is not None
    assert (failure.reason, failure.message, failure.exit_code) == ("TooManyRejects", "too many", 5)
    (run,) = writer.runs(namespace, "churn")
    assert (run.state, run.rows, run.reason, run.message) == (
        "failed",
        1,
        "TooManyRejects",
        "too many",
    )
    with Work.on(writer, a_run(namespace), splits=1) as anew:
        assert claims_of(uri, namespace) == [(0, "todo", 0)]
        with pytest.raises(StoreUnavailable, match="another worker has taken over run r1"):
            other.ledger.failure()
        anew.record(predictions([2]))
        assert anew.publish().rows == 1


def test_one_name_is_not_two_runs_at_once(writer: RunStore, namespace: str) -> None:
    with (
        Work.on(writer, a_run(namespace)),
        pytest.raises(ConfigError, match="run r1 is already in progress with another model"),
    ):
        Work.on(writer, a_run(namespace, version="v2"))
    with Work.on(writer, a_run(namespace, version="v2")) as anew:
        anew.record(predictions([1]))
        assert anew.publish().version == "v2"


def test_one_worker_at_a_time_ends_a_run(two: tuple[Work, Work]) -> None:
    one, other = two
    with alone(one.ledger) as first:
        assert first
        with alone(other.ledger) as second:
            assert not second
    with alone(other.ledger) as second:
        assert second


def test_progress_tells_how_far_each_worker_is(
    writer: RunStore,
    namespace: str,
    two: tuple[Work, Work],
) -> None:
    one, other = two
    one.record(predictions([1, 2]), rejects=(Reject(7, "k", "x", "missing"),))
    other.record(predictions([3], 2))
    one.claim()
    told = writer.progress(namespace, "churn", "r1")
    assert (told.state, told.rows, told.rejects, told.chunks, told.chunks_done) == (
        "scoring",
        4,
        1,
        3,
        2,
    )
    assert [(w.rows, w.rejects, w.chunks, w.alive) for w in told.workers] == [
        (3, 1, 1, True),
        (1, 0, 0, True),
    ]
    assert told.rows_per_second > 0
    with pytest.raises(ConfigError, match="the store has no run r9 of churn"):
        writer.progress(namespace, "churn", "r9")


async def test_an_earlier_run_is_brought_back(
    uri: str,
    writer: RunStore,
    namespace: str,
) -> None:
    for at in range(3):
        publish(writer, a_run(namespace, f"r{at}"), predictions([1], at))
    assert writer.rollback(namespace, "churn") == "r1"
    assert (await look(uri, namespace, [1])).rows == {1: {"y": 1.0}}
    assert writer.rollback(namespace, "churn") == "r0"
    with pytest.raises(ConfigError, match="no earlier run"):
        writer.rollback(namespace, "churn")
    assert writer.rollback(namespace, "churn", "r2") == "r2"
    assert (await look(uri, namespace, [1])).rows == {1: {"y": 2.0}}
    with pytest.raises(ConfigError, match="has no run r9"):
        writer.rollback(namespace, "churn", "r9")
    writer.rollback(namespace, "churn", "r0")
    publish(writer, a_run(namespace, "r3"), predictions([1], 3), keep=1)
    assert [run.name for run in writer.runs(namespace, "churn")] == ["r3"]


def test_two_runs_are_compared_by_key(writer: RunStore, namespace: str) -> None:
    publish(writer, a_run(namespace, "r1"), predictions([1, 2, 3], y=[1.0, 2.0, 3.0]))
    publish(writer, a_run(namespace, "r2"), predictions([2, 3, 4, 5], y=[2.0, 4.0, 5.0, 6.0]))
    told = writer.difference(namespace, "churn", "r1", "r2")
    assert (told.only_before, told.only_after, told.common, told.changed) == (1, 2, 2, 1)
    assert (told.shifts["y"].before, told.shifts["y"].after) == (2.0, 4.25)


def test_the_distributions_of_two_runs_have_the_same_bins(
    uri: str, writer: RunStore, namespace: str
) -> None:
    odd = [float("inf"), float("-inf"), float("nan")]
    first = np.array([0.0, 1.0, 5.5, *odd[:2]])
    if uri.startswith("sqlite"):
        odd = [7.0]  # It has no place for a value that is no number.
    second = np.array([20.0, 19.5, 5.5, 5.4, odd[-1]])
    outputs = [{"name": "y", "type": "float64"}, {"name": "n", "type": "uint64"}]
    spec = contract(*outputs, {"name": "same", "type": "bool"})
    for name, y in (("r1", first), ("r2", second)):
        columns = {"y": y, "n": np.full(5, 7, np.uint64), "same": np.ones(5, bool)}
        publish(writer, a_run(namespace, name, spec), predictions([1, 2, 3, 4, 5], **columns))
    shifts = writer.difference(namespace, "churn", "r1", "r2").shifts
    assert set(shifts) == {"y", "n"}
    found = shifts["y"].histogram
    assert found is not None
    known = second[np.isfinite(second)]
    before, _ = np.histogram([0.0, 1.0, 5.5], bins=20, range=(0, 20))
    after, _ = np.histogram(known, bins=20, range=(0, 20))
    assert (found.low, found.high) == (0.0, 20.0)
    assert found.before == tuple(before.tolist())
    assert found.after == tuple(after.tolist())
    constant = shifts["n"].histogram
    assert constant is not None
    assert (constant.low, constant.before, constant.after) == (7.0, (5,), (5,))


def test_a_store_of_the_first_version_is_brought_up_to_date(
    request: pytest.FixtureRequest,
    uri: str,
) -> None:
    own = uri
    if uri.startswith("postgresql"):
        own = request.getfixturevalue("postgres").database()
    open_run_store(own).close()
    for table in ("tombstones", "workers", "chunks", "ledgers"):
        change(own, f"DROP TABLE {{0}}{table}")
    change(own, "UPDATE {0}schema_version SET version = 1")
    store = open_run_store(own)
    publish(store, a_run("n"), predictions([1]))
    store.close()


def change(uri: str, query: str) -> None:
    if uri.startswith("sqlite"):
        import sqlite3

        connection: Any = sqlite3.connect(uri.removeprefix("sqlite:///"))
        prefix = ""
    else:
        import psycopg

        connection, prefix = psycopg.connect(uri), "fourways."
    connection.execute(query.format(prefix))
    connection.commit()
    connection.close()
