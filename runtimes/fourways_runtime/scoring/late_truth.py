"""Which prediction a label belongs to, if predictions follow one another key by key. Pure.

A label belongs to the newest prediction that its key had at the label's time: what callers saw
then. Of several labels for one prediction, the one with the latest time counts, and of equal times
the one that comes last in the table. So late, repeated and unordered labels come to the same
result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from fourways_api import Contract

from .columns import Array, Key


def is_text(contract: Contract, output: str) -> bool:
    """Tell whether an output, which is compared, is a text."""
    return next(o.type for o in contract.outputs if o.name == output) == "string"


def share_of(text: str) -> float:
    """Return a share such as ``5%`` as a number from 0 to 1."""
    return float(text.removesuffix("%")) / 100


def in_share(keys: Sequence[Key], share: float) -> list[int]:
    """Return the positions of the keys that belong to a share of all keys, by their hash."""
    limit = share * 2**32
    return [at for at, key in enumerate(keys) if crc32(str(key).encode()) < limit]


class PastBatch(NamedTuple):
    """Predictions that were made at one time."""

    at: int
    """Microseconds since 1970."""

    keys: list[Key]
    values: list[Any] | None
    """A prediction for each key; of two for one key, the last one counts. None: those of the keys
    were deleted."""


class _Prediction:
    """A prediction for a key, until the next one; and the label that counts for it."""

    __slots__ = ("label", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self.label = -1


def labelled(
    batches: Iterable[PastBatch], keys: Array, times: Array
) -> tuple[list[Any], list[int]]:
    """Return the predictions that have a label, and the position of the label of each.

    ``batches`` come in the order of their time; ``keys`` (N,) and ``times`` (N,), in microseconds
    since 1970, are those of the labels.
    """
    # Equal times stay in the table's order, so the last of them replaces the others.
    order = np.argsort(times, kind="stable")
    waiting = iter(zip(times[order].tolist(), keys[order].tolist(), order.tolist(), strict=True))
    wanted = set(keys.tolist())
    present: dict[Key, _Prediction] = {}
    compared: list[_Prediction] = []
    label = next(waiting, None)
    for batch in batches:
        while label is not None and label[0] < batch.at:
            _belongs(present.get(label[1]), label[2], compared)
            label = next(waiting, None)
        if label is None:
            break
        if batch.values is None:
            for key in batch.keys:
                present.pop(key, None)
            continue
        for key, value in zip(batch.keys, batch.values, strict=True):
            if key in wanted:
                present[key] = _Prediction(value)
    while label is not None:
        _belongs(present.get(label[1]), label[2], compared)
        label = next(waiting, None)
    return [each.value for each in compared], [each.label for each in compared]


def _belongs(prediction: _Prediction | None, label: int, compared: list[_Prediction]) -> None:
    if prediction is None:
        return
    if prediction.label < 0:
        compared.append(prediction)
    prediction.label = label
