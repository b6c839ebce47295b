"""Tables in CSV (RFC 4180, with a header), optionally compressed.

Cells are read as bytes and converted to the contract's types afterwards, so an invalid cell causes
only its row to be rejected and does not fail the run; the same holds for a row with too many or too
few cells. An empty cell is missing, a quoted empty one is an empty text. The reader is Arrow's
streaming reader: its dataset reader would fill columns that a file does not have with nulls, and
would not say which row was bad.

Damage that swallows rows is more than one bad row: see :mod:`.csv_damage`.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv

from fourways_runtime.errors import SourceError
from fourways_runtime.scoring.columns import Reject, Rows
from fourways_runtime.scoring.literals import BYTE_ORDER_MARK
from fourways_runtime.scoring.splits import Split

from .base import Absent, Chunk, check_more, completed
from .csv_damage import CheckedFile, TextFile
from .files import Files
from .partitions import TableFile
from .text_table import TextTable
from .watermarks import kind_of

BLOCK_BYTES = 4 * 2**20
"""Bytes parsed at once, and so the maximum length of a row."""

_RAGGED = re.compile(r"Expected (\d+) columns, got (\d+)")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_NOTHING = "Empty CSV file"
"""What Arrow says of a file without a line that ends."""


class CsvTable(TextTable):
    """See :class:`.base.Table`."""

    @property
    def _encoded(self) -> frozenset[str]:
        """The columns of bytes, which a text file holds as base64."""
        fields = self._contract.flat_inputs
        return frozenset(each.name for each in fields if each.type == "bytes" and not each.shape)

    def splits(self, rows: int) -> list[Split]:
        """Cut the table into its files, and read their headers. Empty files have no rows."""
        found: list[Split] = []
        absent = Absent(self._contract)

        def look(part: TableFile) -> tuple[str, list[str] | None]:
            shown, mark = self._files.display_name(part.path), self._files.mark(part)
            with self._files.reading(shown), _bounded_rows(shown):
                return mark, _header(self._files, part.path, shown)

        looks = zip(self._files.parts, self._files.each(look), strict=True)
        for part, (mark, header) in looks:
            shown = self._files.display_name(part.path)
            if header is None:
                continue
            more = [name for name in part.constants if name not in header]
            missing = absent.of([*header, *more], shown)
            check_more(self._more, [*header, *more], shown)
            fixed = {n: part.constants[n] for n in self._columns if n in more} | missing
            detail = {"path": part.path, "constants": fixed}
            found.append(Split(len(found), shown, detail, None, mark))
        absent.check()
        for column in self._more:
            kinds = ((each.file, self._kind(each, column)) for each in found)
            self._note_kind(found, column, kinds)
        return found

    def _kind(self, split: Split, column: str) -> str | None:
        """Detect the kind of the watermark column from its first values."""
        fixed = split.detail["constants"]
        if column in fixed:
            return kind_of(pa.array([fixed[column]], pa.string()))
        with self._files.reading(split.file), _bounded_rows(split.file):
            checked = CheckedFile(self._files.open_text(split.detail["path"]), split.file)
            reader = _open(checked, (column,), {})
            try:
                batch = _next(reader)
                checked.raise_fault()
            finally:
                _give_up(reader, checked)
        return None if batch is None else kind_of(batch.column(0))

    def _file(self, split: Split, first: int) -> Iterator[Chunk]:
        bad: dict[int, str] = {}
        fixed = split.detail["constants"]
        columns = tuple(name for name in self._columns if name not in fixed)
        with self._files.reading(split.file), _bounded_rows(split.file):
            checked = CheckedFile(self._files.open_text(split.detail["path"]), split.file)
            try:
                reader = _open(checked, columns, bad, self._encoded)
            except pa.ArrowInvalid as error:
                checked.raise_fault()
                if _NOTHING not in str(error):
                    raise
                return
        done, batches = first, 0
        try:
            while True:
                with self._files.reading(split.file), _bounded_rows(split.file, checked):
                    batch = _next(reader)
                if batch is None:
                    checked.finish()
                    break
                for start in range(0, batch.num_rows, self._rows):
                    part = batch.slice(start, self._rows)
                    rows, rejects = _numbered(part.num_rows, done, first, bad)
                    yield Chunk(completed(part, self._columns, fixed), rows, rejects)
                    done = int(rows[-1]) + 1
                batches += 1
                checked.parsed(batches, done - first + 1)
        finally:
            _give_up(reader, checked)
        if bad:
            rows, rejects = _numbered(0, done, first, bad)
            yield Chunk(_nothing(self._columns), rows, rejects)


def _numbered(count: int, done: int, first: int, bad: dict[int, str]) -> tuple[Rows, list[Reject]]:
    """Number ``count`` good rows from position ``done``, skipping the bad rows among them."""
    # A copy: the reader, a few blocks ahead, adds to it from its own thread.
    gaps = sorted(number for number in list(bad) if first + number >= done)
    rows = np.arange(done, done + count)
    rejects = []
    for number in gaps:
        if count and first + number > rows[-1]:
            break
        rows[rows >= first + number] += 1
        rejects.append(Reject(first + number, None, "row", bad.pop(number)))
    return rows, rejects


@contextmanager
def _bounded_rows(file: str, checked: CheckedFile | None = None) -> Iterator[None]:
    """Add the possible cause to the error for a row that is too long."""
    try:
        yield
        if checked is not None:
            checked.raise_fault()
    except pa.ArrowInvalid as error:
        if checked is not None:
            checked.raise_fault()
        if (ragged := _RAGGED.search(str(error))) is not None:
            # Arrow cannot pass such a row to its handler.
            raise SourceError(
                f"{file}: a row with {ragged[2]} cells instead of {ragged[1]} is not UTF-8; "
                "convert the file to UTF-8"
            ) from None
        if "straddling" not in str(error):
            raise
        if checked is not None:
            checked.follow()  # It may know the line in which a quote opens.
        raise SourceError(
            f"{file}: a row is longer than {BLOCK_BYTES} bytes; check for a quote that is not "
            "closed"
        ) from None


def _open(
    checked: Any,
    columns: tuple[str, ...],
    bad: dict[int, str],
    encoded: frozenset[str] = frozenset(),
) -> Any:
    """Open a file; the columns ``encoded`` hold bytes as base64, the others text."""

    def note(row: Any) -> Literal["skip"]:
        # Arrow counts records from 1, including the header.
        bad[row.number - 2] = f"{row.actual_columns} cells instead of {row.expected_columns}"
        return "skip"

    return csv.open_csv(
        checked,
        read_options=csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
        parse_options=csv.ParseOptions(newlines_in_values=True, invalid_row_handler=note),
        convert_options=csv.ConvertOptions(
            include_columns=list(columns),
            column_types={
                name: pa.string() if name in encoded else pa.binary() for name in columns
            },
            check_utf8=False,  # The decoder rejects the rows, not the whole file.
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
        ),
    )


def _next(reader: Any) -> Any:
    try:
        return reader.read_next_batch()
    except StopIteration:
        return None


def _give_up(reader: Any, text: TextFile) -> None:
    """Let a reader come to its end, whatever is left of the file.

    Its destructor waits for the thread that reads ahead while it holds the interpreter lock, which
    that thread needs: the process would stand still.
    """
    text.stop()
    with suppress(Exception):
        while _next(reader) is not None:
            pass


def _reader(stream: Any) -> Any:
    return csv.open_csv(
        stream,
        read_options=csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
        parse_options=csv.ParseOptions(
            newlines_in_values=True, invalid_row_handler=lambda row: "skip"
        ),
    )


def _header(files: Files, path: str, shown: str) -> list[str] | None:
    """Return the names in the first row; None if the file is empty. Raises SourceError."""
    text = TextFile(files.open_text(path))
    try:
        reader = _reader(text)
    except pa.ArrowInvalid as error:
        text.raise_fault()
        if _NOTHING not in str(error):
            raise
        # Arrow also says this of a single line without an end, which may be no CSV at all.
        line: bytes = files.open_text(path).read(BLOCK_BYTES)
        if not line.removeprefix(BYTE_ORDER_MARK).strip():
            return None
        reader = _reader(pa.BufferReader(line + b"\n"))
    try:
        names = list(reader.schema.names)
        text.raise_fault()
        return names
    except UnicodeDecodeError:
        is_utf16 = files.open_text(path).read(2) in _UTF16
        maybe = "it is UTF-16" if is_utf16 else "it may be Latin-1 or Windows-1252"
        raise SourceError(
            f"{shown}: the header is not UTF-8 ({maybe}); convert the file to UTF-8"
        ) from None
    finally:
        _give_up(reader, text)


def _nothing(columns: tuple[str, ...]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({name: pa.nulls(0) for name in columns})
