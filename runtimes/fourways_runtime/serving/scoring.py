"""Several requests as one batch through the pipeline, and each request's part of what comes out.

Owns that requests share a batch and nothing else: bad rows refuse their own request, and where the
model fails on a batch each request is scored alone. Pure: no clock, no event loop.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from fourways_api import Contract, EntityKey, InputField

from ..errors import ContractMismatch
from ..http import HttpError
from ..model.base import Model
from ..pipeline import Pipeline
from ..records import Array, Columns, Scored
from .plainest import Plain
from .question import BadRow, Question


@dataclass(slots=True)
class Part:
    """One request's answers: rows ``start`` to ``stop`` of a batch's outputs (N, *shape)."""

    columns: Columns
    start: int
    stop: int
    texts: dict[str, list[bytes]]
    """Numbers of the batch's outputs as they were written, shared by its parts."""


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
        self._wide = Wide.of(contract, model, max_rows)
        self._names = [field.name for field in contract.inputs]
        self._positions = np.arange(max_rows)

    def score(self, asked: Sequence[Plain | Question]) -> list[Outcome]:
        """Answer each request, together where that works; never raises."""
        try:
            outcomes = self._plainly(asked)
            if outcomes is not None:
                return outcomes
        except Exception as error:  # noqa: BLE001  (whose fault it is shows when each is alone)
            if len(asked) == 1:
                return [error]
        read = [_read(one) for one in asked]
        questions = [one for one in read if isinstance(one, Question)]
        scored = iter(self._score(questions) if questions else ())
        return [next(scored) if isinstance(one, Question) else one for one in read]

    def _plainly(self, asked: Sequence[Plain | Question]) -> list[Outcome] | None:
        """Answer unread requests, where all are such and none has a fault."""
        wide = self._wide
        plain = [one for one in asked if type(one) is Plain]
        if wide is None or len(plain) < len(asked):
            return None
        block = plain[0].envelopes.block(plain)
        answers = None if block is None else wide.answers(block)
        return None if answers is None else _parted(asked, answers)

    def _score(self, questions: Sequence[Question]) -> list[Outcome]:
        try:
            return self._together(questions)
        except Exception as error:  # noqa: BLE001  (as above)
            if len(questions) == 1:
                return [error]
        return [self._score([question])[0] for question in questions]

    def run(self, columns: Columns, rows: int) -> Scored:
        """Score columns (rows, *shape of the field). Raises as the pipeline does."""
        return self._pipeline.score_columns(self._positions[:rows], columns)

    def _together(self, questions: Sequence[Question]) -> list[Outcome]:
        if self._wide is not None:
            blocks = [self._block(question) for question in questions]
            answers = self._wide.answers(blocks[0] if len(blocks) == 1 else np.concatenate(blocks))
            if answers is not None:
                return _parted(questions, answers)
        return self._judged(questions)

    def _judged(self, questions: Sequence[Question]) -> list[Outcome]:
        ends = list(accumulate(question.rows for question in questions))
        scored = self.run(self._columns(questions), ends[-1])
        answers = scored.predictions
        outputs = {name: np.ascontiguousarray(values) for name, values in answers.columns.items()}
        if not scored.rejects:
            return _parted(questions, outputs)
        bad: dict[int, list[BadRow]] = {}
        for reject in sorted(scored.rejects, key=lambda reject: reject.row):
            at = bisect_right(ends, reject.row)
            row = reject.row - (ends[at] - questions[at].rows)
            bad.setdefault(at, []).append((row, reject.field, reject.reason))
        stops = np.searchsorted(answers.rows, ends).tolist()
        texts: dict[str, list[bytes]] = {}
        return [
            question.refuse(bad[at])
            if at in bad
            else Part(outputs, stops[at] - question.rows, stops[at], texts)
            for at, question in enumerate(questions)
        ]

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

    Good records of a wide table pass many times faster. Whatever is not plainly good is left to
    the contract itself, which has the words for it.
    """

    def __init__(
        self, pipeline: Pipeline, name: str, fields: Sequence[InputField], max_rows: int
    ) -> None:
        self._pipeline = pipeline
        self._name = name
        kind = np.dtype(fields[0].type)
        low, high = _bounds(fields, kind)
        # As many rows as a batch may have: comparing contiguous memory is what is fast.
        self._low, self._high = np.tile(low, (max_rows, 1)), np.tile(high, (max_rows, 1))
        absent = np.array([field.nullable for field in fields])
        self._absent = np.tile(absent, (max_rows, 1)) if absent.any() else None

    @classmethod
    def of(cls, contract: Contract, model: Model, max_rows: int) -> Wide | None:
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
        return cls(pipeline, wide.name, fields, max_rows)

    def answers(self, block: Array) -> Columns | None:
        """Score rows (N, inputs), or return None where one of them may not be good."""
        rows = len(block)
        good = (block >= self._low[:rows]) & (block <= self._high[:rows])  # NaN is in no range
        if self._absent is not None:
            good |= self._absent[:rows] & np.isnan(block)
        if 0 in good.tobytes():  # half the time of asking numpy
            return None
        return self._pipeline.answers({self._name: block}, rows)


def _bounds(fields: Sequence[InputField], kind: np.dtype[Any]) -> tuple[Array, Array]:
    """Return the lowest and the highest value (inputs,) each field takes; none takes infinity."""
    ranges = [field.range for field in fields]
    low = [r.min if r is not None and r.min is not None else -np.inf for r in ranges]
    high = [r.max if r is not None and r.max is not None else np.inf for r in ranges]
    limits = np.finfo(kind)
    # Rounded to the type as the contract compares them, value by value.
    return (
        np.maximum(np.array(low, kind), limits.min),
        np.minimum(np.array(high, kind), limits.max),
    )


def _read(asked: Plain | Question) -> Question | Exception:
    if isinstance(asked, Question):
        return asked
    try:
        return asked.question()
    except Exception as error:  # noqa: BLE001  (it is this request's alone)
        return error


def _parted(asked: Sequence[Plain | Question], answers: Columns) -> list[Outcome]:
    parts: list[Outcome] = []
    texts: dict[str, list[bytes]] = {}
    start = 0
    for one in asked:
        stop = start + one.rows
        parts.append(Part(answers, start, stop, texts))
        start = stop
    return parts


def _split(names: Sequence[str], block: Array) -> dict[str, Array]:
    return {name: block[:, at] for at, name in enumerate(names)}


def overloaded(text: str) -> HttpError:
    """Return the 503 that asks to come again."""
    return HttpError(503, text, (b"retry-after: 1",))
