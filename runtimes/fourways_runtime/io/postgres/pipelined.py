"""A connection that sends a statement before the previous one is answered.

Owns libpq's pipeline mode: each statement is its own transaction, complete once its sync is
answered. Waiting for an answer does not block other threads. Errors are psycopg's.
"""

from __future__ import annotations

import select
from collections.abc import Sequence

import psycopg
from psycopg import sql
from psycopg.pq import ConnStatus, ExecStatus, PipelineStatus
from psycopg.pq.abc import PGresult


class Line:
    """A connection, its prepared statements and its statements in flight."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self.connection = connection
        self.under_way = 0
        """Number of statements sent whose result has not been read."""

        self._raw = connection.pgconn
        self._prepared: set[bytes] = set()

    def knows(self, name: bytes) -> bool:
        """Tell whether a statement is prepared."""
        return name in self._prepared

    def prepare(self, name: bytes, statement: sql.Composed) -> None:
        """Prepare a statement; no statement may be in flight."""
        self._leave()
        text = statement.as_string(self.connection).encode()
        self._check(self._raw.prepare(name, text))
        self._prepared.add(name)

    def ask(self, name: bytes, values: Sequence[bytes]) -> PGresult:
        """Run a prepared statement on binary values and wait; no statement may be in flight."""
        self._leave()
        return self._check(self._raw.exec_prepared(name, values, [1] * len(values), 0))

    def send(self, name: bytes, values: Sequence[bytes]) -> None:
        """Send a prepared statement after those already in flight."""
        if self._raw.pipeline_status == PipelineStatus.OFF:
            self._raw.enter_pipeline_mode()
        self._raw.send_query_prepared(name, values, [1] * len(values), 0)
        self._raw.pipeline_sync()
        self.under_way += 1

    def receive(self) -> Exception | None:
        """Wait until the oldest statement in flight is committed; return its error, if any.

        Raises:
            psycopg.OperationalError: the connection broke; the outcome of the statement is unknown.

        """
        self.under_way -= 1
        wrong: Exception | None = None
        while True:
            self._await()
            result = self._raw.get_result()
            if result is None:
                if self._raw.status == ConnStatus.BAD:
                    raise psycopg.OperationalError("the connection was lost")
            elif result.status == ExecStatus.PIPELINE_SYNC:
                # Not earlier: the server answers a statement before it commits it.
                return wrong
            else:
                wrong = wrong or self._wrong(result)

    def free(self) -> psycopg.Connection:
        """Return the connection for other use; no statement may be in flight."""
        self._leave()
        return self.connection

    def _leave(self) -> None:
        if self._raw.pipeline_status != PipelineStatus.OFF:
            self._raw.exit_pipeline_mode()

    def _await(self) -> None:
        """Wait until a result is available: ``get_result`` would block while it holds the GIL."""
        line = self._raw
        while True:
            unsent = line.flush()
            if not line.is_busy():
                return
            poll = select.poll()
            poll.register(line.socket, select.POLLIN | (select.POLLOUT if unsent else 0))
            poll.poll()
            line.consume_input()

    def _check(self, result: PGresult) -> PGresult:
        wrong = self._wrong(result)
        if wrong is not None:
            raise wrong
        return result

    def _wrong(self, result: PGresult) -> Exception | None:
        if result.status in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
            return None
        if self._raw.status == ConnStatus.BAD:
            return psycopg.OperationalError("the connection was lost")
        return psycopg.errors.error_from_result(result)
