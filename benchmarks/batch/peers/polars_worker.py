"""Polars' streaming engine with onnxruntime, to Parquet."""

import sys

import numpy as np
import polars as pl
from common import NAMES, measured, scored, session

model = session()


def score(batch: pl.DataFrame) -> pl.DataFrame:
    """Score a morsel."""
    values = scored(model, [batch.get_column(name).to_numpy() for name in NAMES])
    return pl.DataFrame({"id": batch.get_column("id"), "score": values})


def work() -> None:
    """Score a Parquet table into Parquet."""
    schema = pl.Schema({"id": pl.String, "score": pl.Float32})
    frame = pl.scan_parquet(sys.argv[2]).select("id", *NAMES)
    frame.map_batches(score, schema=schema, streamable=True).sink_parquet(
        sys.argv[3], compression="zstd", compression_level=1, engine="streaming"
    )


session_warm = scored(model, [np.zeros(8, np.float32)] * len(NAMES))
measured(work)
