"""Models for tests that need no file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fourways_runtime.scoring.columns import Array
from fourways_runtime.scoring.model.base import Tensor


class Function:
    """A model that is a function of its tensors; it keeps what it was last asked."""

    def __init__(
        self,
        inputs: tuple[Tensor, ...],
        outputs: tuple[Tensor, ...],
        answer: Callable[[Mapping[str, Array]], dict[str, Any]],
    ) -> None:
        self.inputs, self.outputs, self._answer = inputs, outputs, answer
        self.asked: dict[str, Array] = {}

    def predict(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        self.asked = dict(tensors)
        return self._answer(tensors)
