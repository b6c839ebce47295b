"""Tables in Parquet, read through pyarrow's datasets: only the columns wanted, in small batches.

Every file's footer is read first, so that a column gone astray in the last file is found before the
first one is scored, and so that the number of rows is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow.dataset as ds

from fourways_api import Contract

from ..errors import SourceError
from . import BATCH_ROWS
from .base import Chunk, check_names, wanted
from .cells import accepts
from .files import Files

_READAHEAD = 4


class ParquetTable:
    """See :class:`.base.Table`."""

    def __init__(self, files: Files, contract: Contract) -> None:
        self._files = files
        self._columns = list(wanted(contract))
        form = ds.ParquetFileFormat(
            default_fragment_scan_options=ds.ParquetFragmentScanOptions(
                use_buffered_stream=True, pre_buffer=False
            )
        )
        self._fragments: list[Any] = []
        self.total_rows: int | None = 0
        for path in files.paths:
            with files.reading(path):
                fragment: Any = form.make_fragment(path, files.filesystem)
                _check(contract, fragment.physical_schema, files.told(path))
                self.total_rows += fragment.metadata.num_rows
            self._fragments.append(fragment)

    def chunks(self) -> Iterator[Chunk]:
        """Read the table from its start, in order."""
        position = 0
        for path, fragment in zip(self._files.paths, self._fragments, strict=True):
            batches = fragment.to_batches(
                columns=self._columns,
                batch_size=BATCH_ROWS,
                batch_readahead=_READAHEAD,
                # The cores are for the model; one thread reads ten times what it can score.
                use_threads=False,
            )
            while True:
                with self._files.reading(path):
                    batch = next(batches, None)
                if batch is None:
                    break
                if batch.num_rows:
                    yield Chunk(batch, np.arange(position, position + batch.num_rows))
                    position += batch.num_rows


def _check(contract: Contract, schema: Any, file: str) -> None:
    check_names(contract, list(schema.names), file)
    key = contract.entity_key
    fields = [(key.name, key.type, ()), *((f.name, f.type, f.shape) for f in contract.inputs)]
    for name, kind, shape in fields:
        found = schema.field(name).type
        if not accepts(kind, shape, found):
            says = kind + (f" of shape {list(shape)}" if shape else "")
            raise SourceError(
                f"{file}: column {name} is {found}, the contract says {says}; "
                "change the contract, or convert the column"
            )
