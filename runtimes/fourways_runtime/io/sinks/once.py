"""One row per key in files that together are larger than memory: the last of several rows wins.

This module finds and drops the others. If no key occurs twice, which is the usual case, only the
hashes of the keys are read; otherwise the files that contain such a row are rewritten without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from fourways_runtime.scoring.columns import Array, Reject
from fourways_runtime.scoring.hashing import key_hashes

from ..folders import OutputFolder
from ..store.layout import DUPLICATE
from .chunk_files import KEYS, Layout, Receipt, positions_of, repeated

Lost = dict[int, list[tuple[int, Any]]]
"""Rows that a later row replaces: number and key, by the file's place in the order."""


class Once:
    """A run's files, with one row per key. Calls may raise SinkUnavailable."""

    def __init__(self, place: OutputFolder, layout: Layout, key_file: Callable[[str], str]) -> None:
        """Use the files in ``place``; ``key_file`` returns the key file of a file."""
        self._place = place
        self._layout = layout
        self._key_file = key_file
        handler: Any = pafs.FSSpecHandler  # The type stub calls it abstract.
        self._filesystem: Any = pafs.PyFileSystem(handler(place.backend))
        self._known: tuple[list[Receipt], Lost] | None = None

    def repeated(self, receipts: Mapping[int, str]) -> list[Reject]:
        """Return the rows whose key occurs again in a later row, in the source's order."""
        found, lost = self._lost(receipts)
        rejects = []
        for at in sorted(lost):
            rows = np.array([row for row, _ in lost[at]])
            where = positions_of(self._place, self._key_file(found[at].file), rows).tolist()
            rejects += [
                Reject(position, str(key), self._layout.key, DUPLICATE)
                for position, (_, key) in zip(where, lost[at], strict=True)
            ]
        return sorted(rejects, key=lambda reject: reject.row)

    def files(self, receipts: Mapping[int, str]) -> list[Receipt]:
        """Return the files that have rows, in order, with only the last row of each key.

        Changed files get another name, so that a repetition gives the same result.
        """
        found, lost = self._lost(receipts)
        kept = []
        for at, receipt in enumerate(found):
            if at in lost:
                rows = np.array([row for row, _ in lost[at]])
                receipt = self._without(receipt, rows)
            kept.append(receipt)
        return [receipt for receipt in kept if receipt.rows]

    def _lost(self, receipts: Mapping[int, str]) -> tuple[list[Receipt], Lost]:
        found = [Receipt.load(receipts[number]) for number in sorted(receipts)]
        found = [receipt for receipt in found if receipt.rows]
        if self._known is None or self._known[0] != found:
            self._known = found, self._find(found)
        return self._known

    def _find(self, receipts: list[Receipt]) -> Lost:
        keys = [self._key_file(receipt.file) for receipt in receipts]
        suspects = repeated(self._place, keys, sum(receipt.rows for receipt in receipts))
        lost: Lost = {}
        if not len(suspects):
            return lost
        last: dict[Any, tuple[int, int]] = {}
        for at, receipt in enumerate(receipts):
            for row, key in self._found(receipt, suspects):
                if key in last:
                    file, before = last[key]
                    lost.setdefault(file, []).append((before, key))
                last[key] = at, row
        return lost

    def _found(self, receipt: Receipt, suspects: Array) -> list[tuple[int, Any]]:
        """Return row and key of each row whose key has one of the hashes."""
        name = self._layout.key
        found: list[tuple[int, Any]] = []
        first = 0
        with self._place.translated(), self._reader(receipt) as reader:
            for batch in reader.iter_batches(columns=[name]):
                hashes = key_hashes(batch.column(name))
                at = np.searchsorted(suspects, hashes)
                at[at == len(suspects)] = 0
                rows = np.flatnonzero(suspects[at] == hashes)
                keys = batch.column(name).take(pa.array(rows)).to_pylist()
                found += zip((rows + first).tolist(), keys, strict=True)
                first += batch.num_rows
        return found

    def _without(self, receipt: Receipt, lost: Array) -> Receipt:
        name = receipt.file.removesuffix(".parquet") + "-once.parquet"
        first = kept = 0
        with (
            self._place.translated(),
            self._reader(receipt) as reader,
            self._place.create(name) as file,
        ):
            with self._layout.writer(file) as writer:
                for group in range(reader.num_row_groups):
                    table = reader.read_row_group(group)
                    stay = np.ones(table.num_rows, bool)
                    stay[lost[(lost >= first) & (lost < first + table.num_rows)] - first] = False
                    first += table.num_rows
                    table = table.filter(pa.array(stay)).cast(self._layout.schema)
                    kept += table.num_rows
                    if table.num_rows:
                        writer.write_table(table)
            size = file.tell()
        if not kept:
            self._place.delete(name)
            return Receipt("", 0)
        return Receipt(name, kept, size)

    def _reader(self, receipt: Receipt) -> Any:
        path = f"{self._place.path.rstrip('/')}/{receipt.file}"
        return pq.ParquetFile(self._filesystem.open_input_file(path))


def key_name(file: str) -> str:
    """Return the name of the key file beside a file."""
    return file.removesuffix(".parquet") + KEYS
