"""Dask, one partition per row group, on one thread, to Parquet."""

import sys

import dask
import dask.dataframe as dd
import pandas as pd
from common import NAMES, measured, scored, session

model = session()
dask.config.set(scheduler="synchronous")


class Score:
    """Scores a partition. It is a named class because Dask cannot hash a model."""

    def __dask_tokenize__(self) -> str:
        """Return the name by which Dask identifies it."""
        return "score"

    def __call__(self, part: pd.DataFrame) -> pd.DataFrame:
        """Score a partition."""
        values = scored(model, [part[name].to_numpy() for name in NAMES])
        return pd.DataFrame({"id": part["id"], "score": values})


def work() -> None:
    """Score a Parquet table into Parquet."""
    frame = dd.read_parquet(sys.argv[2], columns=["id", *NAMES], split_row_groups=1)
    meta = {"id": frame.dtypes["id"], "score": "float32"}
    scores = frame.map_partitions(Score(), meta=meta)
    scores.to_parquet(sys.argv[3], compression="zstd", compression_level=1, write_index=False)


measured(work)
