"""Scores several requests as one batch, and gives each request its part of the result.

Owns the isolation of requests that share a batch: bad rows only fail their own request, and if the
model fails on a batch, each request is scored alone. Pure: no clock, no event loop.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from functools import partial
from itertools import accumulate

import numpy as np

from fourways_api import Contract
from fourways_http import HttpError
from fourways_runtime.errors import ModelError
from fourways_runtime.scoring.columns import Array, Columns, Scored
from fourways_runtime.scoring.dense import DenseBatch
from fourways_runtime.scoring.live_profile import RecordNotes
from fourways_runtime.scoring.model.base import Model
from fourways_runtime.scoring.pipeline import Pipeline
from fourways_runtime.scoring.ragged import joined
from fourways_runtime.scoring.values import no_values

from .faults import FeatureFault, ModelFault
from .lone import LoneScorer
from .parts import RequestOutcome, ScoredPart, parted
from .request import BadRow, InferenceRequest
from .templates import UnparsedRequest


class RequestScorer:
    """The scoring pipeline for requests. Records are identified by their position in a batch."""

    def __init__(self, contract: Contract, model: Model, max_rows: int) -> None:
        """Bind contract and model. Raises ContractMismatch as the pipeline does."""
        # Predictions are returned by position, so requests need no keys; the reader checks those.
        key = contract.entity_key.model_copy(update={"type": "int64"})
        contract = contract.model_copy(update={"entity_key": key})
        self._pipeline = Pipeline(contract, model)
        self._wide = DenseBatch.of(contract, model, max_rows)
        self._lone = LoneScorer.of(contract, model)
        self._names = [field.name for field in contract.flat_inputs]
        self._free = frozenset(field.name for field in contract.flat_inputs if field.is_free)
        self._positions = np.arange(max_rows)
        empty = {f.name: no_values(f) for f in contract.outputs}
        self.nothing = ScoredPart(empty, 0, 0, {})
        """The predictions of a request without rows."""

        self.profile: RecordNotes | None = None
        """Counts what is scored, if records are compared with a training profile."""

    def score(self, asked: Sequence[UnparsedRequest | InferenceRequest]) -> list[RequestOutcome]:
        """Score all requests, together if possible; never raises."""
        try:
            outcomes = self._plainly(asked)
            if outcomes is not None:
                return outcomes
        except Exception as error:  # noqa: BLE001  (whose fault it is shows when each is alone)
            if len(asked) == 1:
                return [error]
        read = [_read(one) for one in asked]
        inferences = [one for one in read if isinstance(one, InferenceRequest)]
        scored = iter(self._score(inferences) if inferences else ())
        return [next(scored) if isinstance(one, InferenceRequest) else one for one in read]

    def _plainly(
        self, asked: Sequence[UnparsedRequest | InferenceRequest]
    ) -> list[RequestOutcome] | None:
        """Score unparsed requests; None unless all are unparsed and none has a fault."""
        if self._lone is not None and len(asked) == 1 and asked[0].rows == 1:
            found = self._lone.score(asked[0])
            if found is not None:
                if self.profile is not None and self.profile.has_room:
                    self.profile.note_rows(1, partial(_lone_block, asked[0]), found)
                return parted(asked, found)
        wide = self._wide
        plain = [one for one in asked if type(one) is UnparsedRequest]
        if wide is None or len(plain) < len(asked):
            return None
        block = plain[0].templates.block(plain)
        answers = None if block is None else wide.answers(block, exact=False)
        if block is None or answers is None:
            return None
        if self.profile is not None:
            self.profile.note_rows(len(block), block, answers)
        return parted(asked, answers)

    def _score(self, inferences: Sequence[InferenceRequest]) -> list[RequestOutcome]:
        try:
            return self._together(inferences)
        except Exception as error:  # noqa: BLE001  (as above)
            if len(inferences) == 1:
                return [error]
        return [self._score([inference])[0] for inference in inferences]

    def run(self, columns: Columns, rows: int, isolating: bool = False) -> Scored:
        """Score columns (rows, *shape of the field). Raises as the pipeline does."""
        return self._pipeline.score_columns(self._positions[:rows], columns, isolating=isolating)

    def _together(self, inferences: Sequence[InferenceRequest]) -> list[RequestOutcome]:
        if self._wide is not None:
            blocks = [self._block(inference) for inference in inferences]
            block = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
            try:
                answers = self._wide.answers(block)
            except ModelError:
                if len(block) == 1:
                    raise
                answers = None  # at which rows it fails is found below
            if answers is not None:
                if self.profile is not None:
                    self.profile.note_rows(len(block), block, answers)
                return parted(inferences, answers)
        return self._judged(inferences)

    def _judged(self, inferences: Sequence[InferenceRequest]) -> list[RequestOutcome]:
        ends = list(accumulate(inference.rows for inference in inferences))
        scored = self.run(self._columns(inferences), ends[-1], isolating=True)
        answers = scored.predictions
        if self.profile is not None:
            self.profile.note_columns(scored.inputs, answers.columns, len(scored.rejects))
        outputs = {name: np.ascontiguousarray(values) for name, values in answers.columns.items()}
        if not scored.rejects:
            return parted(inferences, outputs)
        bad: dict[int, list[BadRow]] = {}
        of_model: dict[int, set[int]] = {}
        for reject in sorted(scored.rejects, key=lambda reject: reject.row):
            at = bisect_right(ends, reject.row)
            row = reject.row - (ends[at] - inferences[at].rows)
            row = inferences[at].position(row)
            bad.setdefault(at, []).append((row, reject.field, reject.reason))
            if reject.of_model:
                of_model.setdefault(at, set()).add(row)
        stops = np.searchsorted(answers.rows, ends).tolist()
        texts: dict[str, list[bytes]] = {}
        outcomes: list[RequestOutcome] = []
        for at, inference in enumerate(inferences):
            start, wrong = stops[at - 1] if at else 0, bad.get(at, [])
            if wrong and (not inference.partial or start == stops[at]):
                outcomes.append(_fault(inference, wrong, of_model.get(at, set())))
            else:
                wrong = sorted([*inference.bad, *wrong])
                outcomes.append(ScoredPart(outputs, start, stops[at], texts, tuple(wrong)))
        return outcomes

    def _block(self, inference: InferenceRequest) -> Array:
        if inference.block is not None:
            return inference.block
        return np.stack([inference.columns[name] for name in self._names], axis=1)

    def _columns(self, inferences: Sequence[InferenceRequest]) -> dict[str, Array]:
        names = self._names
        blocks = [inference.block for inference in inferences if inference.block is not None]
        if len(blocks) == len(inferences):
            return _split(names, blocks[0] if len(blocks) == 1 else np.concatenate(blocks))
        parts = [q.columns if q.block is None else _split(names, q.block) for q in inferences]
        if len(parts) == 1:
            return parts[0]
        return {
            name: (joined if name in self._free else np.concatenate)([part[name] for part in parts])
            for name in names
        }


def _fault(inference: InferenceRequest, bad: list[BadRow], of_model: Collection[int]) -> Exception:
    """Return the error for the party at fault: the client if any of its values is bad.

    ``of_model`` has the rows for which the model is to blame.
    """
    model = [one for one in bad if one[0] in of_model]
    features = [one for one in bad if one[0] not in of_model and one[1] in inference.looked_up]
    if len(model) + len(features) < len(bad):
        return inference.refuse(bad)
    if features:
        return FeatureFault(*inference.described(features))
    return ModelFault(*inference.described(model), len(model))


def _lone_block(asked: UnparsedRequest | InferenceRequest) -> Array | None:
    """Return the numbers of a request of one row, (1, inputs)."""
    if isinstance(asked, InferenceRequest):
        return asked.block
    return asked.templates.block([asked])


def _read(asked: UnparsedRequest | InferenceRequest) -> InferenceRequest | Exception:
    if isinstance(asked, InferenceRequest):
        return asked
    try:
        return asked.parsed()
    except Exception as error:  # noqa: BLE001  (it is this request's alone)
        return error


def _split(names: Sequence[str], block: Array) -> dict[str, Array]:
    return {name: block[:, at] for at, name in enumerate(names)}


def overloaded(text: str) -> HttpError:
    """Return the 503 that asks the client to retry."""
    return HttpError(503, text, (b"retry-after: 1",))
