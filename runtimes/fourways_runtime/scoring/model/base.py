"""The small interface that every kind of model implements."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

from ..columns import Array


@dataclass(frozen=True, slots=True)
class Tensor:
    """A model's input or output: numpy type name and shape, None for a variable dimension.

    The first dimension is the batch. An empty shape or type means that the model does not declare
    it.
    """

    name: str
    type: str
    shape: tuple[int | None, ...]

    columns: tuple[str, ...] = ()
    """The names of a matrix's columns, in the model's order; empty if the model has none."""

    unreadable: str = ""
    """Why no output of a contract can be read from this tensor, with the fix."""


class Model(Protocol):
    """A loaded model. ``predict`` is thread-safe.

    A model of format python may not declare its tensors: then ``inputs`` or ``outputs`` is empty.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def predict(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """Score a batch: inputs by name, each (N, …); outputs by name, each (N, …).

        A tensor of type ``string`` is an object array of str. Raises ModelError when the model
        fails on these inputs, ContractMismatch when they are not the ones it takes.
        """
        ...


@runtime_checkable
class SelectiveModel(Model, Protocol):
    """A model that can compute a subset of its outputs."""

    def answering(self, outputs: Collection[str]) -> Self:
        """Return the same model with a ``predict`` that returns only the outputs of these names."""
        ...
