"""Converts a model's tensors to the contract's outputs: selects, casts and checks ranges.

The tensor of each output is chosen once, when a contract is bound to a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fourways_api import OutputField
from fourways_runtime.errors import ContractMismatch

from .checks import out_of_range, within
from .columns import Array
from .inputs import TEXT_TYPES, described, fitted, listed, name_shown, names_shown
from .model.base import Tensor
from .values import Faults, by_record, no_values, numbers, numpy_type, shown

TOP = ("TopK", "TopKMax")


@dataclass(frozen=True, slots=True)
class Reading:
    """One output of the contract and the tensor it is read from."""

    field: OutputField
    tensor: str

    def read(self, answers: Mapping[str, Array], records: int) -> tuple[Array, Faults]:
        """Return the outputs (records, *shape) in the contract's type, and faults by record.

        Raises:
            ContractMismatch: the tensor is absent, or its shape or type does not fit.

        """
        field = self.field
        if not records:
            return no_values(field), {}
        if self.tensor not in answers:
            raise ContractMismatch(_absent(field, self.tensor, names_shown(tuple(answers))))
        raw = np.asarray(answers[self.tensor])
        if raw.ndim == 0 or len(raw) != records:
            raise ContractMismatch(
                f"the model answered {records} records with {name_shown(self.tensor)} of shape "
                f"{list(raw.shape)}; its first dimension must be the batch"
            )
        if field.type in ("float32", "float64"):
            plain = self._plain(raw, records)
            if plain is not None:
                return plain, {}
        faults: Faults = {}
        if field.reduce is not None and raw.ndim > 1:
            faults |= by_record(_not_finite(raw.reshape(-1)), raw.shape[1:])
        values = self._picked(raw)
        if field.threshold is not None:
            if values.dtype.kind not in "iufb":
                raise ContractMismatch(_untyped(field, "text"))
            faults |= by_record(_not_finite(values.reshape(-1)), values.shape[1:])
            values = values >= field.threshold
        target = _target(values.shape[1:], field.shape)
        if target is None:
            raise ContractMismatch(_misfit(field, self.tensor, list(raw.shape)))
        flat, wrong = self._typed(values.reshape(-1))
        wrong = out_of_range(flat, field.range) | wrong
        return flat.reshape(records, *target), by_record(wrong, target) | faults

    def _plain(self, raw: Array, records: int) -> Array | None:
        """Return outputs that need no further check, as most do; None for others."""
        field = self.field
        if field.shape or field.reduce is not None or raw.dtype != field.type:
            return None
        if field.column is None:
            if raw.size != records:
                return None
            flat = raw.reshape(-1)
        elif raw.ndim == 2 and field.column < raw.shape[1]:
            flat = raw[:, field.column]
        else:
            return None
        return flat if within(flat, field.range) else None

    def _picked(self, raw: Array) -> Array:
        if self.field.column is None and self.field.reduce is None:
            return raw
        if raw.ndim < 2 or (self.field.column or 0) >= raw.shape[-1]:
            raise ContractMismatch(_misfit(self.field, self.tensor, list(raw.shape)))
        if self.field.reduce is not None and raw.dtype.kind not in "biuf":
            raise ContractMismatch(_untyped(self.field, "text"))
        if self.field.column is not None:
            return raw[..., self.field.column]
        if self.field.reduce in TOP:
            return self._top(raw)
        reduced: Array = raw.argmax(axis=-1) if self.field.reduce == "ArgMax" else raw.max(axis=-1)
        return reduced

    def _top(self, raw: Array) -> Array:
        """Return the greatest values along the last axis, or their indices; ties by index."""
        count = self.field.shape[-1]
        if raw.shape[-1] < count:
            raise ContractMismatch(_misfit(self.field, self.tensor, list(raw.shape)))
        # From the end, so that the first of equal values comes first once the order is reversed.
        backwards = np.argsort(raw[..., ::-1], axis=-1, kind="stable")
        order: Array = (raw.shape[-1] - 1 - backwards)[..., ::-1][..., :count]
        if self.field.reduce == "TopK":
            return order
        found: Array = np.take_along_axis(raw, order, axis=-1)
        return found

    def _typed(self, flat: Array) -> tuple[Array, Faults]:
        """Cast outputs (M,) to the contract's type; a value that cannot be cast is a fault."""
        if flat.dtype.kind in "OUS":
            return self._text(flat)
        if self.field.categories is not None:
            return _labels(flat, self.field.categories)
        if self.field.type == "string":
            raise ContractMismatch(_untyped(self.field, str(flat.dtype)))
        faults = _not_finite(flat)
        to = numpy_type(self.field.type)
        if to.kind == "b":
            truth = flat.astype(bool)
            for at in np.flatnonzero(truth != flat).tolist():
                faults.setdefault(at, f"{shown(flat[at])} is not true or false")
            return truth, faults
        if flat.dtype == to:
            return flat, faults
        cast, more = numbers(to, flat.astype(np.uint8) if flat.dtype.kind == "b" else flat)
        return cast, more | faults

    def _text(self, flat: Array) -> tuple[Array, Faults]:
        if self.field.type != "string":
            raise ContractMismatch(_untyped(self.field, "text"))
        allowed = None if self.field.categories is None else frozenset(self.field.categories)
        faults: Faults = {}
        texts = flat.astype(object)
        for at, text in enumerate(texts):
            if isinstance(text, bytes):
                text = texts[at] = text.decode(errors="replace")
            if not isinstance(text, str):
                faults[at] = f"{shown(text)} is not text"
            elif allowed is not None and text not in allowed:
                faults[at] = f"{shown(text)} is not one of {len(allowed)} labels"
            elif "\0" in text or (not text.isprintable() and not _encodes(text)):
                faults[at] = "is text that a database cannot store"
        return texts, faults


def bind_outputs(fields: Sequence[OutputField], tensors: Sequence[Tensor]) -> tuple[Reading, ...]:
    """Choose the tensor of each output, and check what the model declares about it.

    Raises:
        ContractMismatch: naming both sides.

    """
    by_name = {tensor.name: tensor for tensor in tensors}
    readings = []
    for field in fields:
        reading = Reading(field, field.tensor or field.name)
        if tensors:
            if reading.tensor not in by_name:
                raise ContractMismatch(_absent(field, reading.tensor, listed(tensors)))
            _check_output(field, by_name[reading.tensor])
        readings.append(reading)
    return tuple(readings)


def _check_output(field: OutputField, tensor: Tensor) -> None:
    if tensor.unreadable:
        raise ContractMismatch(f"output {field.name}: {tensor.unreadable}")
    if tensor.type:
        textual = tensor.type in TEXT_TYPES
        if (textual and (field.type != "string" or field.reduce is not None)) or (
            not textual and field.type == "string" and field.categories is None
        ):
            raise ContractMismatch(_untyped(field, described(tensor)))
    if not tensor.shape:
        return
    sizes = tensor.shape[1:]
    if field.column is not None or field.reduce is not None:
        width = sizes[-1] if sizes else 0
        if width is not None and (field.column or 0) >= width:
            raise ContractMismatch(_misfit(field, tensor.name, described(tensor)))
        labels = field.categories
        indexed = field.reduce in ("ArgMax", "TopK")
        if width is not None and indexed and labels and len(labels) != width:
            raise ContractMismatch(
                f"output {field.name}: {len(labels):,} labels for the {width:,} classes of tensor "
                f"{tensor.name}; give one label for each class, in the model's order"
            )
        if field.reduce in TOP and width is not None and width < field.shape[-1]:
            raise ContractMismatch(_misfit(field, tensor.name, described(tensor)))
        sizes = (*sizes[:-1], *(field.shape[-1:] if field.reduce in TOP else ()))
    if not _may_fit(sizes, field.shape):
        raise ContractMismatch(_misfit(field, tensor.name, described(tensor)))


def _target(sizes: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the shape of records whose values have these sizes; None if it is not the field's."""
    if -1 not in shape:
        return fitted(sizes, shape)
    return sizes if _may_be(sizes, shape) else None


def _may_be(sizes: tuple[int | None, ...], shape: tuple[int, ...]) -> bool:
    return len(sizes) == len(shape) and all(
        wanted == -1 or size in (None, wanted) for size, wanted in zip(sizes, shape, strict=True)
    )


def _may_fit(sizes: tuple[int | None, ...], shape: tuple[int, ...]) -> bool:
    if -1 in shape:
        return _may_be(sizes, shape)
    known = [size for size in sizes if size not in (None, 1)]
    return None in sizes or known == [size for size in shape if size != 1]


def _labels(flat: Array, categories: tuple[str, ...]) -> tuple[Array, Faults]:
    labels = np.array([*categories, ""], dtype=object)
    index, faults = numbers(np.dtype(np.int64), flat.astype(np.float64))
    faults |= _not_finite(flat)
    outside = (index < 0) | (index >= len(categories))
    for at in np.flatnonzero(outside).tolist():
        faults.setdefault(at, f"{shown(flat[at])} is not an index of {len(categories)} labels")
    return labels[np.where(outside, len(categories), index)], faults


def _not_finite(flat: Array) -> Faults:
    if flat.dtype.kind != "f" or np.isfinite(flat).all():
        return {}
    return {
        int(at): f"the model answered {'NaN' if math.isnan(flat[at]) else shown(flat[at])}"
        for at in np.flatnonzero(~np.isfinite(flat))
    }


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _absent(field: OutputField, tensor: str, theirs: str) -> str:
    return (
        f"output {field.name} is read from {name_shown(tensor)}, the model answers {theirs}; "
        "set tensor to one of them"
    )


def _misfit(field: OutputField, tensor: str, was: object) -> str:
    return (
        f"output {field.name} has shape {list(field.shape)}, "
        f"the model's {name_shown(tensor)} is {was}; "
        "set column or reduce to pick from it, or give the output its shape"
    )


def _untyped(field: OutputField, was: str) -> str:
    fix = (
        "set categories to label it, or change the type"
        if field.type == "string"
        else ("set type to string" if field.reduce is None else "remove reduce")
    )
    return f"output {field.name} is {field.type}, the model answers {was}; {fix}"
