"""The writers: programs and libraries that write a table, in their own way.

``python writers.py JOBS`` writes the files of a JSON list of ``{writer, stage, path}``; each stage
is an Arrow file with the table. The module imports nothing of Fourways, and each library only where
it is used, so that it also runs in an environment that holds the libraries alone.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PARQUET, CSV, JSON, DELTA = "Parquet", "CSV", "JSONLines", "Delta"


@dataclass(frozen=True, slots=True)
class Writer:
    """A writer: its format, its file's name ending, whether it needs the peers' environment."""

    form: str
    ending: str
    write: Callable[[Any, str], None]
    peer: bool = False
    cannot: frozenset[str] = frozenset()
    """The cases that it cannot write, or writes as something else."""


# ---------------------------------------------------------------- Parquet and Delta


def _pyarrow(**how: Any) -> Callable[[Any, str], None]:
    def write(table: Any, path: str) -> None:
        import pyarrow.parquet as pq

        pq.write_table(table, path, **how)

    return write


def _pandas_parquet(table: Any, path: str) -> None:
    table.to_pandas().to_parquet(path, engine="pyarrow")


def _fastparquet(table: Any, path: str) -> None:
    import fastparquet

    fastparquet.write(path, table.to_pandas())


def _polars_parquet(table: Any, path: str) -> None:
    import polars

    polars.from_arrow(table).write_parquet(path)


def _duckdb_to(how: str) -> Callable[[Any, str], None]:
    def write(table: Any, path: str) -> None:
        import duckdb

        with duckdb.connect() as database:
            database.register("t", table)
            database.execute(f"COPY (SELECT * FROM t) TO '{path}' ({how})")  # noqa: S608

    return write


def _deltalake(table: Any, path: str) -> None:
    import deltalake

    deltalake.write_deltalake(path, table)


# ---------------------------------------------------------------- CSV


def _text(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _csv(
    dialect: str = "excel", encoding: str = "utf-8", compressed: bool = False, **how: Any
) -> Callable[[Any, str], None]:
    def write(table: Any, path: str) -> None:
        text = io.StringIO(newline="")
        writer = csv.writer(text, dialect=dialect, **how)
        writer.writerow(table.column_names)
        for row in table.to_pylist():
            writer.writerow([_text(value) for value in row.values()])
        raw = text.getvalue().encode(encoding)
        Path(path).write_bytes(gzip.compress(raw) if compressed else raw)

    return write


def _pyarrow_csv(table: Any, path: str) -> None:
    import pyarrow.csv as arrow_csv

    arrow_csv.write_csv(table, path)


def _pandas_csv(table: Any, path: str) -> None:
    table.to_pandas().to_csv(path, index=False)


def _polars_csv(table: Any, path: str) -> None:
    import polars

    polars.from_arrow(table).write_csv(path)


# ---------------------------------------------------------------- JSON Lines


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _json(
    end: str = "\n", begin: bytes = b"", compressed: bool = False, **how: Any
) -> Callable[[Any, str], None]:
    def write(table: Any, path: str) -> None:
        rows = [{name: _plain(value) for name, value in row.items()} for row in table.to_pylist()]
        raw = begin + "".join(json.dumps(row, **how) + end for row in rows).encode()
        Path(path).write_bytes(gzip.compress(raw) if compressed else raw)

    return write


def _orjson(table: Any, path: str) -> None:
    import orjson

    lines = [orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in table.to_pylist()]
    Path(path).write_bytes(b"".join(lines))


def _pandas_json(table: Any, path: str) -> None:
    table.to_pandas().to_json(path, orient="records", lines=True, double_precision=15)


def _polars_json(table: Any, path: str) -> None:
    import polars

    polars.from_arrow(table).write_ndjson(path)


_PANDAS_PARQUET = frozenset({"uuid", "list-large"})
_FASTPARQUET = frozenset(
    {"uuid", "date", "list", "list-large", "list-fixed", "nested", "decimal", "decimal-with-digits"}
)  # It makes floats of decimals, and texts of objects.
_DELTALAKE = frozenset(
    {"unsigned-top", "unsigned-into-signed", "uuid"}
)  # Delta has none of these types.

WRITERS: dict[str, Writer] = {
    "pyarrow": Writer(PARQUET, ".parquet", _pyarrow()),
    "pyarrow-1.0": Writer(
        PARQUET, ".parquet", _pyarrow(version="1.0", use_dictionary=False, compression="none")
    ),
    "pyarrow-pages-v2": Writer(
        PARQUET,
        ".parquet",
        _pyarrow(data_page_version="2.0", row_group_size=1, compression="zstd"),
    ),
    "pandas": Writer(PARQUET, ".parquet", _pandas_parquet, cannot=_PANDAS_PARQUET),
    "fastparquet": Writer(PARQUET, ".parquet", _fastparquet, peer=True, cannot=_FASTPARQUET),
    "polars": Writer(PARQUET, ".parquet", _polars_parquet, peer=True, cannot=frozenset({"uuid"})),
    "duckdb": Writer(PARQUET, ".parquet", _duckdb_to("FORMAT parquet"), peer=True),
    "deltalake": Writer(DELTA, "", _deltalake, cannot=_DELTALAKE),
    "csv-excel": Writer(CSV, ".csv", _csv()),
    "csv-unix": Writer(CSV, ".csv", _csv("unix"), cannot=frozenset({"text-null"})),
    "csv-bom": Writer(CSV, ".csv", _csv(encoding="utf-8-sig")),
    "csv-gzip": Writer(CSV, ".csv.gz", _csv(lineterminator="\n", compressed=True)),
    "pyarrow-csv": Writer(CSV, ".csv", _pyarrow_csv),
    "pandas-csv": Writer(CSV, ".csv", _pandas_csv),
    "polars-csv": Writer(CSV, ".csv", _polars_csv, peer=True),
    "duckdb-csv": Writer(CSV, ".csv", _duckdb_to("FORMAT csv, HEADER"), peer=True),
    "json": Writer(JSON, ".jsonl", _json()),
    "json-crlf": Writer(JSON, ".jsonl", _json("\r\n", ensure_ascii=False)),
    "json-bom": Writer(JSON, ".jsonl", _json(begin=b"\xef\xbb\xbf")),
    "json-gzip": Writer(JSON, ".jsonl.gz", _json(compressed=True)),
    "orjson": Writer(JSON, ".jsonl", _orjson),
    "pandas-json": Writer(JSON, ".jsonl", _pandas_json),
    "polars-json": Writer(JSON, ".jsonl", _polars_json, peer=True),
    "duckdb-json": Writer(JSON, ".jsonl", _duckdb_to("FORMAT json"), peer=True),
}
"""The writers by name."""


def write(name: str, stage: str, path: str) -> str | None:
    """Write the table of an Arrow file; return what the library says if it cannot."""
    import pyarrow as pa

    with pa.OSFile(stage, "rb") as file:
        table = pa.ipc.open_file(file).read_all()
    try:
        WRITERS[name].write(table, path)
    except Exception as error:  # noqa: BLE001  (each library has its own)
        return f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return None


def main() -> None:
    """Write the files of a list of jobs; print what could not be written, as JSON."""
    jobs = json.loads(Path(sys.argv[1]).read_text())
    failed = {}
    for job in jobs:
        if (said := write(job["writer"], job["stage"], job["path"])) is not None:
            failed[job["path"]] = said
    print(json.dumps(failed))


if __name__ == "__main__":
    main()
