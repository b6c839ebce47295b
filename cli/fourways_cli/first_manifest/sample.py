"""A sample table: its first rows, and what its columns hold.

Cells of a CSV file stay text, as a batch run reads them: ``007`` is a key, not the number 7.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from fourways_runtime.io.sources.arrow_types import plain_batch
from fourways_runtime.io.sources.listing import SUFFIXES

from .errors import NoManifest

ROWS = 100_000
"""Maximum number of rows that are read; the rest of a longer table is not looked at."""

TableFormat = Literal["Parquet", "CSV"]
Kind = Literal["bool", "int64", "float64", "string", "list", "other"]
"""What the cells of a column are, whatever the file's type of it."""

_WHOLE = r"^-?(0|[1-9][0-9]{0,17})$"
# 007 is a text: a number has no zeros before it.
_NUMBER = r"^[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$|^(?i:nan)$"
_TRUTH = r"^(?i:true|false)$"


@dataclass(frozen=True, slots=True)
class Sample:
    """The first rows of a table."""

    table: pa.Table
    path: Path | None = None
    """The file; None for an example that came with the model."""

    format: TableFormat | None = None

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self.table.schema.names)

    def kind(self, column: str) -> Kind:
        """Return what the cells of a column are."""
        return kind_of(self.table.column(column), untyped=self.format == "CSV")

    def numbers(self, column: str) -> Any:
        """Return the present cells of a column of numbers, as float64."""
        found = self.table.column(column).drop_null()
        values = found.cast(pa.float64())
        return values.filter(pc.is_finite(values))

    def texts(self, column: str) -> Any:
        """Return the present cells of a column of texts."""
        found = self.table.column(column)
        found = found.cast(pa.string()) if pa.types.is_dictionary(found.type) else found
        return _filled(found)

    def has_missing(self, column: str) -> bool:
        """Return whether a cell is missing: null, NaN or an empty text."""
        found = self.table.column(column)
        if found.null_count:
            return True
        if pa.types.is_floating(found.type):
            return bool(pc.any(pc.is_nan(found)).as_py())
        if _is_text(found.type):
            return bool(pc.any(pc.match_substring_regex(found, r"^((?i)nan)?$")).as_py())
        return False

    def other_separator(self) -> str | None:
        """Return what separates a CSV file's columns if it is not a comma."""
        if self.format != "CSV" or len(self.columns) != 1:
            return None
        names = {";": "a semicolon", "\t": "a tab", "|": "a vertical bar"}
        return next((said for sign, said in names.items() if sign in self.columns[0]), None)

    def is_unique(self, column: str) -> bool:
        """Return whether every row has a value of its own, and none is missing."""
        found = self.table.column(column)
        if self.has_missing(column) or not len(found):
            return False
        return bool(pc.count_distinct(found).as_py() == len(found))


def kind_of(found: Any, *, untyped: bool) -> Kind:
    """Return what the cells of a column are; ``untyped`` texts that are all numbers are numbers."""
    types = pa.types
    kind = found.type.value_type if types.is_dictionary(found.type) else found.type
    if types.is_boolean(kind):
        return "bool"
    if types.is_integer(kind):
        return "int64"
    if types.is_floating(kind) or types.is_decimal(kind):
        return "float64"
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return "list"
    if not _is_text(kind):
        return "other"
    return _kind_of_texts(found) if untyped else "string"


def _kind_of_texts(found: Any) -> Kind:
    cells = _filled(found)
    if not len(cells):
        return "string"
    ordered: tuple[tuple[str, Kind], ...] = (
        (_WHOLE, "int64"),
        (_NUMBER, "float64"),
        (_TRUTH, "bool"),
    )
    for pattern, kind in ordered:
        if pc.all(pc.match_substring_regex(cells, pattern)).as_py():
            return kind
    return "string"


def _filled(texts: Any) -> Any:
    """Return the texts that are neither null nor empty."""
    present = texts.drop_null()
    return present.filter(pc.greater(pc.utf8_length(present), pa.scalar(0)))


def _is_text(found: Any) -> bool:
    return bool(pa.types.is_string(found) or pa.types.is_large_string(found))


def read_sample(path: Path) -> Sample:
    """Read the first rows of a Parquet or CSV file. Raises NoManifest."""
    kind = format_of(path)
    try:
        batches = list(_first(table_batches(path, kind)))
        if not batches or not sum(batch.num_rows for batch in batches):
            raise NoManifest(f"the sample {path} has no rows")
        return Sample(pa.Table.from_batches(batches).slice(0, ROWS), path, kind)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise NoManifest(f"the sample {path} cannot be read: {lines[0]}") from None


def format_of(path: Path) -> TableFormat:
    """Return a table's format by its name. Raises NoManifest."""
    if path.is_dir():
        raise NoManifest(f"the sample {path} is a folder; give one Parquet or CSV file")
    kinds: tuple[TableFormat, ...] = ("Parquet", "CSV")
    for kind in kinds:
        if path.name.lower().endswith(SUFFIXES[kind]):
            return kind
    raise NoManifest(f"the sample {path} is neither .parquet nor .csv; write it as one of them")


def table_batches(path: Path, kind: TableFormat) -> Iterator[Any]:
    """Yield a file's rows; cells of a CSV file are text, null where they are empty."""
    if kind == "Parquet":
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(16_384):
                yield plain_batch(batch)
        return
    stream: Any
    with pa.input_stream(os.fspath(path), compression="detect") as stream:
        names = pacsv.open_csv(stream).schema.names
    with pa.input_stream(os.fspath(path), compression="detect") as stream:
        yield from pacsv.open_csv(
            stream,
            parse_options=pacsv.ParseOptions(
                newlines_in_values=True, invalid_row_handler=lambda row: "skip"
            ),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                null_values=[""],
            ),
        )


def _first(batches: Iterator[Any]) -> Iterator[Any]:
    rows = 0
    for batch in batches:
        yield batch
        rows += batch.num_rows
        if rows >= ROWS:
            return
