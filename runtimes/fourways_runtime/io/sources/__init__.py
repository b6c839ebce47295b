"""Where records come from: tables by URI or query, and how their cells become typed values.

Importing the package is cheap; a source loads what it needs when it is opened.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fourways_api import BatchSource, Contract, FetchPolicy, Paths

    from .base import Table

BATCH_ROWS = 16_384
"""Rows handed on at once, at the most: enough for onnxruntime to be at its best."""

BATCH_BYTES = 32 * 2**20
"""Bytes handed on at once, about, where nobody says."""


def rows_at_once(contract: Contract, batch_bytes: int, row_bytes: int = 0) -> int:
    """Return how many rows to hand on at once; ``row_bytes`` is what is known of their size."""
    values = sum(math.prod(field.shape) for field in contract.inputs)
    values += sum(math.prod(field.shape) for field in contract.outputs)
    return max(1, min(BATCH_ROWS, batch_bytes // max(row_bytes, 8 * values + 64)))


def open_table(
    source: BatchSource,
    contract: Contract,
    *,
    policy: FetchPolicy,
    paths: Paths,
    more: tuple[str, ...] = (),
    batch_bytes: int = BATCH_BYTES,
) -> Table:
    """Return a table that has the contract's columns, and ``more``: what tells new rows from old.

    Rows are handed on in batches of about ``batch_bytes`` at the most.

    Files are looked at when the table is cut into splits: a worker that only reads some need not
    know the others.

    Raises:
        ConfigError: the source makes no sense, or a library it needs is missing.
        FetchRefused, FetchFailed: as :func:`fourways_runtime.io.fetch.filesystem`.

    """
    if source.query is not None:
        from .query_table import QueryTable

        return QueryTable(source.query, contract, paths, more, batch_bytes)
    if source.format == "Delta":
        from .delta import delta_files
        from .parquet_table import ParquetTable

        files = delta_files(source, policy=policy, paths=paths)
        return ParquetTable(files, contract, more, batch_bytes)
    from .files import find_files

    files = find_files(source, policy=policy, paths=paths)
    if source.format == "CSV":
        from .csv_table import CsvTable

        return CsvTable(files, contract, more, batch_bytes)
    if source.format == "JSONLines":
        from .json_table import JsonTable

        return JsonTable(files, contract, more, batch_bytes)
    from .parquet_table import ParquetTable

    return ParquetTable(files, contract, more, batch_bytes)
