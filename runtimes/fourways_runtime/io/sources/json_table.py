"""Tables in JSON Lines: one object per line, lists for shaped inputs, optionally compressed.

A line that is not an object is rejected and does not fail the run; the reason names the line. Arrow
parses the lines, a block at a time, if its result is exactly what the JSON says; any other block is
parsed line by line, and a value that is not clearly of the contract's type is passed on as JSON for
the decoder to judge. The position of a row is that of its line; empty lines leave gaps. A column
that is missing in a line is null. A large file is cut at line ends, unless it is compressed; lines
are counted from the start of a part.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pajson

from fourways_api import Contract
from fourways_runtime.errors import SourceError
from fourways_runtime.scoring import exact_json
from fourways_runtime.scoring.cells import may_be_rounded
from fourways_runtime.scoring.columns import Reject, Rows
from fourways_runtime.scoring.json_cells import json_column, json_type
from fourways_runtime.scoring.literals import BYTE_ORDER_MARK, is_float, json_object, said
from fourways_runtime.scoring.splits import Split

from . import BATCH_BYTES
from .base import Chunk, check_case, check_more, completed
from .files import Files
from .partitions import TableFile
from .text_table import HOLDS_NUL, NUL_RUN, TextTable
from .watermarks import DETAIL, NUMBER, kind_of

BLOCK_BYTES = 4 * 2**20
"""Bytes parsed at once."""

MAX_LINE_BYTES = 64 * 2**20
"""Maximum length of a line."""

_DECODER = json.JSONDecoder()
_EMPTY = (b"\n\n", b"\n\r\n")
_NOT_JSON = (b"NaN", b"Inf")
"""Texts that Arrow accepts as numbers, and JSON does not allow."""

_NULL_FIRST = re.compile(rb"(\xef\xbb\xbf)?[ \t\r\n]*null")
"""A first line that is null, over which Arrow (26.0) ends the process: it has no row to add to."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a block is."""

    file: str
    first: int
    """Position of the part's first row."""

    line: int
    """Lines of the part before the block."""

    begin: int
    """Byte at which the part begins."""

    def place_of(self, line: int) -> str:
        """Name a line, counted from 0 in the part."""
        return f"line {line + 1}" + (f" from byte {self.begin} on" if self.begin else "")


class JsonTable(TextTable):
    """See :class:`.base.Table`."""

    def __init__(
        self,
        files: Files,
        contract: Contract,
        more: tuple[str, ...] = (),
        batch_bytes: int = BATCH_BYTES,
    ) -> None:
        super().__init__(files, contract, more, batch_bytes)
        self._kinds: dict[str, Any] = {contract.entity_key.name: _arrow(contract.entity_key.type)}
        self._fields = {contract.entity_key.name: (str(contract.entity_key.type), 0)}
        for field in contract.flat_inputs:
            self._kinds[field.name] = _arrow(field.type, len(field.shape))
            self._fields[field.name] = (str(field.type), len(field.shape))

    def splits(self, rows: int) -> list[Split]:
        """Cut the table into its files, and those into parts; inspect their first lines."""

        def look(
            part: TableFile,
        ) -> tuple[str, dict[str, str | None], list[tuple[int, int | None]]]:
            shown, mark = self._files.display_name(part.path), self._files.mark(part)
            with self._files.reading(shown):
                block = next(self._blocks(part.path, shown), b"")
                self._check(block, set(part.constants), shown)
            kinds = {column: _kind(block, part.constants, column, shown) for column in self._more}
            return mark, kinds, self._ranges(part.path, mark, block, rows)

        found: list[Split] = []
        seen: dict[str, list[tuple[str, str | None]]] = {column: [] for column in self._more}
        looks = zip(self._files.parts, self._files.each(look), strict=True)
        for part, (mark, kinds, ranges) in looks:
            shown = self._files.display_name(part.path)
            for column, kind in kinds.items():
                seen[column].append((shown, kind))
            fixed = {n: part.constants[n] for n in self._columns if n in part.constants}
            for begin, end in ranges:
                detail = {"path": part.path, "constants": fixed, "bytes": [begin, end]}
                found.append(Split(len(found), shown, detail, None, mark))
        for column in self._more:
            self._note_kind(found, column, seen[column])
        return found

    def _ranges(
        self, path: str, mark: str, block: bytes, rows: int
    ) -> list[tuple[int, int | None]]:
        """Cut a file into byte ranges of about ``rows`` lines, regardless of line ends.

        A line cannot contain another: a newline within a text is written as two characters. Only
        compressed files must be read from their start.
        """
        size = self._files.size(mark)
        if not rows or size is None or not block or path in self._files.compressed:
            return [(0, None)]
        line = len(block) // max(1, block.count(b"\n"))
        step = max(BLOCK_BYTES, rows * line)
        starts = range(0, size, step)
        return [(at, at + step if at + step < size else None) for at in starts]

    def _check(self, block: bytes, fixed: set[str], shown: str) -> None:
        """Check that each column occurs in the first lines, unless it may be missing."""
        seen: dict[str, None] = {}
        for line in block.splitlines():
            value, _ = json_object(line)
            seen.update(dict.fromkeys(value or ()))
        text = block.removeprefix(BYTE_ORDER_MARK).lstrip()
        # A line that is an array is one bad line; an array over lines is another kind of file.
        if text.startswith(b"[") and (not seen or not text[1:].partition(b"\n")[0].strip()):
            raise SourceError(
                f"{shown}: the file is a JSON array; write one object per line (JSON Lines)"
            )
        if not seen:
            return
        names = [*seen, *fixed]
        listed = ", ".join(names[:50])
        optional = {field.name for field in self._contract.flat_inputs if field.nullable}
        for name in self._columns:
            if name not in names and name in optional:
                check_case(name, names, shown)
            elif name not in names and name not in self._more:
                raise SourceError(f"{shown}: column {name} is missing; the lines have {listed}")
        check_more(self._more, names, shown)

    def _blocks(
        self, path: str, shown: str, begin: int = 0, end: int | None = None
    ) -> Iterator[bytes]:
        """Read the whole lines that begin in a range of bytes, about a block at a time."""
        with self._stream(path, begin) as stream:
            rest = b""
            at = max(0, begin - 1)
            ours = begin == 0
            over = False
            while not over and (piece := stream.read(BLOCK_BYTES)):
                size = len(piece)
                if end is not None:
                    # Our last line ends at the first line end at or after the byte before ``end``.
                    stop = piece.find(b"\n", max(0, end - 1 - at)) + 1
                    piece, over = (piece[:stop], True) if stop else (piece, False)
                at += size
                if not ours:
                    # The line that began earlier belongs to another part.
                    start = piece.find(b"\n") + 1
                    piece, ours = piece[start:] if start else b"", start > 0
                last = piece.rfind(b"\n") + 1
                if last:
                    yield rest + piece[:last]
                    rest = piece[last:]
                else:
                    rest += piece
                    if len(rest) > MAX_LINE_BYTES:
                        raise SourceError(f"{shown}: a line is longer than {MAX_LINE_BYTES} bytes")
            if rest:
                yield rest

    def _stream(self, path: str, begin: int) -> Any:
        if not begin:
            return self._files.open_text(path)
        file = self._files.filesystem.open_input_file(path)
        file.seek(begin - 1)
        return file

    def _file(self, split: Split, first: int) -> Iterator[Chunk]:
        fixed = split.detail["constants"]
        columns = [name for name in self._columns if name not in fixed]
        begin, end = split.detail["bytes"]
        for column in self._more:
            if split.detail[DETAIL] not in (NUMBER, None):
                # Arrow would parse some texts as times, and others not.
                self._kinds.setdefault(column, pa.string())
        blocks = self._blocks(split.detail["path"], split.file, begin, end)
        line = 0
        while True:
            with self._files.reading(split.file):
                block = next(blocks, None)
            if block is None:
                return
            lines = block.count(b"\n") + (not block.endswith(b"\n"))
            here = _Place(split.file, first, line, begin)
            if NUL_RUN[:1] in block and NUL_RUN in block:
                at = line + block.count(b"\n", 0, block.index(NUL_RUN))
                raise SourceError(f"{split.file}: {here.place_of(at)} {HOLDS_NUL}")
            batch, rows, rejects = self._parsed(block, lines, columns, here)
            line += lines
            for start in range(0, max(len(rows), 1), self._rows):
                part = completed(batch.slice(start, self._rows), self._columns, fixed)
                if part.num_rows or rejects:
                    yield Chunk(part, rows[start : start + self._rows], rejects)
                rejects = []

    def _parsed(
        self, block: bytes, lines: int, columns: list[str], here: _Place
    ) -> tuple[pa.RecordBatch, Rows, list[Reject]]:
        odd = any(mark in block for mark in _EMPTY) or block.startswith(
            (b"\n", b"\r\n", BYTE_ORDER_MARK)
        )
        if b"null" in block:
            odd = odd or b"\nnull" in block or _NULL_FIRST.match(block) is not None
        # Searching for one letter is many times faster than for three.
        if not odd and not any(mark[:1] in block and mark in block for mark in _NOT_JSON):
            batch = self._quickly(block, columns) if _is_utf8(block) else None
            if batch is not None and batch.num_rows == lines:
                begins = here.first + here.line
                return batch, np.arange(begins, begins + lines), []
        return self._slowly(block, columns, here)

    def _quickly(self, block: bytes, columns: list[str]) -> pa.RecordBatch | None:
        known = [pa.field(name, self._kinds[name]) for name in columns if name in self._kinds]
        # A pure watermark column may have any type.
        free = any(name not in self._kinds for name in columns)
        buffer: Any = pa.BufferReader(block)
        try:
            table = pajson.read_json(
                buffer,
                read_options=pajson.ReadOptions(use_threads=False, block_size=len(block) + 1),
                parse_options=pajson.ParseOptions(
                    explicit_schema=pa.schema(known),
                    unexpected_field_behavior="infer" if free else "ignore",
                ),
            )
        except (pa.ArrowException, ValueError):
            return None
        if any(name not in table.column_names for name in columns):
            return None
        batches = table.select(columns).combine_chunks().to_batches()
        if not batches or any(self._is_large(name, batches[0]) for name in columns):
            return None
        return batches[0]

    def _is_large(self, name: str, batch: pa.RecordBatch) -> bool:
        """Tell whether an integer in a float column may have been rounded."""
        kind, depth = self._fields.get(name, ("", 0))
        if not is_float(kind):
            return False
        column: Any = batch.column(name)
        for _ in range(depth):
            column = pc.list_flatten(column)
        return may_be_rounded(kind, column)

    def _slowly(
        self, block: bytes, columns: list[str], here: _Place
    ) -> tuple[pa.RecordBatch, Rows, list[Reject]]:
        values: dict[str, list[Any]] = {name: [] for name in columns}
        rows, rejects = [], []
        for at, text in enumerate(block.removesuffix(b"\n").split(b"\n"), start=here.line):
            if not text.strip():
                continue
            found, fault = json_object(text)
            if found is None:
                if _holds_several(text):
                    raise SourceError(
                        f"{here.file}: {here.place_of(at)} holds more than one object, so its rows "
                        "cannot be counted; end each object with a line feed (JSON Lines)"
                    )
                rejects.append(
                    Reject(here.first + at, None, "row", f"{here.place_of(at)}: {fault}")
                )
                continue
            rows.append(here.first + at)
            for name, column in values.items():
                column.append(found.get(name))
        arrays = [self._column(name, values[name]) for name in columns]
        batch: Any = pa.RecordBatch.from_arrays(arrays, columns)
        return batch, np.array(rows, np.int64), rejects

    def _column(self, name: str, values: list[Any]) -> Any:
        if name in self._fields:
            kind, depth = self._fields[name]
            return json_column(kind, depth, values)
        return _untyped(values, self._kinds.get(name))


def _holds_several(line: bytes) -> bool:
    """Tell whether a line that is no JSON has an object and then another: line ends are lost."""
    try:
        text = line.removeprefix(BYTE_ORDER_MARK).decode().lstrip()
        found, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and text[end:].lstrip(" \t\r,").startswith("{")


def _is_utf8(block: bytes) -> bool:
    if block.isascii():
        return True
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True


def _arrow(kind: str, depth: int = 0) -> Any:
    found = json_type(kind)
    for _ in range(depth):
        found = pa.list_(found)
    return found


def _kind(block: bytes, fixed: Mapping[str, str | None], column: str, shown: str) -> str | None:
    """Detect the kind of a column's values from the first lines. Raises SourceError."""
    if column in fixed:
        return kind_of(pa.array([fixed[column]], pa.string()))
    lines = filter(None, (json_object(line)[0] for line in block.splitlines()))
    values = [value for line in lines if (value := line.get(column)) not in (None, "")]
    odd = [value for value in values if isinstance(value, bool | dict | list)]
    if 2 * len(odd) > len(values):
        raise SourceError(
            f"{shown}: column {column} holds {said(odd[0])}, which cannot be a watermark; write a "
            "number, a text, or a time in ISO 8601"
        )
    if values and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return NUMBER
    return kind_of(pa.array(list(map(_text, values)), pa.string()))


def _untyped(values: list[Any], kind: Any) -> Any:
    """Return the values of a pure watermark column: typed if they are all alike."""
    if not any(isinstance(value, bool) for value in values):
        try:
            return pa.array(values, kind)
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            pass
    return pa.array([_text(value) for value in values], pa.string())


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return exact_json.dumps(value).decode()
