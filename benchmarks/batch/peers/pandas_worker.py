"""pandas: the whole table at once, to Parquet."""

import sys

import pandas as pd
from common import NAMES, measured, scored, session

model = session()


def work() -> None:
    """Score a Parquet table into Parquet."""
    frame = pd.read_parquet(sys.argv[2], columns=["id", *NAMES])
    frame["score"] = scored(model, [frame[name].to_numpy() for name in NAMES])
    frame[["id", "score"]].to_parquet(
        sys.argv[3], compression="zstd", compression_level=1, index=False
    )


measured(work)
