"""Damage in a CSV file that swallows rows, detected while its bytes are read.

A quote that opens and does not close turns all rows up to the next quote, or to the end of the
file, into one cell, and their number cannot be determined. Arrow reads on without an error. This is
more than one bad row, so the file is rejected, and the message names the line in which the quote
opens. The same holds for a block of zeros, which appears in a file that lost a block or was not
written to its end.

Quotes are interpreted as Arrow does: one at the start of a cell opens it, a doubled one within is a
character, any other within closes; elsewhere a quote is a character. Text between a closing quote
and the delimiter is damage if the cell spans lines. So is a cell that holds many lines that look
like rows: a stray quote further down the file may stand where it closes the cell. A quote that is
written as ``\\"`` inside a cell is another dialect (Spark, MySQL): texts would come out changed.

Following every quote takes as long as parsing. A cell that spans lines is therefore excluded by
counting first: if Arrow has found as many records as there are line ends, no cell contains one.
Only where the counts differ (blank lines, texts with line breaks, damage) are the quotes followed.
"""

from __future__ import annotations

import io
import threading
from collections import deque
from typing import Any

import numpy as np

from fourways_runtime.errors import SourceError
from fourways_runtime.scoring.columns import Array

from .text_table import HOLDS_NUL, NUL_RUN

_QUOTE, _LF, _CR, _BACKSLASH = b'"\n\r\\'
_ENDS = b",\n\r"
"""Bytes that may stand before and after a cell."""

_TILE = 2**18
"""Bytes compared at once: few enough that the result stays in the processor's cache."""

_ROWS, _ROWS_OF_TWO = 10, 30
"""Number of consecutive lines, each with as many delimiters as the header, that make a cell damage;
the second is for tables of two columns, as a line of text more often holds one comma."""

_LOOKED_AT = 2**16
"""Bytes of a cell in which such lines are looked for."""

_IS_END = np.isin(np.arange(256), np.frombuffer(_ENDS, np.uint8))
_IS_END_OR_QUOTE = _IS_END | (np.arange(256) == _QUOTE)


class QuoteCheck:
    """Follows the quotes of one file, block by block, from the start of a line on.

    ``lines`` is the number of lines before it, ``commas`` that of the header's delimiters (0: not
    known).
    """

    def __init__(self, file: str, lines: int = 0, commas: int = 0) -> None:
        self._file = file
        self._commas = commas
        self._rows = _ROWS if commas > 1 else _ROWS_OF_TWO
        self._text = b""
        """The start of the open cell's text since its last quote, in earlier blocks."""

        self._inside = False
        self._opened = 0
        """Line in which the open cell begins, from 1."""

        self._lines = lines
        """Line ends seen so far."""

        self._before = _ENDS[-1]
        self._rest = b""
        """Quotes at the end of the previous block: the next byte decides what they mean."""

    def feed(self, block: bytes) -> None:
        """Check the next block. Raises SourceError."""
        data = self._rest + block if self._rest else block
        held = len(data.rstrip(b'"'))
        self._rest, data = data[held:], data[:held]
        if not data:
            return
        if b'"' in data:
            raw = np.frombuffer(data, np.uint8)
            quotes = np.flatnonzero(raw == _QUOTE)
            if not self._plain(data, raw, quotes):
                self._one_by_one(data, quotes.tolist())
        elif self._inside and len(self._text) < _LOOKED_AT:
            self._text = (self._text + data)[:_LOOKED_AT]
        self._before = data[-1]
        self._lines += data.count(b"\n")

    def end(self) -> None:
        """Check the end of the file. Raises SourceError."""
        self.feed(b"\n")
        if self._inside:
            raise self._swallowed(self._opened)

    def _plain(self, data: bytes, raw: Array, quotes: Array) -> bool:
        """Take the quotes alternately as opening and closing; False if one of them is neither."""
        opening, closing = quotes[self._inside :: 2], quotes[1 - self._inside :: 2]
        before = raw[opening - 1]
        if len(opening) and opening[0] == 0:
            before[0] = self._before
        doubled = before == _QUOTE
        if not (_IS_END_OR_QUOTE[before].all() and _IS_END_OR_QUOTE[raw[closing + 1]].all()):
            return False
        begins = opening[~doubled]
        self._texts(data, raw, opening, closing, begins)
        if len(quotes) % 2:
            self._inside = not self._inside
        if self._inside and len(begins):
            self._opened = self._line(data, int(begins[-1]))
        return True

    def _texts(
        self, data: bytes, raw: Array, opening: Array, closing: Array, begins: Array
    ) -> None:
        """Check the texts between quotes that alternately open and close, and keep the last."""
        if self._inside and len(closing):
            self._not_rows(self._text + data[: closing[0]], self._opened)
        pairs = closing[self._inside :]
        ends = np.flatnonzero(raw == _LF)
        lines = np.searchsorted(ends, pairs) - np.searchsorted(ends, opening[: len(pairs)])
        for pair in np.flatnonzero(lines > self._rows).tolist():
            at = int(opening[pair])
            before = int(np.searchsorted(begins, at, "right")) - 1
            line = self._line(data, int(begins[before])) if before >= 0 else self._opened
            self._not_rows(data[at + 1 : pairs[pair]], line)
        left = len(opening) > len(pairs)
        self._text = data[int(opening[-1]) + 1 :][:_LOOKED_AT] if left else b""

    def _not_rows(self, text: bytes, line: int) -> None:
        """Check text of a cell that opens in a line: its lines must not look like rows."""
        if not self._commas:
            return
        alike = 0
        # The first and the last are not whole lines.
        for inner in text[:_LOOKED_AT].split(b"\n")[1:-1]:
            alike = alike + 1 if inner.count(b",") == self._commas else 0
            if alike >= self._rows:
                raise SourceError(
                    f"{self._file}: line {line}: the quote that opens there encloses lines that "
                    "look like rows; close it, or double it inside the text (a table whose texts "
                    "are such lines can be read from Parquet or JSON Lines)"
                )

    def _one_by_one(self, data: bytes, quotes: list[int]) -> None:
        beyond = -1
        start, held = 0, self._text
        for at in quotes:
            if at < beyond:
                continue
            if not self._inside:
                if (data[at - 1] if at else self._before) in _ENDS:
                    self._inside = True
                    self._opened = self._line(data, at)
                    start, held = at + 1, b""
                continue
            self._not_rows(held + data[start:at], self._opened)
            if data[at + 1] == _QUOTE:
                beyond = at + 2
                start, held = beyond, b""
            else:
                self._inside = False
                if data[at + 1] not in _ENDS:
                    self._not_escaped(data, at)
                    if self._line(data, at) > self._opened:
                        raise self._swallowed(self._opened)
        self._text = (held + data[start:])[:_LOOKED_AT] if self._inside else b""

    def _not_escaped(self, data: bytes, at: int) -> None:
        """Check that a quote in the middle of a cell does not follow a backslash."""
        if (data[at - 1] if at else self._before) == _BACKSLASH:
            raise SourceError(
                f'{self._file}: line {self._line(data, at)}: a quote inside a cell is written \\"; '
                "write it doubled (RFC 4180; Spark's option escape, MySQL's ESCAPED BY)"
            )

    def _line(self, data: bytes, at: int) -> int:
        return self._lines + 1 + data.count(b"\n", 0, at)

    def _swallowed(self, line: int) -> SourceError:
        return SourceError(
            f"{self._file}: line {line}: the quote that opens there is not closed in its cell, so "
            "the rows after it cannot be separated; close it, or double it inside the text"
        )


class TextFile(io.RawIOBase):
    """A text file that Arrow reads block by block on its own threads, until it is stopped.

    A fault does not go through Arrow: one of its threads may wait for itself while it cleans up
    after an error, and would be lost. To Arrow the file ends at the fault; :meth:`raise_fault`
    raises it on the thread that uses what was read.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._stopped = False
        self._fault: Exception | None = None

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Read on."""
        if self._stopped:
            return b""
        try:
            data: bytes = self._stream.read(size)
            self._look(data)
        except Exception as error:  # noqa: BLE001  (raised by raise_fault)
            self._fault, self._stopped = error, True
            return b""
        return data

    def _look(self, data: bytes) -> None:
        """Look at the next block."""

    def raise_fault(self) -> None:
        """Raise what kept the file from being read further, if anything."""
        if self._fault is not None:
            raise self._fault

    def stop(self) -> None:
        """Let the file end here: the rest is not wanted."""
        self._stopped = True

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
        super().close()


class CheckedFile(TextFile):
    """A text file whose damage is found as Arrow reads it.

    Arrow reads on its own thread, some blocks ahead of the batches that it returns. A batch holds
    the records that end in one block; so a block is settled once the records up to its batch are
    known.
    """

    def __init__(self, stream: Any, file: str) -> None:
        super().__init__(stream)
        self._file = file
        self._lock = threading.Lock()
        self._waiting: deque[tuple[int, int, bytes]] = deque()
        """Blocks that are not settled: number, line ends up to its end, bytes."""

        self._rest = b""
        """The settled bytes after the last line end."""

        self._agrees = False
        """Whether the counts agree up to the first waiting block. It is settled with the next
        batch: the end of the file ends a record too, so in the last batch the counts may agree
        although a cell spans lines."""

        self._settled = 0
        """Line ends in the settled blocks."""

        self._blocks = 0
        self._commas: int | None = None
        """Delimiters in the header; 0 if a name is quoted, as one may be within it."""

        self._lines = 0
        self._returned = False
        """Whether the last byte was a carriage return."""

        self._check: QuoteCheck | None = None
        """Follows the quotes, once the counts have differed."""

        self._mask = np.empty(_TILE, np.bool_)

    def _look(self, data: bytes) -> None:
        """Look for damage that swallows rows. Raises SourceError."""
        if data:
            with self._lock:
                self._feed(data)

    def parsed(self, batches: int, records: int) -> None:
        """Settle the blocks of the first ``batches`` batches, which hold ``records`` records.

        The header and rejected records count. Raises SourceError.
        """
        with self._lock:
            if self._agrees:
                _, lines, block = self._waiting.popleft()
                self._settle(lines, block)
                self._agrees = False
            if not self._waiting or self._waiting[0][0] > batches:
                return
            _, lines, block = self._waiting[0]
            # Arrow ends a record at the carriage return whose line feed is in the next block.
            self._agrees = lines + block.endswith(b"\r") == records
            if not self._agrees:
                self._follow()

    def follow(self) -> None:
        """Follow the quotes in what was read and is not settled. Raises SourceError."""
        with self._lock:
            self._follow()

    def finish(self) -> None:
        """Check what is not settled at the end of the file. Raises SourceError."""
        with self._lock:
            self._follow().end()

    def _feed(self, block: bytes) -> None:
        self._blocks += 1
        raw = np.frombuffer(block, np.uint8)
        if self._commas is None:
            header = block.partition(b"\n")[0]
            self._commas = 0 if b'"' in header else header.count(b",")
        if not raw.min() and NUL_RUN in block:
            line = self._lines + 1 + block.count(b"\n", 0, block.index(NUL_RUN))
            raise SourceError(f"{self._file}: line {line} {HOLDS_NUL}")
        if self._check is not None:
            self._check.feed(block)
            return
        self._lines += self._line_ends(raw)
        if not self._waiting and b'"' not in block and b'"' not in self._rest:
            self._settle(self._lines, block)
        else:
            self._waiting.append((self._blocks, self._lines, block))
        if self._ends_a_line_alone(block, raw) or (b"\\" in block and b'\\"' in block):
            self._follow()

    def _settle(self, lines: int, block: bytes) -> None:
        self._settled = lines
        end = block.rfind(b"\n") + 1
        self._rest = block[end:] if end else self._rest + block

    def _line_ends(self, raw: Array) -> int:
        count = 0
        for begin in range(0, len(raw), _TILE):
            tile = raw[begin : begin + _TILE]
            count += int(np.count_nonzero(np.equal(tile, _LF, out=self._mask[: len(tile)])))
        return count

    def _ends_a_line_alone(self, block: bytes, raw: Array) -> bool:
        """Tell whether a carriage return without a line feed is there: Arrow ends a row at it."""
        before, self._returned = self._returned, block.endswith(b"\r")
        if before and raw[0] != _LF:
            return True
        return b"\r" in block and bool(((raw[:-1] == _CR) & (raw[1:] != _LF)).any())

    def _follow(self) -> QuoteCheck:
        """Follow the quotes of what is not settled, and of every later block."""
        if self._check is None:
            self._check = QuoteCheck(self._file, self._settled, self._commas or 0)
            self._check.feed(self._rest)
            self._agrees = False
            while self._waiting:
                self._check.feed(self._waiting.popleft()[2])
        return self._check
