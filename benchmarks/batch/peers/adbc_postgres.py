"""Read batches with pyarrow, score with onnxruntime, write to PostgreSQL with ADBC's binary
COPY."""

import sys
from collections.abc import Iterator

import adbc_driver_postgresql.dbapi as adbc
import pyarrow as pa
import pyarrow.parquet as pq
from common import NAMES, measured, scored, session

model = session()
connection = adbc.connect(sys.argv[3])
SCHEMA = pa.schema([("id", pa.string()), ("score", pa.float32())])


def batches() -> Iterator[pa.RecordBatch]:
    """Score batch by batch."""
    with pq.ParquetFile(sys.argv[2]) as file:
        for batch in file.iter_batches(16_384, columns=["id", *NAMES], use_threads=False):
            values = scored(model, [batch.column(name).to_numpy() for name in NAMES])
            columns = [batch.column("id"), pa.array(values)]
            yield pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def work() -> None:
    """Load a table, then index it, in one transaction."""
    with connection.cursor() as cursor:
        cursor.adbc_ingest(
            "adbc_scores", pa.RecordBatchReader.from_batches(SCHEMA, batches()), mode="create"
        )
        cursor.execute("CREATE UNIQUE INDEX adbc_key ON adbc_scores (id)")
    connection.commit()


measured(work)
