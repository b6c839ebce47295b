"""Statements on a connection in pipeline mode: a broken connection is an outage, never a bug."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from psycopg.pq import ConnStatus, ExecStatus, PGconn, PipelineStatus

from fourways_runtime.errors import StoreUnavailable
from fourways_runtime.io.postgres.connection import translated
from fourways_runtime.io.postgres.pipelined import Line


@pytest.mark.parametrize("status", [ConnStatus.BAD, ConnStatus.OK])
def test_a_server_that_went_away_while_it_was_sent_a_statement_is_unavailable(
    status: ConnStatus,
) -> None:
    """libpq answers it itself, without a code, and may still call the connection good."""
    answer = PGconn.connect_start(b"host=/nowhere").make_empty_result(ExecStatus.FATAL_ERROR)
    raw = SimpleNamespace(
        status=status, pipeline_status=PipelineStatus.OFF, exec_prepared=lambda *_: answer
    )
    connection: Any = SimpleNamespace(pgconn=raw)
    with pytest.raises(StoreUnavailable), translated("postgresql://u:p4ss@h/d"):
        Line(connection).ask(b"begin", [])
