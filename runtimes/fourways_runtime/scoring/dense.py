"""The pipeline for tables of plain floats: all inputs of the contract in one matrix.

Owns the fast path that the model server and the stream worker share. Anything that may be invalid
goes to the ordinary pipeline, which has the error messages. No I/O.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from fourways_api import Contract, InputField
from fourways_runtime.errors import ContractMismatch

from .columns import Array, Columns
from .inputs import bind_inputs
from .literals import EXACT
from .model.base import Model
from .pipeline import Pipeline

_TILED = 2**20
"""Maximum number of limits that are repeated for each row."""


class DenseBatch:
    """The pipeline with the contract's inputs as one field: a matrix instead of columns.

    Valid records of a wide table pass many times faster. Anything that may be invalid is left to
    the ordinary pipeline, which has the error messages.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        name: str,
        fields: Sequence[InputField],
        order: Sequence[int],
        max_rows: int,
    ) -> None:
        """Bind the pipeline; ``order``: the index in ``fields`` of each of the model's columns."""
        self._pipeline = pipeline
        self._name = name
        self._order = None if list(order) == sorted(order) else np.array(order)
        low, high = bounds(fields)
        # As many rows as a batch may have: comparing contiguous memory is fastest.
        # The limits of very wide rows are broadcast instead, which takes no memory.
        tiles = max_rows if max_rows * len(fields) <= _TILED else 1
        self._low, self._high = np.tile(low, (tiles, 1)), np.tile(high, (tiles, 1))
        exact_low, exact_high = exact_bounds(fields)
        self._exact_low = np.tile(exact_low, (tiles, 1))
        self._exact_high = np.tile(exact_high, (tiles, 1))
        absent = np.array([field.nullable for field in fields])
        self._absent = np.tile(absent, (tiles, 1)) if absent.any() else None
        missing = [field.missing if isinstance(field.missing, int) else np.nan for field in fields]
        self._missing = None if np.isnan(missing).all() else np.array(missing, low.dtype)

    @classmethod
    def of(cls, contract: Contract, model: Model, max_rows: int) -> DenseBatch | None:
        """Bind it if all inputs are single floats of one type and feed one tensor, else None."""
        fields = contract.flat_inputs
        kinds = {field.type for field in fields}
        if kinds not in ({"float32"}, {"float64"}) or any(field.shape for field in fields):
            return None
        if len(model.inputs) != 1:
            return None
        tensor = model.inputs[0].name
        # Not validated: a rule would load CEL, which a server needs for nothing else.
        wide = InputField.model_construct(
            name="input", type=fields[0].type, shape=(len(fields),), tensor=tensor
        )
        try:
            (feed,) = bind_inputs(fields, model.inputs)
            pipeline = Pipeline(contract.model_copy(update={"inputs": (wide,)}), model)
        except ContractMismatch:
            return None
        order = [fields.index(field) for field in feed.fields]
        return cls(pipeline, wide.name, fields, order, max_rows)

    def answers(self, block: Array, exact: bool = True) -> Columns | None:
        """Score rows (N, inputs), or return None if one of them may be invalid.

        Not ``exact``: the block was parsed from text, and a number beyond the range in which the
        type holds every integer may have been rounded. Such a block is left to the code that reads
        the text.
        """
        rows = len(block)
        low, high = (self._low, self._high) if exact else (self._exact_low, self._exact_high)
        good = (block >= low[:rows]) & (block <= high[:rows])  # NaN is in no range
        if self._absent is not None:
            good |= self._absent[:rows] & np.isnan(block)
        if 0 in good.tobytes():  # twice as fast as numpy's own check
            return None
        if self._missing is not None:
            block = np.where(np.isnan(block), self._missing, block)
        if self._order is not None:
            block = np.take(block, self._order, axis=1)
        return self._pipeline.answers({self._name: block}, rows)


@lru_cache(maxsize=512)
def packer(size: int, code: str) -> Callable[..., bytes]:
    """Return a function that packs ``size`` Python numbers as little-endian floats.

    ``code`` is ``f`` or ``d``. The function is two to three times as fast as numpy. It raises
    struct.error for a value that is not a number, OverflowError for one that is too large; true and
    false are accepted as 1 and 0.
    """
    return struct.Struct(f"<{size}{code}").pack


def exact_bounds(fields: Sequence[InputField]) -> tuple[Array, Array]:
    """Return the minimum and maximum (inputs,) of floats that were parsed from text.

    Beyond them, a value may be invalid, or a whole number that the type has rounded.
    """
    kind = np.dtype(fields[0].type)
    low, high = bounds(fields)
    exact = EXACT[kind.name] - 1
    return np.maximum(low, -exact), np.minimum(high, exact)


def bounds(fields: Sequence[InputField]) -> tuple[Array, Array]:
    """Return the minimum and maximum (inputs,) of fields of one float type, both finite."""
    kind = np.dtype(fields[0].type)
    ranges = [field.range for field in fields]
    low = [r.min if r is not None and r.min is not None else -np.inf for r in ranges]
    high = [r.max if r is not None and r.max is not None else np.inf for r in ranges]
    limits = np.finfo(kind)
    # Rounded to the type, because the contract compares them value by value that way.
    return (
        np.maximum(np.array(low, kind), limits.min),
        np.minimum(np.array(high, kind), limits.max),
    )
