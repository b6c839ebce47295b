"""A query that a person wrote, used inside other statements: one statement, which only reads.

The text is part of ``SELECT … FROM (TEXT) AS q``. A text such as ``SELECT 1) AS q; DELETE …; (``
must not leave its parentheses. So PostgreSQL itself first prepares the bare text: it accepts a
single statement only, and a statement that stands alone cannot close a parenthesis that it did not
open. Every statement made of the text is then sent by the extended protocol, which takes a single
statement too. The transaction is read-only.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import pq, sql

from fourways_runtime.errors import QueryRefused

_ENDS = " \t\r\n;"


class UserQuery:
    """The text of a manifest; ``what`` names it in messages."""

    def __init__(self, text: str, what: str) -> None:
        self._text = text.strip(_ENDS)
        self._what = what
        # On a line of its own: a comment at the end must not swallow what follows.
        self.source = sql.SQL("FROM (\n{}\n) AS q").format(
            sql.SQL(self._text)  # checked before each use
        )
        """``FROM (TEXT) AS q``, for statements that :meth:`rows` and :meth:`checked` run."""

    def rows(self, connection: psycopg.Connection, statement: sql.Composable) -> psycopg.Cursor:
        """Run a statement that contains the source; return its cursor.

        Raises:
            QueryRefused: the text is not a single statement that returns rows.
            psycopg.Error: as the server answers.

        """
        text = self.checked(connection, statement)
        # Results in binary are only in the extended protocol.
        return connection.execute(text, binary=True)

    def checked(self, connection: psycopg.Connection, statement: sql.Composable) -> bytes:
        """Return a statement that contains the source, after a check of the text.

        The check is made in the same session, just before the use: a query may change settings of
        the session, by which the same text would be read in another way.

        Raises:
            QueryRefused: the text is not a single statement that returns rows.
            psycopg.Error: the server refuses it.

        """
        server = connection.pgconn
        _expect(
            server.exec_(b"SET LOCAL standard_conforming_strings = on"), pq.ExecStatus.COMMAND_OK
        )
        raw = self._text.encode()
        if b"\0" in raw:
            raise QueryRefused(f"{self._what}: the SQL contains a NUL character; remove it")
        prepared = server.prepare(b"", raw)
        if prepared.status != pq.ExecStatus.COMMAND_OK:
            error = psycopg.errors.error_from_result(prepared)
            if isinstance(error, psycopg.errors.SyntaxError):
                raise QueryRefused(
                    f"{self._what}: the SQL is not one statement that PostgreSQL can prepare"
                    f"{_explained(prepared)}; write a single SELECT"
                ) from None
            raise error
        described = server.describe_prepared(b"")
        _expect(described, pq.ExecStatus.COMMAND_OK)
        if described.nfields == 0 or described.nparams:
            raise QueryRefused(
                f"{self._what}: the SQL returns no rows or has parameters; write a single SELECT"
            )
        return statement.as_bytes(connection)


def _explained(result: Any) -> str:
    """Return the server's own sentence; it quotes at most the word it stumbled over."""
    text = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY)
    return f" ({text.decode(errors='replace')})" if text else ""


def _expect(result: Any, status: int) -> None:
    if result.status != status:
        raise psycopg.errors.error_from_result(result)
