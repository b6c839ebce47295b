"""pandas and executemany, to PostgreSQL: the usual first implementation."""

import sys

import pandas as pd
import psycopg
from common import NAMES, measured, scored, session

model = session()
connection = psycopg.connect(sys.argv[3])


def work() -> None:
    """Insert in batches of 10,000 rows, in a pipeline, in one transaction."""
    frame = pd.read_parquet(sys.argv[2], columns=["id", *NAMES])
    values = scored(model, [frame[name].to_numpy() for name in NAMES]).tolist()
    rows = list(zip(frame["id"].tolist(), values, strict=True))
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute("CREATE TABLE pandas_scores (id text, score real)")
        for start in range(0, len(rows), 10_000):
            cursor.executemany(
                "INSERT INTO pandas_scores VALUES (%s, %s)", rows[start : start + 10_000]
            )
        cursor.execute("CREATE UNIQUE INDEX pandas_key ON pandas_scores (id)")


measured(work)
