"""Models whose file fixes the batch to one record: they are called once for each record.

Many exporters write the example's batch of one into the file, or an input without any dimension.
Such a model gives the same answers in every mode, but nothing is gained from scoring records
together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from fourways_api.display import displayed
from fourways_runtime.errors import ContractMismatch

from ..columns import Array
from .base import Model, SelectiveModel, Tensor


class RowByRow:
    """A model of one record as a model of any number of them. As thread-safe as the model."""

    def __init__(self, model: Model, scalars: Collection[str] = ()) -> None:
        """Wrap a model whose inputs have a first dimension of 1, or are ``scalars`` without any."""
        self._model = model
        self._scalars = frozenset(scalars)
        self.inputs = tuple(replace(each, shape=(None, *each.shape[1:])) for each in model.inputs)
        self.outputs = tuple(map(_freed, model.outputs))
        # A model may drop the dimension from what it answers.
        self._without_batch = {t.name for t in model.outputs if t.shape and not _may_be_batch(t)}

    def around(self, wrap: Callable[[Model], Model]) -> RowByRow:
        """Return the same model with the model of one record wrapped."""
        return RowByRow(wrap(self._model), self._scalars)

    def answering(self, outputs: Collection[str]) -> RowByRow:
        """Return the same model with fewer outputs; see :class:`.base.SelectiveModel`."""
        if not isinstance(self._model, SelectiveModel):
            return self
        return RowByRow(self._model.answering(outputs), self._scalars)

    def predict(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """Score each record by itself; see :class:`.base.Model`."""
        rows = len(next(iter(tensors.values())))
        answers = [
            self._model.predict({name: self._one(name, each, at) for name, each in tensors.items()})
            for at in range(rows)
        ]
        return {name: self._joined(name, [each[name] for each in answers]) for name in answers[0]}

    def _one(self, name: str, values: Array, at: int) -> Array:
        alone = values[at : at + 1]
        return alone.reshape(()) if name in self._scalars else alone

    def _joined(self, name: str, values: Sequence[Array]) -> Array:
        if name in self._without_batch or np.ndim(values[0]) == 0:
            values = [np.expand_dims(each, 0) for each in values]
        if any(len(each) != 1 for each in values):
            raise ContractMismatch(
                f"the model answered 1 record with {displayed(name, 80)} of shape "
                f"{list(np.shape(values[0]))}; its first dimension must be 1"
            )
        try:
            return np.concatenate(values)
        except ValueError:
            raise ContractMismatch(
                f"the model's {displayed(name, 80)} has another shape for each record; "
                "export it with outputs of one shape"
            ) from None


def row_by_row(model: Model, scalars: Collection[str] = ()) -> Model:
    """Return the model, called for each record if its file fixes the batch to one.

    So it is if some of its inputs are ``scalars``: they have no dimension that could be the batch.
    """
    tensors = [each for each in model.inputs if each.name not in scalars]
    firsts = {each.shape[0] if each.shape else 0 for each in tensors}
    alone = 1 in firsts or len(tensors) < len(model.inputs)
    return RowByRow(model, scalars) if alone and firsts <= {1, None} else model


def _may_be_batch(tensor: Tensor) -> bool:
    return tensor.shape[0] in (1, None)


def _freed(tensor: Tensor) -> Tensor:
    if not tensor.shape:
        return tensor
    kept = tensor.shape[1:] if _may_be_batch(tensor) else tensor.shape
    return replace(tensor, shape=(None, *kept))
