"""Where records come from: tables by URI or query, and how their cells become typed values.

Importing the package is cheap; a source loads what it needs when it is opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fourways_api import BatchSource, Contract, FetchPolicy, Paths

    from .base import Table

BATCH_ROWS = 16_384
"""Rows handed on at once: enough for onnxruntime to be at its best, little enough for memory."""


def open_table(
    source: BatchSource,
    contract: Contract,
    *,
    policy: FetchPolicy,
    paths: Paths,
    more: tuple[str, ...] = (),
) -> Table:
    """Return a table that has the contract's columns, and ``more``.

    Files are looked at when the table is cut into splits: a worker that only reads some need not
    know the others.

    Raises:
        ConfigError: the source makes no sense, or a library it needs is missing.
        FetchRefused, FetchFailed: as :func:`fourways_runtime.fetch.filesystem`.

    """
    if source.query is not None:
        from .query_table import QueryTable

        return QueryTable(source.query, contract, paths, more)
    if source.format == "Delta":
        from .delta import delta_files
        from .parquet_table import ParquetTable

        return ParquetTable(delta_files(source, policy=policy, paths=paths), contract, more)
    from .files import find_files

    files = find_files(source, policy=policy, paths=paths)
    if source.format == "CSV":
        from .csv_table import CsvTable

        return CsvTable(files, contract, more)
    if source.format == "JSONLines":
        from .json_table import JsonTable

        return JsonTable(files, contract, more)
    from .parquet_table import ParquetTable

    return ParquetTable(files, contract, more)
