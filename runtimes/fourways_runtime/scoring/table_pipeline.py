"""The pipeline for tables: Arrow columns are decoded before they are scored.

Separate from :mod:`.pipeline`, so that a process that scores requests or single records does not
load Arrow.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from .columns import Rows, Scored
from .decode import Decoder
from .pipeline import Pipeline


class TablePipeline:
    """A pipeline that takes record batches. As thread-safe as its model."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.contract = pipeline.contract
        self._pipeline = pipeline
        self._decoder = Decoder(pipeline.contract)

    def score(
        self, batch: pa.RecordBatch, rows: Rows | None = None, *, isolating: bool = False
    ) -> Scored:
        """Score raw records: the columns with the contract's names, of any Arrow type that fits.

        ``rows`` (N,) are the records' positions in the source, by default from 0. Every record is
        returned once, as a prediction or as a reject. ``isolating`` is that of
        :meth:`.pipeline.Pipeline.score_records`.

        Raises:
            ContractMismatch: the model's outputs differ in shape or type from what it declares.

        """
        rows = np.arange(batch.num_rows) if rows is None else rows
        return self._pipeline.score_records(*self._decoder.decode(batch, rows), isolating=isolating)
