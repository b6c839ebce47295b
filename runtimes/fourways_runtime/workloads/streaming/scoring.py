"""Convert events for the pipeline: JSON objects become columns, and rejected events get a reason.

Most contracts have only scalar float inputs; their events are scored as one matrix. If any event
may be invalid, the contract checks the batch field by field and words the reasons. An event's key
is the value under the entity key's name, or else the broker's key. An event without a value is a
tombstone, as in compacted topics: it deletes the prediction of its key. Pure: no clock, no broker,
no store.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from fourways_api import Contract
from fourways_runtime.io.brokers.source import Events
from fourways_runtime.io.store.streams.stream import QuestionAnswer
from fourways_runtime.scoring.checks import text_key_faults
from fourways_runtime.scoring.columns import Array, Key, Predictions
from fourways_runtime.scoring.dense import DenseBatch, packer
from fourways_runtime.scoring.event_keys import broker_key, broker_text, put_broker_key
from fourways_runtime.scoring.exact_json import BEYOND
from fourways_runtime.scoring.json_cells import json_column
from fourways_runtime.scoring.literals import json_object
from fourways_runtime.scoring.live_profile import LiveProfile
from fourways_runtime.scoring.model.base import Model
from fourways_runtime.scoring.pipeline import Pipeline
from fourways_runtime.scoring.table_pipeline import TablePipeline
from fourways_runtime.scoring.values import no_values, numpy_type

Refusals = dict[int, str]
"""The reason for each rejected event, by its index."""

_PLAIN_KEY = 256
"""A text key of up to this many characters is always within the allowed length."""

_EXACT = 2.0**24
"""Whole numbers up to this are exact in every float type."""


@dataclass(frozen=True, slots=True)
class ScoredEvents:
    """The results of events; ``predictions.rows`` and ``refusals`` refer to events by index."""

    predictions: Predictions
    refusals: Refusals
    deleted: tuple[Key, ...] = ()
    """Tombstones' keys, whose stored predictions are to be deleted; none is in ``predictions``."""


def _are_numbers(cells: list[Any], block: Array) -> bool:
    """Tell whether cells are equal to the floats (N,) they were packed as.

    Packing turns true and false into 1 and 0 and rounds large whole numbers, so only the cells that
    may be such values are inspected.
    """
    large = np.abs(block) > _EXACT
    odd = large | (block == 0) | (block == 1)
    if bool in {type(cells[at]) for at in np.flatnonzero(odd).tolist()}:
        return False
    return int not in {type(cells[at]) for at in np.flatnonzero(large).tolist()}


def answers_by_question(
    asked: Mapping[int, bytes], predictions: Predictions
) -> list[QuestionAnswer]:
    """Return the predictions that answer requests; ``asked`` are the digests by event's index.

    Of two events for one request, the later counts.
    """
    if not asked:
        return []
    found = {}
    for at, row in enumerate(predictions.rows.tolist()):
        question = asked.get(row)
        if question is not None:
            outputs = {name: _plain(column[at]) for name, column in predictions.columns.items()}
            text = orjson.dumps(outputs).decode()
            found[question] = QuestionAnswer(question, str(predictions.keys[at]), text)
    return list(found.values())


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


class EventScorer:
    """A contract bound to a model, for events."""

    def __init__(
        self, contract: Contract, model: Model, pipeline: Pipeline, max_events: int
    ) -> None:
        self._pipeline = TablePipeline(pipeline)
        self._key = contract.entity_key
        self._columns = [
            (self._key.name, self._key.type, 0),
            *((field.name, field.type, len(field.shape)) for field in contract.flat_inputs),
        ]
        self._outputs = contract.outputs
        self._wide = DenseBatch.of(contract, model, max_events)
        self._type = np.dtype(contract.flat_inputs[0].type) if self._wide else np.dtype(object)
        names = [field.name for field in contract.flat_inputs]
        self.profile: LiveProfile | None = None
        """Counts what is scored, if records are compared with a training profile."""

        self._pick: Callable[[Any], Sequence[Any]] = itemgetter(*names)
        if len(names) == 1:
            self._pick = lambda document: (document[names[0]],)

    def score(self, events: Events) -> ScoredEvents:
        """Score events. Raises the model's error; scoring one by one finds the cause."""
        if self._wide is not None:
            outcome = self._plainly(events)
            if outcome is not None:
                return outcome
        return self._field_by_field(events)

    def nothing(self) -> Predictions:
        """Return empty predictions."""
        return Predictions(
            np.empty(0, numpy_type(self._key.type)),
            np.empty(0, np.int64),
            {f.name: no_values(f) for f in self._outputs},
        )

    def _plainly(self, events: Events) -> ScoredEvents | None:
        """Score floats as one matrix; return None if an event may need closer checks."""
        assert self._wide is not None  # noqa: S101
        count = len(events)
        try:
            documents = list(map(orjson.loads, events.values))  # type: ignore[arg-type]
            cells = list(chain.from_iterable(map(self._pick, documents)))
            # Twice as fast as numpy with Python numbers; anything else raises an error here.
            block = np.frombuffer(packer(len(cells), "d")(*cells), "<f8")
            keys = self._plain_keys(documents, events)
        except (ValueError, TypeError, KeyError, OverflowError, struct.error):
            return None
        if keys is None or not _are_numbers(cells, block) or np.abs(block).max() >= BEYOND:
            return None
        block = block.reshape(count, -1)
        with np.errstate(over="ignore"):
            block = block.astype(self._type, copy=False)
        columns = self._wide.answers(block)
        if columns is None:
            return None
        if self.profile is not None:
            self.profile.note_rows(count, block, columns)
        return ScoredEvents(Predictions(keys, np.arange(count), columns), {})

    def _plain_keys(self, documents: list[Any], events: Events) -> Array | None:
        name = self._key.name
        keys = [document.get(name) for document in documents]
        if None in keys:
            keys = [
                broker_text(key) if own is None else own
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

    def _field_by_field(self, events: Events) -> ScoredEvents:
        documents: list[tuple[int, dict[str, Any]]] = []
        refusals: Refusals = {}
        tombstones: dict[Key, int] = {}
        for at, value in enumerate(events.values):
            if value is None:
                gone = self._tombstone_key(events.keys[at])
                if gone is None:
                    refusals[at] = f"{self._key.name}: a tombstone without a valid key"
                else:
                    tombstones[gone] = at
                continue
            document, fault = json_object(value)
            if document is None:
                refusals[at] = f"event: {fault}"
                continue
            put_broker_key(document, self._key, events.keys[at])
            key = document[self._key.name]
            if type(key) is int and not -(2**63) <= key < 2**63:
                refusals[at] = f"{self._key.name}: {key} does not fit int64"
                continue
            documents.append((at, document))
        scored = self._scored(documents, refusals)
        return _without_deleted(scored, tombstones) if tombstones else scored

    def _tombstone_key(self, brokers: bytes | None) -> Key | None:
        key = broker_key(self._key.type, brokers)
        if self._key.type == "int64":
            return key if type(key) is int and -(2**63) <= key < 2**63 else None
        return None if key is None or text_key_faults([str(key)]) else key

    def _scored(
        self, documents: list[tuple[int, dict[str, Any]]], refusals: Refusals
    ) -> ScoredEvents:
        if not documents:
            return ScoredEvents(self.nothing(), refusals)
        columns: dict[str, Any] = {
            name: json_column(kind, depth, [document.get(name) for _, document in documents])
            for name, kind, depth in self._columns
        }
        rows = np.fromiter((at for at, _ in documents), np.int64, len(documents))
        scored = self._pipeline.score(pa.RecordBatch.from_pydict(columns), rows)
        if self.profile is not None:
            found = scored.predictions.columns
            self.profile.note_columns(scored.inputs, found, len(scored.rejects))
        known = refusals | {reject.row: str(reject) for reject in scored.rejects}
        return ScoredEvents(scored.predictions, known)


def _without_deleted(scored: ScoredEvents, tombstones: dict[Key, int]) -> ScoredEvents:
    """Keep only the last event of each key: a tombstone (key: its index) or a prediction."""
    found = scored.predictions
    keys, rows = found.keys.tolist(), found.rows.tolist()
    last = [at for at, key in enumerate(keys) if rows[at] > tombstones.get(key, -1)]
    answered = {keys[at] for at in last}
    kept = np.array(last, np.int64)
    predictions = Predictions(
        found.keys[kept],
        found.rows[kept],
        {name: column[kept] for name, column in found.columns.items()},
    )
    deleted = tuple(key for key in tombstones if key not in answered)
    return ScoredEvents(predictions, scored.refusals, deleted)
