"""The one pipeline that every entry point runs: decode, features, model, outputs. No I/O.

Owns the order of the stages and how a model's outputs become the contract's outputs. The model's
requirements are checked once, when the pipeline is built; scoring a batch is arithmetic on whole
columns. The same records give the same predictions in every entry point.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fourways_api import Contract
from fourways_runtime.errors import ContractMismatch, ModelError

from .checks import RecordChecker
from .columns import Array, Keys, Predictions, Records, Reject, Rows, Scored
from .inputs import bind_inputs, cut
from .model.base import Model, SelectiveModel
from .outputs import bind_outputs
from .ragged import alike, column, joined
from .values import Faults

MODEL_INPUT_BYTES = 2**18
"""Maximum bytes of input per call of a model. A wide model takes hundreds of times its input in
activations and gains nothing from larger batches; for a narrow one this size is large enough.
"""

MOST_FAILED = 16
"""Maximum number of records of a batch at which a model may fail, where these are to be found. One
that fails at more is broken."""

WHOLE = "row"
"""Stands for a field in the reject of a record at which the model fails."""


class Pipeline:
    """A contract bound to a model. As thread-safe as the model."""

    def __init__(self, contract: Contract, model: Model) -> None:
        """Bind them.

        Raises:
            ContractMismatch: the model's tensors do not fit the contract.

        """
        self.contract = contract
        self._checker = RecordChecker(contract)
        _check_names(contract)
        self._feeds = bind_inputs(contract.flat_inputs, model.inputs)
        self._free = frozenset(field.name for field in contract.flat_inputs if field.is_free)
        self._readings = bind_outputs(contract.outputs, model.outputs)
        read = frozenset(reading.tensor for reading in self._readings)
        self._model = model.answering(read) if isinstance(model, SelectiveModel) else model

    def score_columns(
        self,
        keys: Array,
        columns: Mapping[str, Array],
        rows: Rows | None = None,
        *,
        isolating: bool = False,
    ) -> Scored:
        """Score records whose columns are numpy arrays already, each (N, *shape of the field).

        ``rows`` (N,) are the records' positions in the source, by default from 0. ``isolating`` is
        that of :meth:`score_records`.

        Raises:
            SourceError: an input is absent or has another shape.
            ContractMismatch: as :meth:`score_records`.

        """
        rows = np.arange(len(keys)) if rows is None else rows
        return self.score_records(*self._checker.check(keys, columns, rows), isolating=isolating)

    def answers(self, columns: Mapping[str, Array], records: int) -> dict[str, Array] | None:
        """Score records that are known to satisfy the contract, as contiguous columns.

        Returns None if a value does not fit the model, or an output not the contract: the general
        path of scoring then describes the fault.

        Raises:
            ContractMismatch: as :meth:`score_records`.

        """
        tensors: dict[str, Array] = {}
        for feed in self._feeds:
            tensors[feed.name], faults = feed.fill(columns, records)
            if faults:
                return None
        answers = self._predict(tensors, records)
        found: dict[str, Array] = {}
        for reading in self._readings:
            values, wrong = reading.read(answers, records)
            if wrong:
                return None
            found[reading.field.name] = np.ascontiguousarray(values)
        return found

    def score_records(
        self, records: Records, rejects: list[Reject], *, isolating: bool = False
    ) -> Scored:
        """Score records that were checked already, and return the rejects with those of the model.

        Every record is returned once, as a prediction or as a reject. With ``isolating``, a record
        at which the model fails is a reject too, as long as it does not fail at many.

        Raises:
            ContractMismatch: the model's outputs differ in shape or type from what it declares.

        """
        mixed = self._free and len(records)
        groups = alike(self.contract.inputs, records.columns) if mixed else None
        if groups is None:
            return self._answer_alike(records, rejects, isolating)
        parts = [
            self._answer_alike(
                Records(
                    records.keys[some],
                    records.rows[some],
                    {
                        name: column(values[some]) if name in self._free else values[some]
                        for name, values in records.columns.items()
                    },
                ),
                [],
                isolating,
            )
            for some in groups
        ]
        return self._in_order(records, parts, rejects)

    def _in_order(self, records: Records, parts: list[Scored], rejects: list[Reject]) -> Scored:
        """Join the predictions of groups of records in the order of the records."""
        rows = np.concatenate([part.predictions.rows for part in parts])
        order = np.argsort(rows, kind="stable")
        by_row = np.argsort(records.rows, kind="stable")
        at = by_row[np.searchsorted(records.rows, rows[order], sorter=by_row)]
        columns = {
            reading.field.name: (joined if reading.field.is_free else np.concatenate)(
                [part.predictions.columns[reading.field.name] for part in parts]
            )[order]
            for reading in self._readings
        }
        found = sorted(
            (*rejects, *(each for part in parts for each in part.rejects)), key=lambda r: r.row
        )
        return Scored(Predictions(records.keys[at], rows[order], columns), found, records.columns)

    def _answer_alike(self, records: Records, rejects: list[Reject], isolating: bool) -> Scored:
        tensors: dict[str, Array] = {}
        refused: dict[int, tuple[str, str]] = {}
        for feed in self._feeds if len(records) else ():
            tensors[feed.name], faults = feed.fill(records.columns, len(records))
            for name, wrong in faults.items():
                _note(refused, name, wrong)
        if refused:
            good = _except(len(records), refused)
            rejects = rejects + _rejects(records.keys, records.rows, refused)
            records = Records(records.keys[good], records.rows[good], cut(records.columns, good))
            tensors = cut(tensors, good)
        answers, failed = self._answered(tensors, len(records), isolating)
        if failed:
            good = _except(len(records), failed)
            rejects = rejects + _rejects(records.keys, records.rows, failed, of_model=True)
            records = Records(records.keys[good], records.rows[good], cut(records.columns, good))
        refused = {}
        columns = {}
        for reading in self._readings:
            values, wrong = reading.read(answers, len(records))
            _note(refused, reading.field.name, wrong)
            columns[reading.field.name] = values
        keys, rows = records.keys, records.rows
        if refused:
            good = _except(len(records), refused)
            rejects = rejects + _rejects(keys, rows, refused, of_model=True)
            keys, rows, columns = keys[good], rows[good], cut(columns, good)
        return Scored(Predictions(keys, rows, columns), rejects, records.columns)

    def _answered(
        self, tensors: Mapping[str, Array], records: int, isolating: bool
    ) -> tuple[dict[str, Array], dict[int, tuple[str, str]]]:
        """Return the model's outputs, and the records at which it fails, which have none."""
        if not records:
            return {}, {}
        try:
            return self._predict(tensors, records), {}
        except ModelError as error:
            if not isolating or records == 1:
                raise
            return self._isolated(tensors, records, error)

    def _isolated(
        self, tensors: Mapping[str, Array], records: int, error: ModelError
    ) -> tuple[dict[str, Array], dict[int, tuple[str, str]]]:
        """Halve the records until those are found at which the model fails.

        Raises:
            ModelError: ``error``, if it fails at all of them or at many.

        """
        failed: dict[int, tuple[str, str]] = {}
        parts: list[dict[str, Array]] = []
        waiting = [(0, records)]
        while waiting:
            start, stop = waiting.pop()
            try:
                parts.append(self._predict(cut(tensors, slice(start, stop)), stop - start))
            except ModelError as own:
                if stop - start > 1:
                    middle = (start + stop) // 2
                    waiting += [(middle, stop), (start, middle)]
                    continue
                failed[start] = (WHOLE, str(own))
                if len(failed) > MOST_FAILED:
                    raise error from None
        if not parts:
            raise error
        return _concatenated(parts), failed

    def _predict(self, tensors: Mapping[str, Array], records: int) -> dict[str, Array]:
        """Predict in slices of bounded size, so that memory does not grow with the batch."""
        given = 0
        for tensor in tensors.values():
            given += tensor.nbytes
        if given <= MODEL_INPUT_BYTES or records <= 1:
            return self._model.predict(tensors)
        size = max(1, MODEL_INPUT_BYTES * records // given)
        parts = [
            self._model.predict(cut(tensors, slice(start, start + size)))
            for start in range(0, records, size)
        ]
        return _concatenated(parts)


def _concatenated(parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Join the outputs of parts of a batch. Raises ContractMismatch."""
    try:
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    except (KeyError, ValueError):
        raise ContractMismatch(
            "the model returns different outputs or shapes for different parts of a batch"
        ) from None


def _check_names(contract: Contract) -> None:
    names = [field.name for field in contract.flat_inputs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ContractMismatch(f"column {twice} is listed twice; list each column in one input")


def _note(refused: dict[int, tuple[str, str]], name: str, faults: Faults) -> None:
    for at, reason in faults.items():
        refused.setdefault(at, (name, reason))


def _except(records: int, refused: Mapping[int, object]) -> Array:
    good = np.ones(records, dtype=bool)
    good[list(refused)] = False
    return good


def _rejects(
    keys: Keys, rows: Rows, refused: dict[int, tuple[str, str]], of_model: bool = False
) -> list[Reject]:
    return [
        Reject(int(rows[at]), str(keys[at]), name, reason, of_model)
        for at, (name, reason) in sorted(refused.items())
    ]
