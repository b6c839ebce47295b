"""Tables in Parquet, read through pyarrow's datasets: only the required columns, in small batches.

Every file's footer is read when the table is cut into splits, so that a wrong column in the last
file is found before the first file is scored, and so that the number of rows is known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from fourways_api import Contract
from fourways_runtime.errors import SourceError
from fourways_runtime.scoring.cells import accepts
from fourways_runtime.scoring.splits import Newer, Section, Split

from . import BATCH_BYTES, rows_at_once
from .arrow_types import plain_batch, plain_type
from .base import SPLIT_ROWS, Absent, Chunk, check_more, completed, wanted
from .files import Files
from .listing import SUFFIXES
from .partitions import TableFile
from .watermarks import (
    DETAIL,
    TIME,
    ZONED,
    agreed,
    constant_kind,
    kind_of_type,
    lowest_new,
    older,
    parsed,
    why_incomparable,
)

_arrow: Any = pa
_concat = _arrow.concat_batches  # The type stub does not contain it.
_options: Any = ds.ParquetFragmentScanOptions  # Its stub lacks an option.
_read_options: Any = ds.ParquetReadOptions  # Its stub requires all options.
_READAHEAD = 4
_MARK = b"PAR1"
"""First bytes of every Parquet file."""

_FIRST_BYTES = 512


@dataclass(frozen=True, slots=True)
class _Footer:
    """The facts about a file that its footer gives."""

    mark: str
    """Its fingerprint."""

    groups: tuple[int, ...]
    """Number of rows of each row group."""

    columns: tuple[str, ...]
    kinds: dict[str, str | None]
    """The kind of the values of each watermark column that is in the file."""


class ParquetTable:
    """See :class:`.base.Table`."""

    def __init__(
        self,
        files: Files,
        contract: Contract,
        more: tuple[str, ...] = (),
        batch_bytes: int = BATCH_BYTES,
    ) -> None:
        self._files = files
        self._contract = contract
        self._more = more
        self._batch_bytes = batch_bytes
        self._columns = list(dict.fromkeys((*wanted(contract), *more)))
        self._form = ds.ParquetFileFormat(
            # Arrow's default, nanoseconds, wraps around silently before 1677 and after 2262.
            read_options=_read_options(coerce_int96_timestamp_unit="us"),
            default_fragment_scan_options=_options(
                use_buffered_stream=True,
                pre_buffer=False,
                arrow_extensions_enabled=True,  # UUIDs of writers without Arrow's schema
            ),
        )
        self._last: tuple[str, Any] | None = None
        """The last opened file, by its fingerprint: the splits of one file follow one another."""

    @property
    def total_rows(self) -> int | None:
        """Number of rows; known once every footer was read."""
        if "_footers" not in self.__dict__:
            return None
        return sum(sum(footer.groups) for footer in self._footers)

    @cached_property
    def _footers(self) -> list[_Footer]:
        """Read the footer of each file. Raises SourceError, FetchFailed."""

        def look(part: TableFile) -> _Footer:
            name, mark = self._files.display_name(part.path), self._files.mark(part)
            schema = (fragment := self._open(part.path, name, mark)).physical_schema
            check_more(self._more, [*schema.names, *part.constants], name)
            return _Footer(
                mark,
                tuple(group.num_rows for group in fragment.row_groups),
                tuple(schema.names),
                {n: _kind(n, schema, name) for n in self._more if n in schema.names},
            )

        return self._files.each(look)

    def why_incomparable(self, newer: Newer) -> str | None:
        """See :class:`.base.Table`."""
        name = newer.column
        kinds = {footer.kinds.get(name) or self._fixed_kind(name) for footer in self._footers}
        reasons = (why_incomparable(name, kind, newer.value) for kind in kinds)
        return next(filter(None, reasons), None)

    def _fixed_kind(self, column: str) -> str | None:
        """Return the kind of the values of a column that is in the names of folders."""
        given = [part.constants[column] for part in self._files.parts if column in part.constants]
        return constant_kind(given)

    def _open(self, path: str, name: str, mark: str) -> Any:
        if self._last is not None and self._last[0] == path + mark:
            return self._last[1]
        with self._files.reading(name):
            fragment: Any = self._form.make_fragment(path, self._files.filesystem)
            try:
                schema = fragment.physical_schema
            except (pa.ArrowException, OSError):
                if fault := _other_format(self._files.filesystem, path):
                    raise SourceError(f"{name}: {fault}") from None
                raise
            try:
                _check_types(self._contract, schema, name)
            except UnicodeDecodeError:
                raise SourceError(
                    f"{name}: the name of a column is not UTF-8; rename it in the file"
                ) from None
            fragment.ensure_complete_metadata()
        self._last = path + mark, fragment
        return fragment

    def splits(self, rows: int) -> list[Split]:
        """Cut the table into sequences of row groups of about ``rows`` rows."""
        found: list[Split] = []
        first = 0
        absent = Absent(self._contract)
        kinds = {column: self._fixed_kind(column) for column in self._more}
        self._check_kinds(kinds)
        for part, footer in zip(self._files.parts, self._footers, strict=True):
            shown, groups = self._files.display_name(part.path), footer.groups
            more = [name for name in part.constants if name not in footer.columns]
            fixed = {**part.constants, **absent.of([*footer.columns, *more], shown)}
            begin = 0
            while begin < len(groups):
                end, count = begin + 1, groups[begin]
                while end < len(groups) and count + groups[end] <= rows:
                    count, end = count + groups[end], end + 1
                detail = {"path": part.path, "groups": [begin, end], "constants": fixed}
                if self._more:
                    detail[DETAIL] = kinds
                found.append(Split(len(found), shown, detail, count, footer.mark, first))
                first, begin = first + count, end
        absent.check()
        return found

    def _check_kinds(self, fixed: Mapping[str, str | None]) -> None:
        """Check that the values of each watermark column can be compared with one another.

        Times with and without a zone cannot be either, but their texts can: every run is a full
        one, and says why.

        Raises:
            SourceError: it names two files that differ.

        """
        names = [self._files.display_name(part.path) for part in self._files.parts]
        for column, constant in fixed.items():
            found = [footer.kinds.get(column) or constant for footer in self._footers]
            alike = [TIME if kind == ZONED else kind for kind in found]
            agreed(column, zip(names, alike, strict=True))

    def read(self, split: Split, newer: Newer | None = None) -> Iterator[Chunk]:
        """Read a sequence of row groups."""
        return self._files.steady(split.detail["path"], split, lambda: self._read(split, newer))

    def _read(self, split: Split, newer: Newer | None) -> Iterator[Chunk]:
        path, fixed = split.detail["path"], split.detail["constants"]
        whole = self._open(path, split.file, split.fingerprint)
        groups = range(*split.detail["groups"])
        there = whole.physical_schema
        values = self._constants(split, there.names)
        if (
            newer is not None
            and newer.column in values
            and older(values[newer.column], newer.value)[0]
        ):
            return  # All its rows are older: the folder name says so.
        condition = after = None
        with self._files.reading(split.file):
            fragment = whole.subset(row_group_ids=list(groups))
            if newer is not None and newer.column in there.names:
                condition = _condition(newer, there.field(newer.column).type)
                after = newer if condition is None else None
            if condition is not None and not _holds_views(there, self._columns):
                # The footer's statistics let Arrow skip row groups without a newer row.
                fragment = fragment.subset(filter=condition)
            else:
                condition, after = None, newer if newer and newer.column in there.names else None
        position = split.start
        for batch in self._batches(split.file, fragment, fixed, condition):
            rows = np.arange(position, position + batch.num_rows)
            position += batch.num_rows
            if after is not None:
                kept = ~older(batch.column(after.column), after.value)
                batch, rows = batch.filter(pa.array(kept)), rows[kept]
            marks: Any = next(iter(values.values()), None)
            yield Chunk(batch, rows, [], None if marks is None else _repeated(marks, len(rows)))

    def _constants(self, split: Split, there: list[str]) -> dict[str, Any]:
        """Return the watermark columns that are in folder names: one value each."""
        fixed = split.detail["constants"]
        return {
            column: parsed(fixed[column], split.detail[DETAIL][column])
            for column in self._more
            if column not in there and column in fixed
        }

    def sections(self, split: Split) -> Iterator[Section]:
        """Cut a part into its row groups, each with a digest of the columns that are read."""
        path, fixed = split.detail["path"], split.detail["constants"]
        whole = self._open(path, split.file, split.fingerprint)
        kept = [
            f"{name} {whole.physical_schema.field(name).type}"
            if name in whole.physical_schema.names
            else f"{name} = {fixed[name]!r}"
            for name in self._columns
        ]
        first = split.start
        for number in range(*split.detail["groups"]):
            group = whole.metadata.row_group(number)
            columns = [c for c in map(group.column, range(group.num_columns)) if self._reads(c)]
            content = self._files.content(path, split, _ranges(columns))
            digest = None
            if content is not None:
                how = [f"{c.path_in_schema} {c.compression} {c.num_values}" for c in columns]
                parts = [*kept, *how, str(group.num_rows), content]
                digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
            detail = {**split.detail, "groups": [number, number + 1]}
            rows = Split(split.number, split.file, detail, group.num_rows, split.fingerprint, first)
            yield Section(rows, digest)
            first += group.num_rows

    def _reads(self, column: Any) -> bool:
        """Tell whether a column of the file is read, or belongs to one that is."""
        path = column.path_in_schema
        return any(path == name or path.startswith(f"{name}.") for name in self._columns)

    def _batches(
        self, name: str, fragment: Any, fixed: Mapping[str, str | None], condition: Any = None
    ) -> Iterator[Any]:
        there = fragment.physical_schema.names
        rows = sum(group.num_rows for group in fragment.row_groups)
        # The uncompressed size in the footer: if far wider than the contract implies, it is text.
        width = sum(group.total_byte_size for group in fragment.row_groups) // max(1, rows)
        size = rows_at_once(self._contract, self._batch_bytes, width)
        batches = fragment.to_batches(
            columns=[column for column in self._columns if column in there],
            filter=condition,
            batch_size=size,
            batch_readahead=_READAHEAD,
            # The cores are for the model; one thread reads ten times faster than it can score.
            use_threads=False,
        )
        found = _joined(batches, size) if condition is not None else batches
        while True:
            with self._files.reading(name):
                batch = next(found, None)
            if batch is None:
                return
            if batch.num_rows:
                yield completed(plain_batch(batch), self._columns, fixed)

    def chunks(self) -> Iterator[Chunk]:
        """Read the table from its start, in order."""
        for split in self.splits(SPLIT_ROWS):
            yield from self.read(split)


def _other_format(filesystem: Any, path: str) -> str | None:
    """Return the actual format of a file that is not Parquet, and the fix; None if damaged."""
    with filesystem.open_input_stream(path) as file:
        first: bytes = file.read(_FIRST_BYTES)
    if first.startswith(_MARK) or not first:
        return None
    lines = first.decode("utf-8", "replace").splitlines()
    known = None
    if first.lstrip().startswith(b"{"):
        known = "JSONLines"
    elif path.lower().endswith(SUFFIXES["CSV"]) or any(c in lines[0] for c in ",;\t"):
        known = "CSV"
    if known is None or "\0" in lines[0]:
        return "it is not a Parquet file; set the source's format to the right one"
    return f"it is not a Parquet file, and looks like {known}; set the source's format: {known}"


def _ranges(columns: Sequence[Any]) -> list[tuple[int, int]]:
    """Return the positions of the pages of columns, as (start, end), with neighbors joined."""
    found: list[tuple[int, int]] = []
    for column in columns:
        start = column.data_page_offset
        if column.has_dictionary_page and column.dictionary_page_offset:
            start = min(start, column.dictionary_page_offset)
        end = start + column.total_compressed_size
        if found and found[-1][1] == start:
            start = found.pop()[0]
        found.append((start, end))
    return found


def _joined(batches: Iterator[Any], rows: int) -> Iterator[Any]:
    """Join the batches that a filter returns into batches of up to ``rows`` rows."""
    waiting: list[Any] = []
    count = 0
    for batch in batches:
        if waiting and count + batch.num_rows > rows:
            yield _concat(waiting)
            waiting, count = [], 0
        if batch.num_rows:
            waiting.append(batch)
            count += batch.num_rows
    if waiting:
        yield _concat(waiting)


def _condition(newer: Newer, kind: Any) -> Any:
    """Return the filter for rows that are not older; None if Arrow cannot compare the type."""
    types = pa.types
    if types.is_dictionary(kind) or types.is_decimal(kind) or types.is_string_view(kind):
        return None
    if types.is_float16(kind):
        return None
    column: Any = ds.field(newer.column)
    since = lowest_new(newer.value, kind)
    if isinstance(since, bool):
        return None  # All values of the type are older, or none is.
    missing = column.is_null(nan_is_null=True) if types.is_floating(kind) else column.is_null()
    return (column >= since) | missing


def _holds_views(schema: Any, columns: Sequence[str]) -> bool:
    """Tell whether a column has a type that Arrow cannot filter before it is cast."""
    read = (schema.field(name).type for name in columns if name in schema.names)
    return any(plain_type(kind) is not kind for kind in read)


def _repeated(value: Any, count: int) -> Any:
    return pa.repeat(value[0], count)


def _kind(column: str, schema: Any, file: str) -> str:
    """Return the kind of the values of a watermark column. Raises SourceError."""
    found = plain_type(schema.field(column).type)
    kind = kind_of_type(found)
    if kind is None:
        raise SourceError(
            f"{file}: column {column} is {found}, which cannot be a watermark; convert it to a "
            "whole number, a float, a decimal, text, a date or a timestamp"
        )
    return kind


def _check_types(contract: Contract, schema: Any, file: str) -> None:
    key = contract.entity_key
    fields = [(key.name, key.type, ()), *((f.name, f.type, f.shape) for f in contract.flat_inputs)]
    for name, kind, shape in fields:
        # A column that occurs twice is reported with the missing ones.
        if schema.names.count(name) != 1:
            continue
        found = plain_type(schema.field(name).type)
        if not accepts(kind, shape, found):
            says = kind + (f" of shape {list(shape)}" if shape else "")
            raise SourceError(
                f"{file}: column {name} is {found}, the contract says {says}; "
                "change the contract, or convert the column"
            )
