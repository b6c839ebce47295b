"""Where records come from: tables by URI or query, and how their cells become typed values.

Importing the package is cheap; a source loads what it needs when it is opened.

To add a format: a module with its table, an entry in :data:`FORMATS`, and its name in the API's
``BatchSource.format``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fourways_api import BatchSource, Contract, FetchPolicy, Paths

    from .base import Table
    from .files import Files

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
    return FORMATS[source.format](TableRequest(source, contract, policy, paths, more, batch_bytes))


@dataclass(frozen=True, slots=True)
class TableRequest:
    """A table of files, and how it is to be read; the fields are those of :func:`open_table`."""

    source: BatchSource
    contract: Contract
    policy: FetchPolicy
    paths: Paths
    more: tuple[str, ...]
    batch_bytes: int

    def files(self) -> Files:
        """Find the table's files; see :func:`.files.find_files`."""
        from .files import find_files

        return find_files(self.source, policy=self.policy, paths=self.paths)


def _parquet(request: TableRequest) -> Table:
    from .parquet_table import ParquetTable

    return ParquetTable(request.files(), request.contract, request.more, request.batch_bytes)


def _delta(request: TableRequest) -> Table:
    from .delta import delta_files
    from .parquet_table import ParquetTable

    files = delta_files(request.source, policy=request.policy, paths=request.paths)
    return ParquetTable(files, request.contract, request.more, request.batch_bytes)


def _csv(request: TableRequest) -> Table:
    from .csv_table import CsvTable

    return CsvTable(request.files(), request.contract, request.more, request.batch_bytes)


def _json_lines(request: TableRequest) -> Table:
    from .json_table import JsonTable

    return JsonTable(request.files(), request.contract, request.more, request.batch_bytes)


FORMATS: dict[str, Callable[[TableRequest], Table]] = {
    "Parquet": _parquet,
    "CSV": _csv,
    "JSONLines": _json_lines,
    "Delta": _delta,
}
"""How a table of each format is opened."""
