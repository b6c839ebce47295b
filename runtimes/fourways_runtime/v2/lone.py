"""Scores a lone request of one plain record in as few steps as possible.

The pipeline's steps are made for many rows. For one row they cost several times the model's own
time, most of it because the model has displaced them from the processor's caches meanwhile: what
counts is how much code runs, more than what it does. So the checks of the contract are made here on
Python's floats, in four calls of C code, and the model's outputs are taken as they are.

Only what needs no further look passes. For everything else :meth:`LoneScorer.score` returns None,
and :class:`.scorer.RequestScorer` takes its ordinary way, which has the error messages.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from operator import ge, itemgetter, le
from typing import Any, NamedTuple

import numpy as np
import orjson

from fourways_api import Contract, InputField, OutputField
from fourways_runtime.errors import ContractMismatch
from fourways_runtime.scoring.columns import Array, Columns
from fourways_runtime.scoring.dense import bounds, exact_bounds, packer
from fourways_runtime.scoring.inputs import bind_inputs
from fourways_runtime.scoring.model.base import Model, SelectiveModel, Tensor

from .request import InferenceRequest
from .templates import UnparsedRequest

_FLOATS = ("float32", "float64")
_MOST = 64
"""Maximum number of inputs: for more numbers, numpy is faster than Python."""

_NOT_PLAIN = (ValueError, TypeError, OverflowError, struct.error)


class _Number(NamedTuple):
    """An output that is one float: its place in a tensor, and its limits, both finite."""

    name: str
    tensor: str
    type: np.dtype[Any]
    shape: tuple[int, ...]
    """Of the whole tensor, for one row."""

    column: int
    low: float
    high: float


class LoneScorer:
    """A contract of single floats bound to a model. As thread-safe as the model."""

    def __init__(
        self,
        model: Model,
        fields: Sequence[InputField],
        order: Sequence[int],
        outputs: Sequence[_Number],
    ) -> None:
        """Bind them; ``order``: the index in ``fields`` of each column of the model's tensor."""
        tensor = model.inputs[0]
        self._predict: Callable[[Mapping[str, Array]], Mapping[str, Array]] = model.predict
        self._tensor = tensor.name
        self._type = np.dtype(tensor.type)
        self._shape = (1, len(order))
        self._bounds = tuple(bound.tolist() for bound in bounds(fields))
        self._text_bounds = tuple(bound.tolist() for bound in exact_bounds(fields))
        self._pack = packer(len(order), self._type.char)
        in_order = list(order) == sorted(order)
        self._ordered: Any = None if in_order else itemgetter(*order)
        self._outputs = tuple(outputs)
        self._as_declared = True

    @classmethod
    def of(cls, contract: Contract, model: Model) -> LoneScorer | None:
        """Bind them if inputs and outputs are single floats, as the model declares them."""
        fields = contract.flat_inputs
        kind = fields[0].type
        if len(fields) > _MOST:
            return None
        if kind not in _FLOATS or any(each.type != kind or each.shape for each in fields):
            return None
        if len(model.inputs) != 1 or model.inputs[0].type != kind:
            return None
        if len(model.inputs[0].shape) != 2:
            return None
        try:
            (feed,) = bind_inputs(fields, model.inputs)
        except ContractMismatch:
            return None
        declared = {each.name: each for each in model.outputs}
        outputs = [
            _number(each, declared.get(each.tensor or each.name)) for each in contract.outputs
        ]
        found = [each for each in outputs if each is not None]
        if len(found) < len(outputs):
            return None
        if isinstance(model, SelectiveModel):
            model = model.answering(frozenset(each.tensor for each in found))
        return cls(model, fields, [fields.index(each) for each in feed.fields], found)

    def score(self, asked: UnparsedRequest | InferenceRequest) -> Columns | None:
        """Return the outputs (1,) of a request of one row, or None if it may have a fault.

        Raises the model's errors.
        """
        if not self._as_declared:
            return None
        if isinstance(asked, UnparsedRequest):
            block = self._parsed(asked.numbers)
        else:
            block = self._taken(asked.block)
        return None if block is None else self._answers(block)

    def _parsed(self, text: bytes) -> Array | None:
        if b"t" in text or b"f" in text:
            return None  # true and false are numbers for Python
        try:
            return self._row(orjson.loads(b"[%b]" % text), *self._text_bounds)
        except _NOT_PLAIN:
            return None

    def _taken(self, block: Array | None) -> Array | None:
        if block is None or block.dtype != self._type:
            return None
        return self._row(block[0].tolist(), *self._bounds)

    def _row(self, values: list[float], low: list[float], high: list[float]) -> Array | None:
        """Return the model's tensor, or None if a value may not be in its range."""
        if len(values) != len(low):
            return None
        if not (all(map(le, low, values)) and all(map(ge, high, values))):
            return None
        ordered = values if self._ordered is None else self._ordered(values)
        return np.ndarray(self._shape, self._type, self._pack(*ordered))

    def _answers(self, block: Array) -> Columns | None:
        answers = self._predict({self._tensor: block})
        columns: dict[str, Array] = {}
        for each in self._outputs:
            raw = answers.get(each.tensor)
            if raw is None or raw.shape != each.shape or raw.dtype != each.type:
                # From now on nothing is scored here first, because it would be scored twice.
                self._as_declared = False
                return None
            value = raw.reshape(-1)[each.column : each.column + 1]
            if not each.low <= value.item() <= each.high:  # NaN is in no range
                return None
            columns[each.name] = value
        return columns


def _number(field: OutputField, tensor: Tensor | None) -> _Number | None:
    """Return how to read an output that needs no conversion; None for any other."""
    if tensor is None or tensor.type != field.type or field.type not in _FLOATS:
        return None
    if field.shape or field.reduce is not None or field.categories is not None:
        return None
    sizes = tuple(size for size in tensor.shape[1:] if size is not None)
    if not tensor.shape or len(sizes) < len(tensor.shape) - 1:
        return None
    if field.column is None:
        if math.prod(sizes) != 1:
            return None
    elif len(sizes) != 1 or field.column >= sizes[0]:
        return None
    kind = np.dtype(field.type)
    limits = np.finfo(kind)
    low = high = None
    if field.range is not None:
        low, high = field.range.min, field.range.max
    # Rounded to the type, because the contract compares them that way.
    lowest = kind.type(-math.inf if low is None else low)
    highest = kind.type(math.inf if high is None else high)
    return _Number(
        field.name,
        tensor.name,
        kind,
        (1, *sizes),
        field.column or 0,
        float(max(lowest, limits.min)),
        float(min(highest, limits.max)),
    )
