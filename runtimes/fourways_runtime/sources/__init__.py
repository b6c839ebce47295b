"""Where records come from: tables by URI, and how their cells become typed values.

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
    source: BatchSource, contract: Contract, *, policy: FetchPolicy, paths: Paths
) -> Table:
    """Find a table's files and check that each holds the contract's columns.

    Raises:
        SourceError: a file or column is missing, or a column is of a type that cannot stand for
            the contract's; the message names it and what was there instead.
        FetchRefused, FetchFailed, ConfigError: as :func:`fourways_runtime.fetch.filesystem`.

    """
    from .files import find_files

    files = find_files(source, policy=policy, paths=paths)
    if source.format == "CSV":
        from .csv_table import CsvTable

        return CsvTable(files, contract)
    from .parquet_table import ParquetTable

    return ParquetTable(files, contract)
