"""Several requests as one batch through the pipeline, and each request's part of what comes out.

Owns that requests share a batch and nothing else: bad rows refuse their own request, and where the
model fails on a batch each request is scored alone. Pure: no clock, no event loop.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from fourways_api import Contract, EntityKey, InputField

from ..errors import ContractMismatch
from ..http import HttpError
from ..model.base import Model
from ..pipeline import Pipeline
from ..records import Array, Columns, Scored
from .question import BadRow, Question


@dataclass(frozen=True, slots=True)
class Part:
    """One request's answers: rows ``start`` to ``stop`` of a batch's outputs (N, *shape)."""

    columns: Columns
    start: int
    stop: int


Outcome = Part | Exception
"""A request's answers, or the error it is to be answered with."""


class Scorer:
    """The pipeline as requests use it. Records are known by their position in a batch."""

    def __init__(self, contract: Contract, model: Model, max_rows: int) -> None:
        """Bind them. Raises ContractMismatch as the pipeline does."""
        # Answers go back by position, so that requests need no keys; they are checked where read.
        key = EntityKey(name=contract.entity_key.name, type="int64")
        contract = contract.model_copy(update={"entity_key": key})
        self._pipeline = Pipeline(contract, model)
        self._wide = Wide.of(contract, model)
        self._names = [field.name for field in contract.inputs]
        self._positions = np.arange(max_rows)

    def score(self, questions: Sequence[Question]) -> list[Outcome]:
        """Answer each question, together where that works; never raises."""
        try:
            return self._together(questions)
        except Exception as error:  # noqa: BLE001  (whose fault it is shows when each is alone)
            if len(questions) == 1:
                return [error]
        return [self.score([question])[0] for question in questions]

    def run(self, columns: Columns, rows: int) -> Scored:
        """Score columns (rows, *shape of the field). Raises as the pipeline does."""
        return self._pipeline.score_columns(self._positions[:rows], columns)

    def _together(self, questions: Sequence[Question]) -> list[Outcome]:
        ends = list(accumulate(question.rows for question in questions))
        scored = self._scored(questions, ends[-1])
        answers = scored.predictions
        outputs = {name: np.ascontiguousarray(values) for name, values in answers.columns.items()}
        if not scored.rejects:
            starts = [0, *ends]
            return [Part(outputs, starts[i], end) for i, end in enumerate(ends)]
        bad: dict[int, list[BadRow]] = {}
        for reject in sorted(scored.rejects, key=lambda reject: reject.row):
            at = bisect_right(ends, reject.row)
            row = reject.row - (ends[at] - questions[at].rows)
            bad.setdefault(at, []).append((row, reject.field, reject.reason))
        stops = np.searchsorted(answers.rows, ends).tolist()
        return [
            question.refuse(bad[at])
            if at in bad
            else Part(outputs, stops[at] - question.rows, stops[at])
            for at, question in enumerate(questions)
        ]

    def _scored(self, questions: Sequence[Question], rows: int) -> Scored:
        if self._wide is not None:
            blocks = [self._block(question) for question in questions]
            block = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
            scored = self._wide.score(block, self._positions[:rows])
            if scored is not None:
                return scored
        return self.run(self._columns(questions), rows)

    def _block(self, question: Question) -> Array:
        if question.block is not None:
            return question.block
        return np.stack([question.columns[name] for name in self._names], axis=1)

    def _columns(self, questions: Sequence[Question]) -> dict[str, Array]:
        names = self._names
        blocks = [question.block for question in questions if question.block is not None]
        if len(blocks) == len(questions):
            return _split(names, blocks[0] if len(blocks) == 1 else np.concatenate(blocks))
        parts = [q.columns if q.block is None else _split(names, q.block) for q in questions]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in names}


class Wide:
    """The same pipeline with the contract's inputs as one field: a matrix instead of columns.

    Good records of a wide table pass several times faster. Whatever is not plainly good is left to
    the contract itself, which has the words for it.
    """

    def __init__(self, pipeline: Pipeline, name: str, low: Array, high: Array) -> None:
        self._pipeline = pipeline
        self._name = name
        self._low, self._high = low, high
        self._bounded = bool(np.isfinite(low).any() or np.isfinite(high).any())

    @classmethod
    def of(cls, contract: Contract, model: Model) -> Wide | None:
        """Bind it, where all inputs are single floats of one type and feed one tensor."""
        fields = contract.inputs
        kinds = {field.type for field in fields}
        if kinds not in ({"float32"}, {"float64"}) or any(field.shape for field in fields):
            return None
        if len(model.inputs) != 1:
            return None
        tensor = model.inputs[0].name
        wide = InputField(name="input", type=fields[0].type, shape=(len(fields),), tensor=tensor)
        try:
            pipeline = Pipeline(contract.model_copy(update={"inputs": (wide,)}), model)
        except ContractMismatch:
            return None
        low, high = [], []
        for field in fields:
            bounds = field.range
            low.append(-np.inf if bounds is None or bounds.min is None else bounds.min)
            high.append(np.inf if bounds is None or bounds.max is None else bounds.max)
        kind = np.dtype(fields[0].type)
        return cls(pipeline, wide.name, np.array(low, kind), np.array(high, kind))

    def score(self, block: Array, positions: Array) -> Scored | None:
        """Score rows (N, inputs), or return None where one of them may not be good."""
        if self._bounded and ((block < self._low) | (block > self._high)).any():
            return None
        scored = self._pipeline.score_columns(positions, {self._name: block})
        return None if scored.rejects else scored


def _split(names: Sequence[str], block: Array) -> dict[str, Array]:
    return {name: block[:, at] for at, name in enumerate(names)}


def overloaded(text: str) -> HttpError:
    """Return the 503 that asks to come again."""
    return HttpError(503, text, (b"retry-after: 1",))
