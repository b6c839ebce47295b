"""Chooses the contract's outputs from what the model answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from fourways_api.display import displayed
from fourways_api.values import DataType
from fourways_runtime.scoring.columns import Array
from fourways_runtime.scoring.model.hints import Hints

from .errors import NoManifest
from .inputs import MAX_DIMENSIONS
from .names import field_names
from .probe import Answers

MAX_OUTPUTS = 64
_LABELS_WRITTEN = 100
_TYPES = frozenset(get_args(DataType))


@dataclass(slots=True)
class DraftOutput:
    """One output as it will be written."""

    name: str
    type: str
    shape: tuple[int, ...]
    tensor: str | None
    categories: tuple[str, ...] = ()
    comment: str = ""

    def spec(self) -> dict[str, Any]:
        """Return the field as in the manifest, without its comment."""
        said: dict[str, Any] = {"name": self.name, "type": self.type}
        if self.shape:
            said["shape"] = list(self.shape)
        if self.tensor is not None:
            said["tensor"] = self.tensor
        if self.categories:
            said["categories"] = list(self.categories)
        return said


def draft_outputs(
    answers: Answers, unreadable: dict[str, str], hints: Hints, taken: str
) -> tuple[list[DraftOutput], list[str]]:
    """Choose the outputs; return them, and what is left out and why.

    Raises:
        NoManifest: the model has no output that a contract can hold.

    """
    left_out = [f"{displayed(name, 80)}: {why}" for name, why in unreadable.items()]
    kept: list[tuple[str, Array]] = []
    for name, values in answers.tensors.items():
        fault = _fault(values, answers.records)
        if fault:
            left_out.append(f"{displayed(name, 80)}: {fault}")
        elif len(kept) == MAX_OUTPUTS:
            left_out.append(f"{displayed(name, 80)}: a contract has {MAX_OUTPUTS} outputs at most")
        else:
            kept.append((name, values))
    if not kept:
        raise NoManifest(f"the model has no output that can be served: {'; '.join(left_out)}")
    names = field_names([name for name, _ in kept], [taken])
    return [
        _output(name, tensor, values, hints, answers.free.get(tensor))
        for name, (tensor, values) in zip(names, kept, strict=True)
    ], left_out


def _fault(values: Array, records: int) -> str:
    if values.ndim == 0 or len(values) != records:
        return f"its shape {list(values.shape)} does not begin with the batch"
    if values.ndim - 1 > MAX_DIMENSIONS:
        return f"it has more than {MAX_DIMENSIONS} dimensions per record"
    if 0 in values.shape[1:]:
        return f"it has no elements for a record of these inputs: its shape is {list(values.shape)}"
    if _type(values) not in _TYPES:
        return f"its type {values.dtype} is none of the contract's"
    return ""


def _type(values: Array) -> str:
    if values.dtype.kind in "OUS":
        return "string"
    return "float32" if values.dtype.name == "float16" else values.dtype.name


def _output(
    name: str, tensor: str, values: Array, hints: Hints, free: tuple[int, ...] | None
) -> DraftOutput:
    shape = free or tuple(map(int, values.shape[1:]))
    shape = () if all(size == 1 for size in shape) else shape
    made = DraftOutput(name, _type(values), shape, None if name == tensor else tensor)
    if free:
        made.comment = "-1 follows the size of the input. Nothing can store such an output."
        return made
    labels = hints.labels
    if made.type == "string" and not shape and 0 < len(labels) <= _LABELS_WRITTEN:
        made.categories = labels
    elif len(shape) == 1 and shape[0] == len(labels):
        listed = ", ".join(f"{at} = {label}" for at, label in enumerate(labels[:20]))
        made.comment = f"One number per class: {listed}."
    if len(shape) == 1 and made.type.startswith("float"):
        made.comment += (
            f" For one of them alone, replace shape by column: {min(1, shape[0] - 1)}; for the"
            " index of the largest, by reduce: ArgMax (and type: int64)."
        )
    made.comment = made.comment.strip()
    return made
