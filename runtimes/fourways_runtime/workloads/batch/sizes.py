"""The sizes of batches and chunks, derived from the memory a worker may use."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fourways_runtime.io.sources import rows_at_once

if TYPE_CHECKING:
    from fourways_api import RuntimeConfig

CHUNK_ROWS = 131_072
"""Rows recorded at once: few enough to lose when a worker dies, and enough to keep ledger overhead
low."""

_COPIES = 16
"""Copies of a batch (read, decoded, scored, packed) plus those queued in between, doubled."""


def batch_bytes(config: RuntimeConfig) -> int:
    """Return the maximum bytes per batch such that all concurrent ones fit in half the memory."""
    return config.memory_bytes // (_COPIES * (config.threads + 1))


def chunk_rows(config: RuntimeConfig) -> int:
    """Return the rows per chunk: at most an eighth of the memory, and at least one batch."""
    contract = config.contract
    values = sum(field.elements for field in contract.flat_inputs)
    values += sum(math.prod(field.shape) for field in contract.outputs)
    least = rows_at_once(contract, batch_bytes(config))
    return max(least, min(CHUNK_ROWS, config.memory_bytes // 8 // (8 * values + 64)))
