"""One row a key, in files that together are larger than memory: of several the last one counts.

Owns finding and dropping the others. Where no key occurs twice, which is the usual case, only the
hashes of the keys are read; else the files that hold such a row are written anew, without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from ..records import Array
from .chunk_files import KEYS, Layout, Receipt, repeated
from .key_hashes import key_hashes
from .place import Place, written


def once(
    place: Place, layout: Layout, receipts: Sequence[Receipt], keys: Sequence[str]
) -> list[Receipt]:
    """Return the files, in order, with only the last row of each key. Raises SinkUnavailable.

    ``keys`` are the key files of ``receipts``. Files that change get another name, so that doing
    it again comes to the same.
    """
    suspects = repeated(place, keys, sum(receipt.rows for receipt in receipts))
    if not len(suspects):
        return list(receipts)
    handler: Any = pafs.FSSpecHandler  # Its stub calls it abstract.
    filesystem: Any = pafs.PyFileSystem(handler(place.backend))
    last: dict[Any, tuple[int, int]] = {}
    lost: dict[int, list[int]] = {}
    for at, receipt in enumerate(receipts):
        for row, key in _found(place, filesystem, layout, receipt, suspects):
            if key in last:
                file, before = last[key]
                lost.setdefault(file, []).append(before)
            last[key] = at, row
    return [
        _without(place, filesystem, layout, receipt, np.array(lost[at])) if at in lost else receipt
        for at, receipt in enumerate(receipts)
    ]


def _found(
    place: Place, filesystem: Any, layout: Layout, receipt: Receipt, suspects: Array
) -> list[tuple[int, Any]]:
    """Return row and key of each row whose key has one of the hashes."""
    found: list[tuple[int, Any]] = []
    first = 0
    with written(place.shown), _reader(place, filesystem, receipt) as reader:
        for batch in reader.iter_batches(columns=[layout.key]):
            hashes = key_hashes(batch.column(layout.key))
            at = np.searchsorted(suspects, hashes)
            at[at == len(suspects)] = 0
            rows = np.flatnonzero(suspects[at] == hashes)
            keys = batch.column(layout.key).take(pa.array(rows)).to_pylist()
            found += zip((rows + first).tolist(), keys, strict=True)
            first += batch.num_rows
    return found


def _without(
    place: Place, filesystem: Any, layout: Layout, receipt: Receipt, lost: Array
) -> Receipt:
    name = receipt.file.removesuffix(".parquet") + "-once.parquet"
    first = kept = 0
    with (
        written(place.shown),
        _reader(place, filesystem, receipt) as reader,
        place.create(name) as file,
    ):
        with layout.writer(file) as writer:
            for group in range(reader.num_row_groups):
                table = reader.read_row_group(group)
                stay = np.ones(table.num_rows, bool)
                stay[lost[(lost >= first) & (lost < first + table.num_rows)] - first] = False
                first += table.num_rows
                table = table.filter(pa.array(stay)).cast(layout.schema)
                kept += table.num_rows
                if table.num_rows:
                    writer.write_table(table)
        size = file.tell()
    if not kept:
        place.delete(name)
        return Receipt("", 0)
    return Receipt(name, kept, size)


def _reader(place: Place, filesystem: Any, receipt: Receipt) -> Any:
    path = f"{place.path.rstrip('/')}/{receipt.file}"
    return pq.ParquetFile(filesystem.open_input_file(path))


def key_name(file: str) -> str:
    """Return the name of the key file of a file beside it."""
    return file.removesuffix(".parquet") + KEYS
