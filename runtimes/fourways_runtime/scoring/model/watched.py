"""A model whose predictions are all watched by the process's watchdog."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress

import numpy as np

from fourways_runtime.model_watch import ALIKE, MODEL_SECONDS, WATCH, ModelWatch, seconds_for

from ..columns import Array
from .base import Model, SelectiveModel
from .row_by_row import RowByRow

FIRST_ROWS = 2 * ALIKE
"""Rows of a process's first call with many rows: they measure the time per row."""


def watched(model: Model, seconds: float = MODEL_SECONDS, watch: ModelWatch = WATCH) -> Model:
    """Return the model with its calls watched; ``seconds`` is the maximum for a single row."""
    if isinstance(model, RowByRow):
        # Each record is a call of its own: a slow model needs no longer time for a batch.
        return model.around(lambda each: WatchedModel(each, seconds, watch))
    return WatchedModel(model, seconds, watch)


class WatchedModel:
    """A model with each call recorded until it returns."""

    def __init__(
        self, model: Model, seconds: float = MODEL_SECONDS, watch: ModelWatch = WATCH
    ) -> None:
        """Wrap ``model``; ``seconds`` is the maximum for a call with a single row."""
        self._model = model
        self._seconds = seconds
        self._watch = watch
        self.inputs, self.outputs = model.inputs, model.outputs

    def answering(self, outputs: Collection[str]) -> WatchedModel:
        """Return the same model with fewer outputs; see :class:`.base.SelectiveModel`."""
        if not isinstance(self._model, SelectiveModel):
            return self
        return WatchedModel(self._model.answering(outputs), self._seconds, self._watch)

    def predict(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """Score a batch; see :class:`fourways_runtime.scoring.model.base.Model`."""
        rows = len(next(iter(tensors.values()))) if tensors else 0
        if rows > 2 * FIRST_ROWS and not self._watch.measured:
            # A few rows show how long a full batch may take.
            parts = [
                self._call({name: values[part] for name, values in tensors.items()}, count)
                for part, count in (
                    (slice(FIRST_ROWS), FIRST_ROWS),
                    (slice(FIRST_ROWS, None), rows - FIRST_ROWS),
                )
            ]
            with suppress(ValueError, TypeError):
                return {name: np.concatenate([each[name] for each in parts]) for name in parts[0]}
        return self._call(tensors, rows)

    def _call(self, tensors: Mapping[str, Array], rows: int) -> dict[str, Array]:
        number = self._watch.begin(rows, seconds_for(rows, self._seconds))
        try:
            return self._model.predict(tensors)
        finally:
            self._watch.end(number)
