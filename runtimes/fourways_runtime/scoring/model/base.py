"""The small interface every kind of model answers to."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

from ..columns import Array


@dataclass(frozen=True, slots=True)
class Tensor:
    """A model's input or output: numpy type name and shape, None where the size is free.

    The first dimension is the batch. An empty shape means the model does not say, and so does an
    empty type.
    """

    name: str
    type: str
    shape: tuple[int | None, ...]

    columns: tuple[str, ...] = ()
    """The names of a matrix's columns, in the model's order; empty where it keeps none."""

    unreadable: str = ""
    """Why no output of a contract can be read from this one, with the fix."""


class Model(Protocol):
    """A loaded model. ``predict`` is safe to call from several threads.

    A model of format python may not say what it reads and writes: then ``inputs`` or ``outputs``
    is empty.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def predict(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """Answer a batch: inputs by name, each (N, …); outputs by name, each (N, …).

        A tensor of type ``string`` is an object array of str. Raises ModelError when the model
        fails on these inputs, ContractMismatch when they are not the ones it reads.
        """
        ...


@runtime_checkable
class SelectiveModel(Model, Protocol):
    """A model that can be asked for some of its outputs only."""

    def answering(self, outputs: Collection[str]) -> Self:
        """Return the same model, whose ``predict`` returns only the outputs of these names."""
        ...
