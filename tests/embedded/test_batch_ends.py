"""Whatever ends a run is named; nothing half is published, and the next try publishes all."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fourways_runtime.errors import (
    ConfigError,
    SourceError,
    StoreFull,
    TooManyRejects,
    Unavailable,
    WorkloadError,
)
from fourways_runtime.io.store import open_run_store
from fourways_runtime.workloads.batch import BatchRun, chunk_loop
from tests.kit.batch_world import World
from tests.kit.secret_files import secret_folder
from tools.servers.postgres import Server

pytestmark = [
    pytest.mark.embedded,
    pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning"),
]

FILES = 10
"""Enough that the last is not read ahead of the first chunk's end."""

ROWS = 1000
FORMS = ["Parquet", "CSV", "JSONLines"]


@pytest.fixture(autouse=True)
def say_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_loop, "SAY_SECONDS", -1.0)


class Ground:
    """A table of several files, a store, and where predictions go."""

    def __init__(self, root: Path, uri: str, form: str = "Parquet", sink: Any = None) -> None:
        self.world = World(root, uri, "n")
        self.form = form
        self.changes: dict[str, Any] = {
            "batch__source": {"uri": "pvc://data/in", "format": form},
            "batch__maxRejects": "1",
            "memoryBytes": 2**24,
            "paths__secretsRoot": str(root / "secrets"),
        }
        if sink is not None:
            self.changes["batch__sink"] = sink
        secret_folder(root / "secrets" / "db", uri=uri)
        self.rows = ROWS
        self.base = 0.0
        self.write()

    def file(self, at: int) -> Path:
        ending = {"Parquet": "parquet", "CSV": "csv", "JSONLines": "jsonl"}[self.form]
        return self.world.file("in") / f"part{at}.{ending}"

    def write(self, **changed: Any) -> None:
        """Write the table; ``changed`` are columns of the last file, None leaves one out."""
        self.world.file("in").mkdir(exist_ok=True)
        each = self.rows // FILES
        for at in range(FILES):
            numbers = np.arange(at * each, (at + 1) * each)
            columns: dict[str, Any] = {
                "id": [f"c{n}" for n in numbers],
                "age": (numbers % 100).tolist(),
                "spend": [self.base] * each,
            }
            if at == FILES - 1:
                columns = {k: v for k, v in (columns | changed).items() if v is not None}
            self._write(self.file(at), columns)

    def _write(self, path: Path, columns: dict[str, Any]) -> None:
        if self.form == "Parquet":
            pq.write_table(pa.table(columns), path)
            return
        rows = list(zip(*columns.values(), strict=True))
        if self.form == "CSV":
            lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
        else:
            lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
        path.write_text("\n".join(lines) + "\n")

    def run(self, name: str) -> BatchRun:
        return BatchRun(self.world.config(**self.changes), name)

    async def seen(self) -> tuple[int, float]:
        """Return how many rows readers see, and their base: the same in all of them."""
        sink = self.changes.get("batch__sink")
        if sink is None:
            asked = [f"c{n}" for n in range(self.rows)]
            found = {k: row["y"] for k, row in (await self.world.rows(*asked)).items()}
        elif "table" in sink:
            with psycopg.connect(self.world.uri) as connection:
                found = dict(connection.execute("SELECT id, y FROM out").fetchall())
        else:
            out = self.world.file("out")
            told = json.loads((out / "_latest").read_bytes())
            table = pq.read_table(out / told["path"])
            found = dict(zip(table["id"].to_pylist(), table["y"].to_pylist(), strict=True))
        bases = {y / 2 - int(key[1:]) % 100 for key, y in found.items()}
        assert len(bases) == 1, "half a run"
        return len(found), bases.pop()

    def states(self) -> dict[str, str]:
        with closing(open_run_store(self.world.uri)) as writer:
            return {run.name: run.state for run in writer.runs("n", "churn")}


@dataclass
class Fault:
    """What goes wrong between one run and the next, or in the middle of it."""

    spoil: Callable[[Ground], Any]
    kind: type[WorkloadError]
    told: str
    forms: list[str] = field(default_factory=lambda: FORMS)
    midway: bool = False
    sink: Any = None


def grow(ground: Ground) -> None:
    ground.base += 1
    ground.write()


def damaged(ground: Ground) -> None:
    path = ground.file(FILES - 1)
    raw = bytearray(path.read_bytes())
    raw[40:200] = b"\xff" * 160
    path.write_bytes(raw)


def sql(statement: str) -> Callable[[Ground], None]:
    def act(ground: Ground) -> None:
        with psycopg.connect(ground.world.uri, autocommit=True) as connection:
            connection.execute(statement.encode())

    return act


FILES_SINK = {"files": {"uri": "pvc://data/out"}}
TABLE = {"table": {"database": {"secretName": "db"}, "table": "out"}}
FAULTS = {
    "vanishes": Fault(
        lambda g: g.file(FILES - 1).unlink(),
        SourceError,
        r"part9.*: no longer exists; it existed when",
        midway=True,
    ),
    "changes": Fault(grow, SourceError, r"part\d.*: changed while it was read", midway=True),
    "folder gone": Fault(
        lambda g: g.world.file("in").rename(g.world.file("away")),
        SourceError,
        "no such file",
        ["Parquet"],
    ),
    "no files": Fault(
        lambda g: [g.file(at).unlink() for at in range(FILES)],
        SourceError,
        "the folder has no file that ends with",
        ["CSV"],
    ),
    "column missing": Fault(
        lambda g: g.write(age=None),
        SourceError,
        r"part9.*: column age is missing; the (file has|lines have) id, spend",
    ),
    "column retyped": Fault(
        lambda g: g.write(age=["old"] * 100),
        SourceError,
        r"part9.*: column age is string, the contract says int32; change the contract, or convert",
        ["Parquet"],
    ),
    "cells retyped": Fault(
        lambda g: g.write(age=["old"] * 100),
        TooManyRejects,
        r"maxRejects is 1; the first: row \d+: age is not a whole number",
        ["CSV", "JSONLines"],
    ),
    "rows poisoned": Fault(
        lambda g: g.write(age=[-1, 999, *[1] * 98]),
        TooManyRejects,
        r"2 of \d+ rows were rejected, maxRejects is 1; the first: row \d+: age is "
        r"below 0; row \d+: age is above 120; fourways rejects",
    ),
    "file damaged": Fault(damaged, SourceError, r"part9\.parquet: ", ["Parquet"]),
    "sink's column dropped": Fault(
        sql("ALTER TABLE out RENAME y TO why"),
        ConfigError,
        "sink.table out: it has no column y for y; it has id, why",
        ["Parquet"],
        sink=TABLE,
    ),
    "sink's table dropped": Fault(
        sql("ALTER TABLE out RENAME TO away"),
        ConfigError,
        "sink.table: there is no table out",
        ["Parquet"],
        sink=TABLE,
    ),
    "sink's table dropped midway": Fault(
        sql("ALTER TABLE out RENAME TO away"),
        ConfigError,
        "out",
        ["Parquet"],
        midway=True,
        sink=TABLE,
    ),
}
MENDED = {
    "folder gone": lambda g: g.world.file("away").rename(g.world.file("in")),
    "sink's column dropped": sql("ALTER TABLE out RENAME why TO y"),
    "sink's table dropped": sql("ALTER TABLE away RENAME TO out"),
    "sink's table dropped midway": sql("ALTER TABLE away RENAME TO out"),
}


@pytest.mark.parametrize(
    ("name", "form"), [(name, form) for name, fault in FAULTS.items() for form in fault.forms]
)
async def test_what_ends_a_run_is_named_and_the_next_one_publishes_all(
    request: pytest.FixtureRequest, tmp_path: Path, name: str, form: str
) -> None:
    fault = FAULTS[name]
    uri = f"sqlite:///{tmp_path}/store.db"
    if fault.sink:
        uri = request.getfixturevalue("postgres").database()
        with psycopg.connect(uri, autocommit=True) as connection:
            connection.execute("CREATE TABLE out (id text PRIMARY KEY, y float8)")
    ground = Ground(tmp_path, uri, form, fault.sink)
    ground.run("r1").execute()
    before = await ground.seen()
    assert before == (ROWS, 0.0)
    ground.base = 5.0
    ground.write()
    run = ground.run("r2")
    if fault.midway:
        at(run, "progress", lambda: fault.spoil(ground))
    else:
        fault.spoil(ground)
    with pytest.raises(fault.kind, match=fault.told) as error:
        run.execute()
    assert error.value.exit_code not in (0, 75)
    assert ground.states().get("r2", "failed") == "failed"
    MENDED.get(name, lambda ground: None)(ground)
    if not (fault.sink and name.endswith("midway")):
        assert await ground.seen() == before
    ground.write()
    ground.run("r2").execute()
    assert await ground.seen() == (ROWS, ground.base)
    assert ground.states() == {"r1": "published", "r2": "published"}


@pytest.mark.parametrize("form", FORMS)
async def test_a_column_that_comes_is_no_fault(tmp_path: Path, form: str) -> None:
    ground = Ground(tmp_path, f"sqlite:///{tmp_path}/store.db", form)
    ground.write(more=["x"] * 100)
    assert ground.run("r1").execute().rows == ROWS


def at(run: BatchRun, stage: str, act: Callable[[], object]) -> None:
    """Act when the run says a stage for the first time."""
    original = run.context.log
    said: list[str] = []

    def log(what: str, **details: Any) -> None:
        original(what, **details)
        said.append(what)
        if what == stage and said.count(stage) == 1:
            act()

    run.context.log = log  # type: ignore[method-assign]


# ---------------------------------------------------------------- no room


@pytest.mark.parametrize("where", ["postgresql", "sqlite", "sink"])
async def test_a_full_disk_is_named_and_the_next_try_goes_on_from_what_is_recorded(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    disk: Callable[..., Callable[[str], None]],
    where: str,
) -> None:
    ground, enlarge = _cramped(request, tmp_path, disk, where)
    ground.run("r1").execute()
    ground.rows, ground.base = 120_000, 5.0
    noise = np.random.default_rng(0).random(120_000).astype(np.float32)
    columns = {"id": [f"c{n}" for n in range(120_000)], "age": np.arange(120_000) % 100}
    columns["spend"] = noise  # What cannot be compressed.
    for each in range(FILES):
        ground.file(each).unlink()
    pq.write_table(pa.table(columns), ground.file(0), row_group_size=5000)
    with pytest.raises(StoreFull, match=r"(?i)no space left|full") as error:
        ground.run("r2").execute()
    assert isinstance(error.value, Unavailable)
    assert error.value.exit_code == 75
    before = ground.rows
    ground.rows = ROWS
    assert await ground.seen() == (ROWS, 0.0)
    ground.rows = before
    enlarge("64m")
    with closing(open_run_store(ground.world.uri)) as writer:
        ((recorded,),) = writer.database.rows(
            "SELECT coalesce(sum(c.rows), 0) FROM @chunks c JOIN @runs r ON r.id = c.run_id "
            "WHERE r.name = 'r2' AND c.state = 'done'"
        )
    again = ground.run("r2")
    assert again.execute().rows == 120_000
    assert 0 < recorded < 120_000
    assert again.progress.rows == 120_000 - recorded
    assert ground.states() == {"r1": "published", "r2": "published"}


def _cramped(
    request: pytest.FixtureRequest,
    folder: Path,
    disk: Callable[..., Callable[[str], None]],
    where: str,
) -> tuple[Ground, Callable[[str], None]]:
    """Return a ground with little room for what it writes, and what makes more."""
    if where == "sink":
        ground = Ground(folder, f"sqlite:///{folder}/store.db", sink=FILES_SINK)
        return ground, disk(ground.world.file("out"), "1m")
    if where == "sqlite":
        enlarge = disk(folder / "small")
        return Ground(folder, f"sqlite:///{folder}/small/store.db"), enlarge
    server: Server = request.getfixturevalue("own_server")
    small = server.folder / "small"
    enlarge = disk(small, "3m")  # PostgreSQL extends a table by many pages at once
    owner = pwd.getpwuid(os.stat(server.data).st_uid)
    os.chown(small, owner.pw_uid, owner.pw_gid)
    uri = server.database()
    database = uri.partition("?")[0].rpartition("/")[2]
    with psycopg.connect(server.uri(), autocommit=True) as connection:
        connection.execute(f"CREATE TABLESPACE small LOCATION '{small}'".encode())
        connection.execute(f"ALTER DATABASE {database} SET default_tablespace = small".encode())
    return Ground(folder, uri), enlarge
