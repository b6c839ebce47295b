"""A model whose predictions are all watched by the process's watchdog."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from fourways_runtime.model_watch import MODEL_SECONDS, WATCH, ModelWatch, seconds_for

from ..columns import Array
from .base import Model, SelectiveModel


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
        number = self._watch.begin(rows, seconds_for(rows, self._seconds))
        try:
            return self._model.predict(tensors)
        finally:
            self._watch.end(number)
