"""DuckDB with onnxruntime in an Arrow function, to Parquet."""

import sys

import duckdb
import pyarrow as pa
from common import NAMES, measured, scored, session

model = session()
connection = duckdb.connect()
connection.execute("SET threads = 1; SET preserve_insertion_order = false")


def score(*columns: "pa.ChunkedArray") -> "pa.Array":
    """Score a vector of rows."""
    return pa.array(scored(model, [column.to_numpy() for column in columns]))


# DuckDB checks the number of parameters.
told = eval(f"lambda {', '.join(NAMES)}: score({', '.join(NAMES)})")  # noqa: S307
connection.create_function("score", told, ["FLOAT"] * len(NAMES), "FLOAT", type="arrow")


def work() -> None:
    """Score a Parquet table into Parquet."""
    source, to = sys.argv[2:]
    connection.execute(
        f"COPY (SELECT id, score({', '.join(NAMES)}) AS score FROM read_parquet('{source}')) "  # noqa: S608
        f"TO '{to}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)"
    )


measured(work)
