"""The line to PostgreSQL is cut at each statement of publishing: readers see old or new, whole."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from fourways_runtime.io.store import open_run_store
from fourways_runtime.workloads.batch import BatchRun, run_context
from tests.kit.batch_world import World
from tests.kit.secret_files import secret_folder
from tools.servers.cut_line import CutLine, at_number
from tools.servers.postgres import Server

pytestmark = [
    pytest.mark.embedded,
    # Some thirty runs a test.
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning"),
]

ROWS, GROUP = 400, 200
REFUSED, GIVES_WAY, AGAIN = 5, 20, 330
"""Rows of the table: one that breaks the contract, and two with one key."""


class Table:
    """A table that changes with every version, and where its predictions go."""

    def __init__(self, folder: Path, uri: str, kind: str) -> None:
        self.world = World(folder, uri, "n")
        self.kind = kind
        self.keys = [f"c{n}" for n in range(ROWS)]
        if kind != "incremental":  # Nothing is built on a run with repeated keys.
            self.keys[GIVES_WAY] = self.keys[AGAIN]
        self.secret = folder / "secrets" / "db" / "uri"
        secret_folder(self.secret.parent)
        self.at(uri)
        if kind == "table":
            with psycopg.connect(uri, autocommit=True) as connection:
                connection.execute("CREATE TABLE out (id text PRIMARY KEY, y float8)")

    def at(self, uri: str) -> None:
        """Let workers find the databases at another address."""
        (self.world.root / "uri").write_text(uri)
        self.secret.write_text(uri)

    def write(self, version: int) -> None:
        # A key comes and one goes with each version.
        ages = np.arange(ROWS + 1) % 100
        ages[REFUSED] = -1
        self.world.table(
            id=[*self.keys, f"only{version}"],
            age=ages,
            spend=self._spend(version),
            row_group_size=GROUP,
        )

    def _spend(self, version: int) -> Any:
        spend = np.full(ROWS + 1, version, np.float32)
        if self.kind == "incremental":
            spend[np.arange(ROWS + 1) % 50 > 0] = 0
        return spend

    def answers(self, version: int) -> dict[str, float]:
        spend = self._spend(version)
        keys = [*self.keys, f"only{version}"]
        return {
            key: 2.0 * (n % 100 + float(spend[n])) for n, key in enumerate(keys) if n != REFUSED
        }

    def run(self, name: str) -> BatchRun:
        changes: dict[str, Any] = {"batch__maxRejects": "9", "batch__keepRuns": 2}
        if self.kind == "incremental":
            changes["batch__incremental"] = {"rowHash": True, "deletions": "Remove"}
        if self.kind == "table":
            changes["batch__sink"] = {"table": {"database": {"secretName": "db"}, "table": "out"}}
        secrets = str(self.secret.parent.parent)
        memory = 8 * GROUP * (8 * 3 + 64)
        return BatchRun(
            self.world.config(memoryBytes=memory, paths__secretsRoot=secrets, **changes), name
        )

    async def seen(self, *versions: int) -> dict[str, float]:
        """Return what readers see now of the keys of some versions."""
        if self.kind == "table":
            with psycopg.connect(self.world.uri) as connection:
                return dict(connection.execute("SELECT id, y FROM out").fetchall())
        keys = dict.fromkeys((*self.keys, *(f"only{version}" for version in versions)))
        return {key: row["y"] for key, row in (await self.world.rows(*keys)).items()}


@pytest.mark.parametrize("forward", [False, True], ids=["before it", "before its reply"])
@pytest.mark.parametrize("kind", ["store", "incremental", "table"])
async def test_a_line_cut_at_any_statement_of_publishing_shows_old_or_new(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, forward: bool
) -> None:
    monkeypatch.setattr(run_context, "RETRY_SECONDS", 0.02)
    uri = postgres.database()
    table = Table(tmp_path, uri, kind)
    table.write(0)
    await asyncio.to_thread(table.run("r0").execute)
    assert await table.seen(0) == table.answers(0)
    version, went_through = 0, False
    while not went_through:
        version += 1
        table.write(version)
        with CutLine(postgres, at_number(version), forward=forward) as line:
            table.at(line.uri(uri))
            await _run(table, line, version)
            went_through = not line.cut.is_set()
        assert await table.seen(version - 1, version) == table.answers(version)
        with closing(open_run_store(uri)) as writer:
            (tries,) = writer.database.rows(
                "SELECT sum(attempts), count(*), sum(c.rows) FROM @chunks c JOIN @runs r "
                "ON r.id = c.run_id WHERE r.name = ?",
                (f"r{version}",),
            )
            assert tries == (3, 3, ROWS + 1), f"scored again after statement {version}"
            newest = writer.runs("n", "churn")[0]
            assert (newest.name, newest.state) == (f"r{version}", "published")
            assert newest.rejects == ROWS + 1 - len(table.answers(version))
            assert newest.rows == len(table.answers(version))
    assert version > 15, "publishing takes more statements than that"


async def _run(table: Table, line: CutLine, version: int) -> None:
    run = table.run(f"r{version}")
    original = run.context.log

    def log(stage: str, **details: Any) -> None:
        original(stage, **details)
        # The next attempt says so too.
        if stage == "scored" and not line.cut.is_set():
            line.arm()
        if stage == "store unavailable":
            seen = asyncio.run(table.seen(version - 1, version))
            assert seen in (table.answers(version - 1), table.answers(version)), (
                f"readers see neither run whole, cut at statement {version}"
            )

    run.context.log = log  # type: ignore[method-assign]
    done = await asyncio.to_thread(run.execute)
    assert (done.name, done.rows) == (f"r{version}", len(table.answers(version)))
