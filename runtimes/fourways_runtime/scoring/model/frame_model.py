"""Models that select their columns by name: scikit-learn pipelines with a ColumnTransformer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Self

from fourways_runtime.errors import ContractMismatch

from ..columns import Array
from .base import Tensor
from .extras import load_module
from .matrix_model import output_of


class FrameModel:
    """A model that takes a pandas frame: one input (N,) for each of its columns, by name.

    Columns may be numbers or text; the model declares neither their types nor its outputs.
    """

    def __init__(
        self, predictors: Mapping[str, Callable[[Any], Any]], columns: Sequence[str]
    ) -> None:
        """Create the model; ``predictors`` by output name, ``columns`` are its own feature names.

        Raises:
            ConfigError: pandas is not installed.

        """
        self._predictors = predictors
        self._pandas = load_module("pandas", "frames")
        self.inputs = tuple(Tensor(name, "", (None,)) for name in columns)
        self.outputs: tuple[Tensor, ...] = ()

    def answering(self, outputs: Collection[str]) -> Self:
        """Return the same model with fewer outputs; see :class:`.base.SelectiveModel`."""
        fewer = copy.copy(self)
        fewer._predictors = {name: it for name, it in self._predictors.items() if name in outputs}
        return fewer

    def predict(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """Score a batch; see :class:`fourways_runtime.scoring.model.base.Model`."""
        try:
            columns = {tensor.name: tensors[tensor.name] for tensor in self.inputs}
        except KeyError as missing:
            raise ContractMismatch(f"the model reads {missing}, which was not given") from None
        frame = self._pandas.DataFrame(columns)
        return {
            name: output_of(name, lambda it=predictor: it(frame), len(frame))  # type: ignore[misc]
            for name, predictor in self._predictors.items()
        }
