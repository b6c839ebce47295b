"""Events as the pipeline scores them: JSON objects become columns, and refusals get their words.

A table of plain floats, which most are, goes through as one matrix. Whatever is not plainly good is
left to the contract field by field, which has the words for it. An event's key stands under the
entity key's name, else it is the broker's. Pure: no clock, no broker, no store.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from fourways_api import Contract, InputField
from fourways_runtime.io.brokers.source import Events
from fourways_runtime.scoring.cells import numpy_type
from fourways_runtime.scoring.columns import Array, Predictions
from fourways_runtime.scoring.dense import DenseBatch, packer
from fourways_runtime.scoring.json_cells import json_column
from fourways_runtime.scoring.literals import json_object
from fourways_runtime.scoring.model.base import Model
from fourways_runtime.scoring.pipeline import Pipeline

Refusals = dict[int, str]
"""Why, by the event's index."""

_PLAIN_KEY = 256
"""A text of so many characters is a key of any length allowed."""

_EXACT = 2.0**24
"""Whole numbers up to this are exact in every float."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What events came to: ``rows`` of the predictions, and the refusals, are by index."""

    predictions: Predictions
    refusals: Refusals


def _are_numbers(cells: list[Any], block: Array) -> bool:
    """Tell whether cells are the floats (N,) they were packed as.

    True and false pass for 1 and 0 there, and large whole numbers are rounded: only who may be such
    is looked at.
    """
    large = np.abs(block) > _EXACT
    odd = large | (block == 0) | (block == 1)
    if bool in {type(cells[at]) for at in np.flatnonzero(odd).tolist()}:
        return False
    return int not in {type(cells[at]) for at in np.flatnonzero(large).tolist()}


class Scorer:
    """A contract bound to a model, for events."""

    def __init__(
        self, contract: Contract, model: Model, pipeline: Pipeline, max_events: int
    ) -> None:
        self._pipeline = pipeline
        self._key = contract.entity_key
        self._fields = contract.inputs
        self._outputs = contract.outputs
        self._wide = DenseBatch.of(contract, model, max_events)
        self._type = np.dtype(contract.inputs[0].type) if self._wide else np.dtype(object)
        names = [field.name for field in contract.inputs]
        self._pick: Callable[[Any], Sequence[Any]] = itemgetter(*names)
        if len(names) == 1:
            self._pick = lambda document: (document[names[0]],)

    def score(self, events: Events) -> Outcome:
        """Score events. Raises what the model raises: whose fault it is shows one by one."""
        if self._wide is not None:
            outcome = self._plainly(events)
            if outcome is not None:
                return outcome
        return self._field_by_field(events)

    def nothing(self) -> Predictions:
        """Return the answer to no events."""
        return Predictions(
            np.empty(0, numpy_type(self._key.type)),
            np.empty(0, np.int64),
            {f.name: np.empty((0, *f.shape), numpy_type(f.type)) for f in self._outputs},
        )

    def _plainly(self, events: Events) -> Outcome | None:
        """Score floats as one matrix; None where an event may not be plainly good."""
        assert self._wide is not None  # noqa: S101
        count = len(events)
        try:
            documents = list(map(orjson.loads, events.values))  # type: ignore[arg-type]
            cells = list(chain.from_iterable(map(self._pick, documents)))
            # Twice as fast as numpy is with Python's numbers; anything else is an error here.
            block = np.frombuffer(packer(len(cells), "d")(*cells), "<f8")
            keys = self._plain_keys(documents, events)
        except (ValueError, TypeError, KeyError, OverflowError, struct.error):
            return None
        if keys is None or not _are_numbers(cells, block):
            return None
        block = block.reshape(count, -1)
        with np.errstate(over="ignore"):
            block = block.astype(self._type, copy=False)
        columns = self._wide.answers(block)
        if columns is None:
            return None
        return Outcome(Predictions(keys, np.arange(count), columns), {})

    def _plain_keys(self, documents: list[Any], events: Events) -> Array | None:
        name = self._key.name
        keys = [document.get(name) for document in documents]
        if None in keys:
            keys = [
                _brokers(key) if own is None else own
                for own, key in zip(keys, events.keys, strict=True)
            ]
        found = set(map(type, keys))
        if self._key.type == "int64":
            return np.array(keys, np.int64) if found == {int} else None
        if found != {str}:
            return None
        lengths = set(map(len, keys))
        if min(lengths) < 1 or max(lengths) > _PLAIN_KEY or not "".join(keys).isprintable():
            return None
        plain = np.empty(len(keys), object)
        plain[:] = keys
        return plain

    def _field_by_field(self, events: Events) -> Outcome:
        documents: list[tuple[int, dict[str, Any]]] = []
        refusals: Refusals = {}
        for at, value in enumerate(events.values):
            document, fault = json_object(value or b"")
            if document is None:
                refusals[at] = f"event: {fault}"
                continue
            documents.append((at, self._keyed(document, events.keys[at])))
        return self._scored(documents, refusals)

    def _keyed(self, document: dict[str, Any], brokers: bytes | None) -> dict[str, Any]:
        name = self._key.name
        if document.get(name) is None:
            key = _brokers(brokers)
            whole = self._key.type == "int64" and key is not None and _is_whole(key)
            document[name] = int(key) if whole and key is not None else key
        return document

    def _scored(self, documents: list[tuple[int, dict[str, Any]]], refusals: Refusals) -> Outcome:
        if not documents:
            return Outcome(self.nothing(), refusals)
        fields = (InputField(name=self._key.name, type=self._key.type), *self._fields)
        columns: dict[str, Any] = {
            field.name: json_column(
                field.type,
                len(field.shape),
                [document.get(field.name) for _, document in documents],
            )
            for field in fields
        }
        rows = np.fromiter((at for at, _ in documents), np.int64, len(documents))
        scored = self._pipeline.score(pa.RecordBatch.from_pydict(columns), rows)
        known = refusals | {reject.row: str(reject) for reject in scored.rejects}
        return Outcome(scored.predictions, known)


def _brokers(key: bytes | None) -> str | None:
    if key is None:
        return None
    try:
        return key.decode()
    except UnicodeDecodeError:
        return None


def _is_whole(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) <= 18
