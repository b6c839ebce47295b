"""The work of all workers: one Parquet table and one model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.serving.work import FEATURES, Array

GROUP_ROWS = 65_536
NAMES = [f"x{at}" for at in range(FEATURES)]
_TYPES: dict[str, Any] = {"id": pa.string(), "seen_at": pa.int64()}
SCHEMA = pa.schema(_TYPES | dict.fromkeys(NAMES, pa.float32()))


def write_table(file: Path, rows: int, changed: Array | None = None) -> None:
    """Write a table of ``rows`` rows; the rows at the positions ``changed`` have different
    features.

    Each row has its key, the time of its last change (its position, or later than all others if it
    is in ``changed``), and its features. Row groups are written one by one, so that a large table
    needs no more memory than a small one.
    """
    fresh = np.zeros(rows, bool)
    if changed is not None:
        fresh[changed] = True
    with pq.ParquetWriter(file, SCHEMA, compression="zstd", use_dictionary=False) as writer:
        for start in range(0, rows, GROUP_ROWS):
            number = np.arange(start, min(start + GROUP_ROWS, rows))
            new = fresh[number]
            random = np.random.default_rng(start)
            values = random.normal(0, 1, (FEATURES, len(number))).astype(np.float32)
            values[:, new] += 1
            columns = [
                pa.array([f"c{each:07}" for each in number.tolist()]),
                pa.array(number + rows * new),
            ]
            columns += [pa.array(each) for each in values]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=SCHEMA))
