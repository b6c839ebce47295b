"""Damage in a CSV file that swallows rows, detected while its bytes are read.

A quote that opens and does not close turns all rows up to the next quote, or to the end of the
file, into one cell, and their number cannot be determined. Arrow reads on without an error. This is
more than one bad row, so the file is rejected, and the message names the line in which the quote
opens. The same holds for a block of zeros, which appears in a file that lost a block or was not
written to its end.

Quotes are interpreted as Arrow does: one at the start of a cell opens it, a doubled one within is a
character, any other within closes; elsewhere a quote is a character. Text between a closing quote
and the delimiter is damage if the cell spans lines.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from fourways_runtime.errors import SourceError
from fourways_runtime.scoring.columns import Array

from .text_table import HOLDS_NUL, NUL_RUN

_QUOTE = ord('"')
_ENDS = b",\n\r"
"""Bytes that may stand before and after a cell."""

_IS_END = np.isin(np.arange(256), np.frombuffer(_ENDS, np.uint8))
_IS_END_OR_QUOTE = _IS_END | (np.arange(256) == _QUOTE)


class QuoteCheck:
    """Follows the quotes of one file, block by block."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._inside = False
        self._opened = 0
        """Line in which the open cell begins, from 1."""

        self._lines = 0
        """Line ends seen so far."""

        self._before = _ENDS[-1]
        self._rest = b""
        """Quotes at the end of the previous block: the next byte decides what they mean."""

    def feed(self, block: bytes) -> None:
        """Check the next block. Raises SourceError."""
        # Searching for one byte is ten times faster than for two.
        if NUL_RUN[:1] in block and NUL_RUN in block:
            line = self._lines + 1 + block.count(b"\n", 0, block.index(NUL_RUN))
            raise SourceError(f"{self._file}: line {line} {HOLDS_NUL}")
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
        if len(quotes) % 2:
            self._inside = not self._inside
        begins = opening[~doubled]
        if self._inside and len(begins):
            self._opened = self._line(data, int(begins[-1]))
        return True

    def _one_by_one(self, data: bytes, quotes: list[int]) -> None:
        beyond = -1
        for at in quotes:
            if at < beyond:
                continue
            if not self._inside:
                if (data[at - 1] if at else self._before) in _ENDS:
                    self._inside = True
                    self._opened = self._line(data, at)
            elif data[at + 1] == _QUOTE:
                beyond = at + 2
            else:
                self._inside = False
                if data[at + 1] not in _ENDS and self._line(data, at) > self._opened:
                    raise self._swallowed(self._opened)

    def _line(self, data: bytes, at: int) -> int:
        return self._lines + 1 + data.count(b"\n", 0, at)

    def _swallowed(self, line: int) -> SourceError:
        return SourceError(
            f"{self._file}: line {line}: the quote that opens there is not closed in its cell, so "
            "the rows after it cannot be separated; close it, or double it inside the text"
        )


class CheckedFile(io.RawIOBase):
    """A text file whose bytes are checked as they are read."""

    def __init__(self, stream: Any, file: str) -> None:
        self._stream = stream
        self._check = QuoteCheck(file)

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Read on. Raises SourceError for damage that swallows rows."""
        data: bytes = self._stream.read(size)
        if data:
            self._check.feed(data)
        else:
            self._check.end()
        return data

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
        super().close()
