"""Complete ``examples/artifacts``; ``make demo`` runs this before ``fourways up``.

It needs numpy, pyarrow and the installed package magika, but none of the training dependencies.
This project's own models are in the repository. Magika's model (3 MB) is copied from its package,
the table of files is generated from files of this machine, and the shop's database from the
committed table. Running it again changes nothing.
"""

from __future__ import annotations

import argparse
import shutil
import sqlite3
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from training import magika_package
from training.artifacts import ARTIFACTS, differing, pinned, read_golden, sha256
from training.file_bytes import HALF, tokens
from training.real_files import by_kind

EXAMPLES = (
    "churn",
    "segmentation",
    "sales-forecast",
    "recommendations",
    "file-type",
    "come-back",
    "water-flow",
)
HISTORY = "customer_history"
"""The table of the shop's database that come-back.yaml names."""

SQL_TYPES = {
    "customer_id": "text PRIMARY KEY",
    "orders": "integer",
    "spend": "real",
    "discs": "integer",
    "days_since_last": "real",
    "mean_gap_days": "real",
}


def main() -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--artifacts", type=Path, default=ARTIFACTS, help="complete another copy of the folder"
    )
    artifacts: Path = parser.parse_args().artifacts
    prepare_file_type(artifacts / "file-type")
    prepare_shop(artifacts / "come-back", artifacts.parent / "secrets")
    prepare_golden_table(artifacts / "churn")
    problems = [problem for name in EXAMPLES for problem in differing(name, artifacts)]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def prepare_file_type(folder: Path) -> None:
    """Copy magika's model and write a table of real files into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "model.onnx"
    if not model.is_file() or sha256(model) != pinned("file-type")["file-type/model.onnx"]:
        _replace(model, lambda new: shutil.copyfile(magika_package.model(), new))
    table = folder / "source.parquet"
    if not table.is_file():
        _replace(table, lambda new: pq.write_table(file_table(), new, compression="zstd"))


def file_table() -> pa.Table:
    """Return one row per file: its name, and its first and last bytes as the model reads them."""
    names, contents = [], []
    for name, path in by_kind().items():
        try:
            content = tokens(path)
        except OSError as error:
            print(f"left out {name}: {error}", file=sys.stderr)
            continue
        if content is not None:
            names.append(name)
            contents.append(content)
    values = pa.array(np.concatenate(contents))
    return pa.table({"file": names, "content": pa.FixedSizeListArray.from_arrays(values, 2 * HALF)})


def prepare_shop(folder: Path, secrets: Path) -> None:
    """Create the shop's database of come-back: a SQLite file, and the same as SQL for PostgreSQL.

    The folder ``secrets/shop-database`` takes the place of the Secret with the connection string.
    """
    rows = pq.read_table(folder / "features.parquet").to_pylist()
    columns = ", ".join(f"{name} {kind}" for name, kind in SQL_TYPES.items())
    create = f"CREATE TABLE {HISTORY} ({columns})"
    values = [tuple(_sql_value(row[name]) for name in SQL_TYPES) for row in rows]
    database, script = folder / "shop.db", folder / "shop.sql"
    if not database.is_file():
        _replace(database, lambda new: _write_sqlite(new, create, values))
    if not script.is_file():
        _replace(script, lambda new: new.write_text(_sql_script(create, values), "utf-8"))
    secret = secrets / "shop-database"
    secret.mkdir(parents=True, exist_ok=True)
    (secret / "fourways.dev-deployments").write_text("come-back", "utf-8")
    (secret / "uri").write_text(f"sqlite:///{database.resolve()}", "utf-8")


def _sql_value(value: Any) -> Any:
    # pandas represents a missing value as NaN, a database as NULL.
    return None if value != value else value


def _write_sqlite(path: Path, create: str, values: Sequence[tuple[Any, ...]]) -> None:
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(create)
        places = ", ".join("?" for _ in SQL_TYPES)
        insert = f"INSERT INTO {HISTORY} VALUES ({places})"  # noqa: S608  (names of ours)
        database.executemany(insert, values)


def _sql_script(create: str, values: Sequence[tuple[Any, ...]]) -> str:
    """Return statements for psql. The values are our own digits and numbers, so quoting is not
    needed."""
    rows = ",\n".join(
        "(" + ", ".join("NULL" if v is None else repr(v) for v in row) + ")" for row in values
    )
    return f"DROP TABLE IF EXISTS {HISTORY};\n{create};\nINSERT INTO {HISTORY} VALUES\n{rows};\n"


def prepare_golden_table(folder: Path) -> None:
    """Write churn's golden vectors as a table, which ``parity/churn.yaml`` scores in batch mode."""
    table = folder / "golden.parquet"
    vectors = read_golden(folder / "golden.jsonl")
    rows = [{"customer_id": f"golden-{i:02}", **v["inputs"]} for i, v in enumerate(vectors)]
    if not table.is_file():
        _replace(table, lambda new: pq.write_table(pa.Table.from_pylist(rows), new))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file atomically: a concurrent reader sees the old content or the new one."""
    new = path.with_name(path.name + ".new")
    write(new)
    new.replace(path)


if __name__ == "__main__":
    sys.exit(main())
