"""Sources of records: tables by URI or query, and the conversion of their cells to typed values.

Importing the package is cheap; a source loads its dependencies when it is opened.

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
"""Maximum rows per batch: enough for onnxruntime to reach its best throughput."""

BATCH_BYTES = 32 * 2**20
"""Approximate default size of a batch in bytes."""


def rows_at_once(contract: Contract, batch_bytes: int, row_bytes: int = 0) -> int:
    """Return the number of rows per batch; ``row_bytes`` is the known size of a row."""
    values = sum(field.elements for field in contract.flat_inputs)
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
    """Return a table with the contract's columns, and ``more``: the watermark columns.

    A batch has at most about ``batch_bytes`` bytes.

    The files are inspected when the table is cut into splits: a worker that reads only some of them
    need not know the others.

    Raises:
        ConfigError: the source is invalid, or a library it needs is missing.
        FetchRefused, FetchFailed: as :func:`fourways_runtime.io.fetch.filesystems.filesystem`.

    """
    if source.query is not None:
        from .query_table import QueryTable

        return QueryTable(source.query, contract, paths, more, batch_bytes, policy)
    return FORMATS[source.format](TableRequest(source, contract, policy, paths, more, batch_bytes))


@dataclass(frozen=True, slots=True)
class TableRequest:
    """A table of files and how to read it; the fields are those of :func:`open_table`."""

    source: BatchSource
    contract: Contract
    policy: FetchPolicy
    paths: Paths
    more: tuple[str, ...]
    batch_bytes: int

    def files(self) -> Files:
        """Find the table's files; see :func:`.listing.find_files`."""
        from .listing import find_files

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
"""The function that opens a table, by format."""
