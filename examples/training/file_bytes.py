"""A file as magika's model sees it: its first and last bytes, as 2,048 integers.

The features equal those of magika 1.0 (``_extract_features_from_seekable`` of its ``magika.py``)
with the sizes of its ``standard_v3_3`` model; ``train.py file-type`` compares them with magika
itself.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HALF = 1024
BLOCK = 4096
PADDING = 256
FEWEST = 8
"""Shorter files are not for the model: magika classifies them by rules."""


def tokens(path: Path) -> NDArray[np.int32] | None:
    """Return a file's (2048,) tokens, or None if it is too short for the model."""
    with path.open("rb") as file:
        head = file.read(BLOCK)
        file.seek(-len(head), 2)
        tail = file.read(BLOCK)
    head, tail = head.lstrip()[:HALF], tail.rstrip()[-HALF:]
    if len(head) < FEWEST:
        return None
    found = np.full(2 * HALF, PADDING, np.int32)
    found[: len(head)] = np.frombuffer(head, np.uint8)
    found[2 * HALF - len(tail) :] = np.frombuffer(tail, np.uint8)
    return found
