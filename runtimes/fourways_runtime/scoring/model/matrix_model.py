"""Models that read one matrix: what scikit-learn, XGBoost and LightGBM models have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from fourways_runtime.errors import ContractMismatch, ModelError, ModelNotLoadable

from ..columns import Array
from .base import Tensor

INPUT = "X"
Predictor = Callable[[Array], dict[str, Array]]


class MatrixModel:
    """A model with the single input ``X`` of shape (N, features).

    Its outputs are found out by asking it about one row of zeros.
    """

    def __init__(self, predictor: Predictor, *, features: int, dtype: str) -> None:
        self._predictor = predictor
        self._features = features
        self._dtype = np.dtype(dtype)
        self.inputs: tuple[Tensor, ...] = (Tensor(INPUT, dtype, (None, features)),)
        try:
            probe = self.predict({INPUT: np.zeros((1, features), dtype)})
        except ModelError as error:
            raise ModelNotLoadable(f"the model does not answer a row of zeros: {error}") from None
        self.outputs = tuple(
            Tensor(name, _type_name(value), (None, *value.shape[1:]))
            for name, value in probe.items()
        )

    def predict(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """Answer a batch; see :class:`fourways_runtime.scoring.model.base.Model`."""
        matrix = tensors.get(INPUT)
        if matrix is None:
            raise ContractMismatch(f"the model reads one matrix named {INPUT}")
        if matrix.ndim != 2 or matrix.shape[1] != self._features:
            raise ContractMismatch(
                f"the model reads {INPUT} of shape (N, {self._features}), not {matrix.shape}"
            )
        if not np.can_cast(matrix.dtype, self._dtype, "same_kind"):
            raise ContractMismatch(f"the model reads numbers in {INPUT}, not {matrix.dtype}")
        rows = len(matrix)
        try:
            answers = self._predictor(matrix.astype(self._dtype, copy=False))
        except Exception as error:
            # Its text may quote the records; its type does not.
            raise ModelError(f"the model failed: {type(error).__name__}") from error
        return {name: _checked(name, value, rows) for name, value in answers.items()}


def _checked(name: str, value: Array, rows: int) -> Array:
    array = np.asarray(value)
    if array.ndim == 0 or len(array) != rows:
        raise ModelError(f"the model's {name} has shape {array.shape} for {rows} rows")
    return array.astype(object) if array.dtype.kind == "U" else array


def _type_name(value: Array) -> str:
    if value.dtype == object:
        return "string"
    return value.dtype.name
