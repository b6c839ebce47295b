"""Models that take one matrix: the common part of scikit-learn, XGBoost and LightGBM models."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Self

import numpy as np

from fourways_runtime.errors import ContractMismatch, ModelError, ModelNotLoadable

from ..columns import Array
from .base import Tensor
from .library_errors import model_error

INPUT = "X"
Predictor = Callable[[Array], Array]
"""Returns one output (N, ...) for a matrix (N, features)."""


class MatrixModel:
    """A model with the single input ``X`` of shape (N, features).

    Its outputs are determined by scoring one row of zeros.
    """

    def __init__(
        self,
        predictors: Mapping[str, Predictor],
        *,
        features: int,
        dtype: str,
        columns: Sequence[str] = (),
        probed: bool = True,
    ) -> None:
        """Create the model; ``predictors`` by output name, ``columns`` are its own feature names.

        Without ``probed``, the model declares no outputs, and it may fail on zeros.

        Raises:
            ModelNotLoadable: no output can be computed for a row of zeros.

        """
        self._predictors = predictors
        self._features = features
        self._dtype = np.dtype(dtype)
        names = tuple(map(str, columns)) if len(columns) == features else ()
        self.inputs: tuple[Tensor, ...] = (Tensor(INPUT, dtype, (None, features), names),)
        self.outputs = self._probed() if probed else ()

    def _probed(self) -> tuple[Tensor, ...]:
        """Describe the outputs by those for a row of zeros; one that fails cannot be read."""
        zeros = {INPUT: np.zeros((1, self._features), self._dtype)}
        found = []
        faults = []
        for name in self._predictors:
            try:
                found.append(described_output(name, self.answering([name]).predict(zeros)[name]))
            except ModelError as error:
                faults.append(error)
                found.append(Tensor(name, "", (), unreadable=str(_not_answering(error))))
        if len(faults) == len(found):
            raise _not_answering(faults[0]) from faults[0].__cause__
        readable = [tensor.name for tensor in found if not tensor.unreadable]
        self._predictors = self.answering(readable)._predictors
        return tuple(found)

    def answering(self, outputs: Collection[str]) -> Self:
        """Return the same model with fewer outputs; see :class:`.base.SelectiveModel`."""
        fewer = copy.copy(self)
        fewer._predictors = {name: it for name, it in self._predictors.items() if name in outputs}
        return fewer

    def predict(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """Score a batch; see :class:`fourways_runtime.scoring.model.base.Model`."""
        matrix = tensors.get(INPUT)
        if matrix is None:
            raise ContractMismatch(f"the model reads one matrix named {INPUT}")
        if matrix.ndim != 2 or matrix.shape[1] != self._features:
            raise ContractMismatch(
                f"the model reads {INPUT} of shape (N, {self._features}), not {matrix.shape}"
            )
        if not np.can_cast(matrix.dtype, self._dtype, "same_kind"):
            raise ContractMismatch(f"the model reads numbers in {INPUT}, not {matrix.dtype}")
        matrix = matrix.astype(self._dtype, copy=False)
        return {
            name: output_of(name, lambda it=predictor: it(matrix), len(matrix))  # type: ignore[misc]
            for name, predictor in self._predictors.items()
        }


def output_of(name: str, predict: Callable[[], Any], rows: int) -> Array:
    """Compute one output (rows, ...) with a library. Raises ModelError if it fails."""
    try:
        array = _as_array(predict())
    except Exception as error:
        # The text of the error may quote the records; its type does not.
        raise ModelError(f"the model failed: {type(error).__name__}") from error
    if array.ndim == 0 or len(array) != rows:
        raise ModelError(f"the model's {name} has shape {array.shape} for {rows} rows")
    return array.astype(object) if array.dtype.kind == "U" else array


def _as_array(answer: Any) -> Array:
    """Return an output as one array: a library may return it sparse, or a list of arrays.

    scikit-learn returns the probabilities of several targets as a list, (rows, classes) each; here
    they are (rows, targets, classes).
    """
    if hasattr(answer, "toarray"):
        answer = answer.toarray()
    if isinstance(answer, list) and all(np.ndim(each) == 2 for each in answer):
        return np.stack(answer, axis=1)
    return np.asarray(answer)


def _not_answering(error: ModelError) -> ModelNotLoadable:
    """Return the error for a model that fails on a row of zeros, with its library's first line."""
    return ModelNotLoadable(f"the model fails on a row of zeros: {model_error(error)}")


def described_output(name: str, value: Array) -> Tensor:
    """Derive the description of an output from its values for one row."""
    kind = "string" if value.dtype == object else value.dtype.name
    return Tensor(name, kind, (None, *value.shape[1:]))
