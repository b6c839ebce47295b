"""A chunk's rows, rejects and record, which are written to the store together or not at all."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import orjson

from fourways_runtime.scoring.columns import Array, Keys, Predictions, Reject
from fourways_runtime.scoring.profile import ProfileCounts

from .. import layout
from ..database import TableMissing
from .ledger import RunLedger, taken_over
from .profiles import add_counts


class ChunkRecord:
    """A chunk being written: its rows, rejects and record, all or nothing."""

    def __init__(self, ledger: RunLedger, number: int) -> None:
        self._ledger = ledger
        self._data = ledger.data
        self.number = number
        self._open: Any = None
        self._waiting: list[Callable[[], object]] = []
        self._append = ledger.data.appender(ledger.table, ledger.columns) if ledger.table else None
        self._predictions = 0
        self._rejects = 0

    def write(self, predictions: Predictions, hashes: Array | None = None) -> None:
        """Append predictions, with the hash of each row if runs are compared."""
        append = self._append
        self._predictions += len(predictions)
        if not len(predictions) or append is None:
            return
        values: list[Keys] = [
            predictions.keys,
            predictions.rows,
            *([] if hashes is None else [hashes]),
        ]
        values += [
            predictions.columns[column.name]
            for column in layout.columns(self._ledger.run.contract)[1:]
        ]
        self._do(lambda: append(values))

    def section(self, digest: str | None, hashes: Array) -> None:
        """Append what identifies a section's rows in a later run.

        That is the hash of each row that has a prediction and, if all rows have one, the digest of
        the section.
        """
        values = (self._ledger.run_id, digest, hashes.tobytes())
        self._do(lambda: self._data.change("INSERT INTO @sections VALUES (?, ?, ?)", values))

    def unchanged(self, digest: str) -> None:
        """Append a section that has not changed since the published run."""
        base = self._ledger.base
        values = (self._ledger.run_id, base.run_id if base else None, digest)
        copy = (
            "INSERT INTO @sections SELECT ?, digest, hashes FROM @sections "
            "WHERE run_id = ? AND digest = ? LIMIT 1"
        )
        self._do(lambda: self._data.change(copy, values))

    def reject(self, rejects: list[Reject]) -> None:
        """Append rejects."""
        self._rejects += len(rejects)
        if rejects:
            self._do(lambda: self._data.append_rejects(self._ledger.run_id, rejects))

    def profile(self, counts: ProfileCounts) -> None:
        """Append how the values of the chunk's records are distributed."""
        self._do(lambda: add_counts(self._data, self._ledger.run_id, self.number, counts))

    def done(self, rows: int, *, watermark: Any = None, receipt: str = "") -> bool:
        """Record the chunk permanently; if another worker has, return False and write nothing."""
        values = (
            self._ledger.owner,
            rows,
            self._predictions,
            self._rejects,
            None if watermark is None else orjson.dumps(watermark).decode(),
            receipt,
            self._ledger.run_id,
            self.number,
        )
        try:
            self._begin()
            for write in self._waiting:
                write()
            recorded = self._data.change(
                "UPDATE @chunks SET state = 'done', done_at = :now, owner = ?, rows = ?, "
                "predictions = ?, rejects = ?, watermark = ?, receipt = ? "
                "WHERE run_id = ? AND number = ? AND state <> 'done' :brief",
                values,
            )
            if recorded != 1:
                raise _Lost
            self._end()
        except _Lost:
            return False
        except TableMissing:
            raise taken_over(self._ledger.run) from None
        finally:
            self.drop()
        return True

    def drop(self) -> None:
        """Roll back what was written, unless it is recorded. Raises nothing."""
        if self._open is not None:
            # If the connection broke, the database has already rolled back.
            with suppress(Exception):
                self._end(_Lost())

    def _do(self, write: Callable[[], object]) -> None:
        if not self._data.streams:
            self._waiting.append(write)
            return
        try:
            self._begin()
            write()
        except BaseException as error:
            self.drop()
            if isinstance(error, TableMissing):
                raise taken_over(self._ledger.run) from None
            raise

    def _begin(self) -> None:
        if self._open is None:
            transaction = self._data.transaction()
            transaction.__enter__()
            self._open = transaction

    def _end(self, error: Exception | None = None) -> None:
        transaction, self._open = self._open, None
        if error is None:
            transaction.__exit__(None, None, None)
        else:
            transaction.__exit__(type(error), error, error.__traceback__)


class _Lost(Exception):
    """Another worker has already recorded the chunk."""
