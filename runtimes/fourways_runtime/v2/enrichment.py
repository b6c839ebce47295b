"""Completes requests that leave inputs out, from the feature database by entity key.

Owns the choice of a value (the database's, otherwise the input's default, otherwise it is missing)
and the error if that refuses a request. Looked-up values are checked against the contract like a
request's own. A request with all its inputs never comes here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from math import prod
from typing import Any

from fourways_api import Contract, InputField
from fourways_api.modes import FeatureDefault, FeatureLookup
from fourways_runtime.errors import ConfigError, FeaturesUnavailable
from fourways_runtime.scoring import ragged, tensors
from fourways_runtime.scoring.columns import Array, Key
from fourways_runtime.scoring.features import FeatureReader, Row
from fourways_runtime.scoring.literals import from_json
from fourways_runtime.scoring.times import in_utc, is_time
from fourways_runtime.scoring.values import Faults, by_record, shown

from .faults import FeatureFault
from .request import InferenceRequest

_MISSING = "missing: "
LOOKED_UP = "looked up"
DEFAULTS = "defaults"


def covered(features: FeatureLookup | None, contract: Contract) -> tuple[str, ...]:
    """Return the inputs a request may leave out.

    Raises:
        ConfigError: one of them is not an input of the contract.

    """
    if features is None:
        return ()
    names = tuple(field.name for field in contract.flat_inputs)
    filled = (*features.inputs, *(default.name for default in features.defaults))
    unknown = [name for name in filled if name not in names]
    if unknown:
        raise ConfigError(f"features: {unknown[0]} is not an input of the contract")
    return features.inputs or names


class FeatureEnricher:
    """Fills in the inputs that requests leave out."""

    def __init__(self, contract: Contract, features: FeatureLookup, reader: FeatureReader) -> None:
        """Convert the defaults. Raises ConfigError if one is not of its input's type."""
        self._fields = {field.name: field for field in contract.flat_inputs}
        self._reader = reader
        self._fail = features.on_timeout == "Fail"
        self._as_of = features.as_of
        self._defaults = {
            default.name: _default(default, self._fields[default.name])
            for default in features.defaults
        }

    async def close(self) -> None:
        """Close the connection to the database."""
        await self._reader.close()

    async def complete(self, inference: InferenceRequest) -> InferenceRequest:
        """Return the request with all its inputs; if it is partial, without the rows that fail.

        Raises:
            HttpError: 400 if the database has nothing for a key.
            FeatureFault: the database has a value that the contract does not allow (502), or does
                not answer and ``onTimeout`` is ``Fail`` (503).

        """
        keys: list[Key] = inference.keys or []
        found: Mapping[Key, Row] = {}
        source = LOOKED_UP
        try:
            found = await self._reader.fetch(keys)
        except FeaturesUnavailable as error:
            if self._fail:
                # The error's own message may name hosts, so it only goes to the log.
                text = "the feature database did not respond in time: try again"
                raise FeatureFault(text, {}, 503) from error
            source = DEFAULTS
        rows = [found.get(key, _NOTHING) for key in keys]
        columns = dict(inference.columns)
        bad: dict[int, tuple[str, str]] = {}
        for name in inference.missing:
            columns[name], faults = self._column(self._fields[name], rows)
            for row, reason in faults.items():
                bad.setdefault(row, (name, self._described(reason, keys[row])))
        as_of = self._times(rows, keys, bad) if found and self._as_of else None
        complete = replace(
            inference,
            columns=columns,
            missing=(),
            features=source,
            features_as_of=as_of,
            looked_up=inference.missing,
        )
        if bad:
            wrong = [(row, *bad[row]) for row in sorted(bad)]
            if inference.partial and len(bad) < inference.rows:
                return complete.without(wrong)
            wrong = [(inference.position(row), name, reason) for row, name, reason in wrong]
            if any(reason.startswith(_MISSING) for _, _, reason in wrong):
                raise inference.refuse(wrong)  # the database does not know the client's keys
            raise FeatureFault(*inference.described(wrong))
        return complete

    def _column(self, field: InputField, rows: Sequence[Row]) -> tuple[Array, Faults]:
        """Return the input's values (rows, *shape) and faults by row."""
        default = self._defaults.get(field.name)
        values = [row.get(field.name) for row in rows]
        values = [default if value is None or value != value else value for value in values]
        if field.is_free:
            return ragged.from_values(field, values)
        faults: Faults = {}
        if field.shape:
            values = self._flattened(field, values, faults)
        elif field.type == "string" and not field.nullable:
            faults = {at: "missing" for at, value in enumerate(values) if value is None}
        shape = (len(rows), *field.shape)
        column, wrong = tensors.from_json(field.type, field.nullable, values, shape, plain=False)
        return column.reshape(shape), by_record(wrong, field.shape) | faults

    def _times(
        self, rows: Sequence[Row], keys: Sequence[Key], bad: dict[int, tuple[str, str]]
    ) -> tuple[str | None, ...] | None:
        """Return since when each row holds; add the rows whose time cannot be read to ``bad``."""
        column = self._as_of or ""
        times: list[str | None] = []
        for at, row in enumerate(rows):
            value = row.get(column)
            try:
                times.append(None if value is None else in_utc(str(value)))
            except ValueError as error:
                times.append(None)
                bad.setdefault(at, (column, self._described(str(error), keys[at])))
        return tuple(times) if any(times) else None

    @staticmethod
    def _flattened(field: InputField, values: list[Any], faults: Faults) -> list[Any]:
        size = prod(field.shape)
        flat: list[Any] = []
        for row, value in enumerate(values):
            elements = [value] * size if value is None or type(value) is not list else value
            for inner in field.shape[1:]:
                if all(type(each) is list and len(each) == inner for each in elements):
                    elements = list(chain.from_iterable(elements))
            if len(elements) != size or list in map(type, elements):
                faults[row] = f"{len(elements)} elements, shape {list(field.shape)} was expected"
                elements = [0] * size
            flat += elements
        return flat

    @staticmethod
    def _described(reason: str, key: Key) -> str:
        where = f"the feature database, key {shown(key)}"
        return f"{_MISSING}not in {where}" if reason.endswith("missing") else f"{reason} ({where})"


_NOTHING: Row = {}


def _default(default: FeatureDefault, field: InputField) -> Any:
    textual = field.type in ("string", "bytes") or is_time(field.type)
    value: Any = default.text if textual else default.number
    if value is None:
        kind = "text" if textual else "number"
        raise ConfigError(f"features: the default of {field.name} must be a {kind}: {field.type}")
    if textual:
        _, fault = from_json(field.type, value)
        if fault is not None:
            raise ConfigError(f"features: the default of {field.name}: {fault}")
    if field.type == "bool":
        if value not in (0, 1):
            raise ConfigError(f"features: the default of {field.name} must be 0 or 1: bool")
        return bool(value)
    return value
