"""The common part of CSV and JSON Lines: text files, whose rows are counted while they are read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

from fourways_api import Contract
from fourways_runtime.scoring.splits import Newer, Section, Split

from . import BATCH_BYTES, rows_at_once
from .base import Chunk, wanted
from .files import Files
from .watermarks import DETAIL, agreed, sifted, why_incomparable

NUL_RUN = b"\0\0"
"""Bytes that no text contains, but a file that lost a block or was not written to its end does. The
number of rows there is unknown, so the whole file is rejected."""

HOLDS_NUL = "contains NUL bytes: the file is damaged or is not UTF-8 text; save it as UTF-8"


class TextTable(ABC):
    """See :class:`.base.Table`."""

    total_rows: int | None = None

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
        self._rows = rows_at_once(contract, batch_bytes)
        self._noted: dict[str, str | None] = {}
        self._columns = tuple(dict.fromkeys((*wanted(contract), *more)))

    @abstractmethod
    def splits(self, rows: int) -> list[Split]:
        """Cut the table, and inspect its first rows."""

    @abstractmethod
    def _file(self, split: Split, first: int) -> Iterator[Chunk]:
        """Read a part whose rows are counted from ``first``."""

    def read(self, split: Split, newer: Newer | None = None) -> Iterator[Chunk]:
        """Read a part."""
        path = split.detail["path"]
        return self._files.steady(path, split, lambda: self._sifted(split, newer))

    def _sifted(self, split: Split, newer: Newer | None) -> Iterator[Chunk]:
        for chunk in self._file(split, split.start):
            for column in self._more:
                chunk = sifted(chunk, column, split.detail[DETAIL], newer, split.file)
            yield chunk

    def sections(self, split: Split) -> Iterator[Section]:
        """Return the part unchanged: rows must be read to be compared."""
        yield Section(split)

    def chunks(self) -> Iterator[Chunk]:
        """Read the table from its start, in order."""
        position = 0
        for split in self.splits(0):
            for chunk in self._file(split, position):
                yield chunk
                last = [*chunk.rows[-1:].tolist(), *(reject.row for reject in chunk.rejects)]
                position = max(position, *(row + 1 for row in last))

    def why_incomparable(self, newer: Newer) -> str | None:
        """See :class:`.base.Table`."""
        return why_incomparable(newer.column, self._noted.get(newer.column), newer.value)

    def _note_kind(
        self, splits: list[Split], column: str, kinds: Iterable[tuple[str, str | None]]
    ) -> None:
        """Record the kind of the watermark's values in each part, if all files agree on it.

        ``kinds`` are the kinds in the first rows of each file, with its name. Raises SourceError.
        """
        kind = self._noted[column] = agreed(column, kinds)
        for split in splits:
            split.detail[DETAIL] = kind
