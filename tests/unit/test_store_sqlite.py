"""SQLite as a store: what other databases do by themselves."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from fourways_runtime.errors import StoreUnavailable
from fourways_runtime.io.store import sqlite_database
from fourways_runtime.io.store.sqlite_database import SqliteDatabase

SOON = 10.0


def test_a_connection_is_not_closed_under_a_statement_of_another_thread(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "store.db")
    closing = threading.Event()

    def close() -> None:
        closing.set()
        database.close()

    closer = threading.Thread(target=close)
    with database.transaction():
        closer.start()
        assert closing.wait(SOON)
        assert database.rows("SELECT 1") == [(1,)], "it is still open"
    closer.join(SOON)
    with pytest.raises(StoreUnavailable, match=r"store\.db is closed"):
        database.rows("SELECT 1")


def test_a_statement_that_hangs_does_not_hold_up_who_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_database, "CLOSE_SECONDS", 0.01)
    database = SqliteDatabase(tmp_path / "store.db")
    with database.transaction():
        closer = threading.Thread(target=database.close)
        closer.start()
        closer.join(SOON)
        assert not closer.is_alive()
        assert database.rows("SELECT 1") == [(1,)]
    database.close()


@pytest.mark.thorough
def test_a_new_store_is_opened_by_six_at_once(tmp_path: Path) -> None:
    """SQLite itself does not wait for the one that switches the file to a write-ahead log."""
    failures: list[BaseException] = []

    def begin(path: Path, barrier: threading.Barrier) -> None:
        barrier.wait(SOON)
        try:
            SqliteDatabase(path).close()
        except BaseException as error:  # noqa: BLE001  (shown by the test)
            failures.append(error)

    for number in range(20):
        barrier = threading.Barrier(6)
        path = tmp_path / f"{number}.db"
        threads = [threading.Thread(target=begin, args=(path, barrier)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
