"""onnxruntime alone: a loop over the same rows, which are already in memory."""

import sys

import numpy as np
import pyarrow.parquet as pq
from common import BATCH, NAMES, measured, session

model = session()
table = pq.read_table(sys.argv[2], columns=NAMES)
matrix = np.column_stack([table.column(name).to_numpy() for name in NAMES])
del table


def work() -> None:
    """Score all rows."""
    for start in range(0, len(matrix), BATCH):
        model.run(None, {"input": matrix[start : start + BATCH]})


measured(work)
