"""The commands of docs/backup-and-upgrade.md, with a real PostgreSQL."""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from fourways_runtime.io.store import open_reader, open_run_store
from tests.kit.stores import a_run, predictions, publish
from tools.installation import ROOT
from tools.servers.postgres import Server

pytestmark = pytest.mark.embedded

PAGE = ROOT / "docs" / "backup-and-upgrade.md"


def command(program: str) -> str:
    """Return the page's command line that starts with a program."""
    (found,) = re.findall(rf"^{program} .*$", PAGE.read_text("utf-8"), re.MULTILINE)
    return str(found)


def run(server: Server, program: str, uri: str, folder: Path) -> None:
    environment = {**os.environ, "STORE_URI": uri}
    environment["PATH"] = f"{server.binaries}{os.pathsep}{environment['PATH']}"
    subprocess.run(["bash", "-euc", command(program)], cwd=folder, env=environment, check=True)


async def test_a_restored_store_answers_and_is_written_on(postgres: Server, tmp_path: Path) -> None:
    old, new = postgres.database(), postgres.database()
    with closing(open_run_store(old)) as store:
        publish(store, a_run("shop", "churn-1"), predictions([1, 2], y=[0.25, 0.5]))
    run(postgres, "pg_dump", old, tmp_path)
    with psycopg.connect(old, autocommit=True) as connection:
        connection.execute("DROP SCHEMA fourways CASCADE")
    run(postgres, "pg_restore", new, tmp_path)
    reader = open_reader(new, 5.0)
    try:
        assert await reader.ready()
        found = await reader.lookup("shop", "churn", [1, 2])
        assert found is not None
        assert [row["y"] for row in found.rows.values()] == [0.25, 0.5]
        with closing(open_run_store(new)) as store:
            publish(store, a_run("shop", "churn-2"), predictions([1], y=[0.75]))
            assert [run.name for run in store.runs("shop", "churn")] == ["churn-2", "churn-1"]
    finally:
        await reader.close()
