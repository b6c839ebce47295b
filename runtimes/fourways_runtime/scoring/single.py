"""Scores one record at a time: Python values in and out, through the one pipeline.

Devices score this way, so the build measures it. Rejects have the same messages as in every other
mode: they come from the pipeline and from the model server's parsing of tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fourways_api import Contract, InputField
from fourways_runtime.scoring.tensors import MalformedTensor, from_json

from . import ragged
from .checks import RecordChecker
from .columns import Array
from .model.base import Model
from .pipeline import Pipeline
from .values import nothing, numpy_type, shape_fault

if TYPE_CHECKING:
    from .live_profile import RecordNotes

_KEYS = np.zeros(1, np.int64)


class RecordRefused(ValueError):
    """A record that breaks the contract: the field and the reason."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class RecordScorer:
    """A model bound to its contract. As thread-safe as the model."""

    def __init__(self, contract: Contract, model: Model) -> None:
        """Bind them. Raises ContractMismatch."""
        # The outputs go straight back to the caller: a record needs no key.
        key = contract.entity_key.model_copy(update={"type": "int64"})
        self._fields = contract.flat_inputs
        self._pipeline = Pipeline(contract.model_copy(update={"entity_key": key}), model)
        self._blocks = {f.name: f.column_names for f in contract.inputs if f.columns}
        self._known = {field.name for field in contract.flat_inputs} | {contract.entity_key.name}
        self.profile: RecordNotes | None = None
        """Keeps what is scored, if records are compared with a training profile."""

    def ask(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the outputs for one record: by name, plain Python values.

        The entity key may be in the record; a nullable input may be omitted.

        Raises:
            RecordRefused: the record breaks the contract.
            ModelError: the model fails on it.

        """
        if not isinstance(record, Mapping):
            raise RecordRefused("record", "must be a mapping from names to values")
        for name, columns in self._blocks.items():
            if name in record:
                record = _spread(record, name, columns)
        if not record.keys() <= self._known:
            unknown = next(name for name in record if name not in self._known)
            raise RecordRefused(str(unknown)[:63], "is not an input of the contract")
        given = {field.name: _column(field, record) for field in self._fields}
        scored = self._pipeline.score_columns(_KEYS, given)
        if self.profile is not None:
            found = scored.predictions.columns
            self.profile.note_columns(scored.inputs, found, len(scored.rejects))
        if scored.rejects:
            raise RecordRefused(scored.rejects[0].field, scored.rejects[0].reason)
        answers = scored.predictions.columns
        return {name: _plain(values[0]) for name, values in answers.items()}


def _spread(record: Mapping[str, Any], name: str, columns: Sequence[str]) -> Mapping[str, Any]:
    """Return a record with the values of a block under the names of its columns."""
    values = _plain(record[name])
    if not isinstance(values, list | tuple) or len(values) != len(columns):
        raise RecordRefused(name, f"must be a list of {len(columns)} values, one for each column")
    rest = {other: value for other, value in record.items() if other != name}
    return rest | dict(zip(columns, values, strict=True))


class FieldChecks:
    """Tells of single values whether they satisfy a contract's inputs."""

    def __init__(self, contract: Contract) -> None:
        key = contract.entity_key.model_copy(update={"type": "int64"})
        self._fields = {
            field.name: (
                field,
                RecordChecker(contract.model_copy(update={"entity_key": key, "inputs": (field,)})),
            )
            for field in contract.flat_inputs
        }

    def hold(self, name: str, value: Any) -> bool:
        """Return whether a value satisfies the input of this name; False if there is none."""
        found = self._fields.get(name)
        if found is None:
            return False
        field, checker = found
        try:
            columns = {name: _column(field, {name: value})}
        except RecordRefused:
            return False
        return not checker.check(_KEYS, columns, np.arange(1))[1]


def _column(field: InputField, record: Mapping[str, Any]) -> Array:
    value = record.get(field.name)
    if value is None and field.name not in record and not field.nullable:
        raise RecordRefused(field.name, "missing: the contract requires this input")
    value = _plain(value)
    if field.shape and value is None:
        if not field.nullable or field.is_free:
            raise RecordRefused(field.name, "missing")
        return np.full((1, *field.shape), nothing(field), numpy_type(field.type))
    if field.is_free:
        values, wrong = ragged.from_values(field, [value])
        if wrong:
            raise RecordRefused(field.name, wrong[0])
        return values
    shape = (1, *field.shape)
    try:
        flat, faults = from_json(field.type, field.nullable, [value], shape, plain=False)
    except MalformedTensor as error:
        raise RecordRefused(field.name, shape_fault(field, value) or str(error)) from None
    if faults:
        raise RecordRefused(field.name, next(iter(faults.values())))
    return flat.reshape(shape)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
