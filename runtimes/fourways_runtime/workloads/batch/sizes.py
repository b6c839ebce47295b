"""How much of a table is held, handed on and recorded at once, by the memory a worker may use."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fourways_runtime.io.sources import rows_at_once

if TYPE_CHECKING:
    from fourways_api import RuntimeConfig

CHUNK_ROWS = 131_072
"""Rows recorded at once: what a worker that dies loses, and what the ledger costs little for."""

_COPIES = 16
"""Forms a batch takes (read, decoded, scored, packed), and the few that wait in between, twice."""


def batch_bytes(config: RuntimeConfig) -> int:
    """Return how large a batch may be, that all there are at once fit into half the memory."""
    return config.memory_bytes // (_COPIES * (config.threads + 1))


def chunk_rows(config: RuntimeConfig) -> int:
    """Return how many rows a chunk has: an eighth of the memory at the most, a batch at least."""
    contract = config.contract
    values = sum(math.prod(field.shape) for field in contract.inputs)
    values += sum(math.prod(field.shape) for field in contract.outputs)
    least = rows_at_once(contract, batch_bytes(config))
    return max(least, min(CHUNK_ROWS, config.memory_bytes // 8 // (8 * values + 64)))
