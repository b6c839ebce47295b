"""Asks the model: which outputs it has, whether it copes with missing values, golden vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from fourways_api import Contract
from fourways_api.training_profile import TrainingProfile
from fourways_runtime.errors import ModelError, WorkloadError
from fourways_runtime.scoring.columns import Array, Columns, Records
from fourways_runtime.scoring.decode import Decoder
from fourways_runtime.scoring.inputs import bind_inputs
from fourways_runtime.scoring.model.base import Model
from fourways_runtime.scoring.pipeline import Pipeline
from fourways_runtime.scoring.profile import make_profile
from fourways_runtime.scoring.ragged import alike, column
from fourways_runtime.v2.protocol import DATATYPES
from fourways_runtime.workloads.serving.loading import example

from .errors import NoManifest
from .inputs import DraftInputs
from .sample import Sample

GOLDEN = 20
"""Number of golden vectors."""

PROFILE_LEAST = 100
"""Rows that a sample must have for a training profile."""

_ROWS = 1_000
_PROFILE_ROWS = 20_000
_QUICK = 1.0
"""Seconds that a thousand rows may take, for a profile to be made of more."""

_SIZES = (1, 2, 8, 16, 32, 64, 128, 224, 256, 299, 512)
"""Sizes that are tried for a dimension that the model leaves free."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What the model answered to some records, and these records."""

    tensors: dict[str, Array]
    records: int
    columns: Columns

    free: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """By output, the shape of a record with -1 for sizes that follow those of the inputs."""


def ask(
    draft: DraftInputs,
    model: Model,
    sample: Sample | None,
    *,
    rows: int = _ROWS,
    stored: bool = True,
) -> Answers:
    """Score rows of the sample, or made-up ones. May change the draft's fields to what works.

    ``rows`` is the maximum number of rows. Outputs that are ``stored`` have one size each.

    Raises:
        NoManifest: the model takes none of them.

    """
    if sample is not None and all(each.column for each in draft.fields):
        return _ask_with_sample(draft, model, sample, rows)
    return _ask_with_examples(draft, model, stored)


def golden_vectors(
    contract: Contract, model: Model, sample: Sample | None, draft: DraftInputs
) -> bytes:
    """Return golden vectors as JSON Lines: rows of the sample, and the model's own outputs.

    Raises:
        NoManifest: no row has outputs that the contract accepts.

    """
    if sample is None:
        return b""
    records = _records(contract, draft, sample)
    keys = np.asarray([str(at) for at in range(len(records))], dtype=object)
    if contract.entity_key.type == "int64":
        keys = np.arange(len(records))
    scored = Pipeline(contract, model).score_columns(keys, records.columns)
    found = scored.predictions
    if not len(found):
        first = scored.rejects[0]
        raise NoManifest(f"no row of the sample can be scored: {first}")
    chosen = np.unique(np.linspace(0, len(found) - 1, GOLDEN).astype(int))
    lines = []
    for at in chosen.tolist():
        row = int(found.rows[at])
        inputs = {name: _plain(values[row]) for name, values in records.columns.items()}
        outputs = {name: _plain(values[at]) for name, values in found.columns.items()}
        lines.append(orjson.dumps({"inputs": inputs, "outputs": outputs}))
    return b"\n".join(lines) + b"\n"


def training_profile(
    contract: Contract, model: Model, sample: Sample | None, draft: DraftInputs
) -> bytes:
    """Return the training profile of the sample's rows and the model's outputs, as JSON.

    It is empty if the sample has too few rows, or no value that can be compared.
    """
    if sample is None or len(sample.table) < PROFILE_LEAST:
        return b""
    started = perf_counter()
    made = _profile_of(contract, model, _records(contract, draft, sample))
    if len(sample.table) > _ROWS and perf_counter() - started < _QUICK:
        made = _profile_of(contract, model, _records(contract, draft, sample, _PROFILE_ROWS))
    if not made.inputs and not made.outputs:
        return b""
    return made.model_dump_json(exclude_none=True).encode() + b"\n"


def _profile_of(contract: Contract, model: Model, records: Records) -> TrainingProfile:
    rows = np.arange(len(records))
    keys = rows if contract.entity_key.type == "int64" else rows.astype(str).astype(object)
    scored = Pipeline(contract, model).score_columns(keys, records.columns)
    return make_profile(contract, scored.inputs, scored.predictions.columns)


def request_of(contract: Contract, answers: Answers) -> dict[str, Any]:
    """Return an inference request of the Open Inference Protocol V2 with the first record.

    A nullable input whose value is missing is left out.
    """
    tensors = []
    for each in contract.inputs:
        if each.columns:
            rows = [answers.columns[name][0] for name in each.column_names]
            block = {"name": each.name, "datatype": DATATYPES[each.type], "shape": [1, len(rows)]}
            tensors.append({**block, "data": [_plain(value) for value in rows]})
            continue
        value = _plain(answers.columns[each.name][0])
        if value is None or (each.nullable and value == ""):
            continue
        data = np.asarray(answers.columns[each.name][0]).reshape(-1).tolist()
        shape = [1, *answers.columns[each.name].shape[1:]]
        tensors.append(
            {"name": each.name, "datatype": DATATYPES[each.type], "shape": shape, "data": data}
        )
    return {"inputs": tensors}


def _ask_with_sample(draft: DraftInputs, model: Model, sample: Sample, rows: int) -> Answers:
    contract = _contract(draft)
    records = _records(contract, draft, sample, rows)
    try:
        return _predict(contract, model, records.columns, len(records))
    except ModelError as error:
        if not any(each.nullable for each in draft.fields):
            raise NoManifest(f"the model fails on the sample: {error}") from None
    for each in draft.fields:
        if each.nullable:
            each.nullable = False
            each.comment += " The model fails on missing values: rows with one are rejected."
            each.comment = each.comment.strip()
    return _ask_with_sample(draft, model, sample, rows)


def _ask_with_examples(draft: DraftInputs, model: Model, stored: bool) -> Answers:
    free = [each for each in draft.fields if None in each.shape]
    shapes = [each.shape for each in free]
    contract = _contract(draft)
    fault = ""
    found: tuple[int, Answers] | None = None
    for size in _SIZES if free else (1,):
        columns = {
            each.name: np.repeat(example(each, size)[np.newaxis], 2, axis=0)
            for each in contract.flat_inputs
        }
        try:
            answers = _predict(contract, model, columns, 2)
        except WorkloadError as error:
            fault = fault or str(error)
            continue
        if found is None:
            found = size, answers
            continue
        followed = _followed(_sizes(found[1]), _sizes(answers))
        if followed is not None and not (followed and stored):
            for each in free:
                each.comment = "-1 is any size: set the one that you send, to reject others."
            return replace(answers, free=followed)
        break
    if found is None:
        raise NoManifest(f"the model fails on a made-up record: {fault}; give --sample TABLE")
    # Another size is not taken, or gives outputs of another shape.
    for each, shape in zip(free, shapes, strict=True):
        each.shape = tuple(found[0] if dim is None else dim for dim in shape)
        each.comment = "The model leaves sizes of the shape free: set the one that you send."
    return found[1]


def _followed(
    some: Mapping[str, tuple[int, ...]], others: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]] | None:
    """Return the shapes that differ, with -1 where they do; None if they have other dimensions."""
    if any(len(shape) != len(others.get(name, ())) for name, shape in some.items()):
        return None
    return {
        name: tuple(a if a == b else -1 for a, b in zip(shape, others[name], strict=True))
        for name, shape in some.items()
        if shape != others[name]
    }


def _sizes(answers: Answers) -> dict[str, tuple[int, ...]]:
    return {name: np.shape(values)[1:] for name, values in answers.tensors.items()}


def _contract(draft: DraftInputs) -> Contract:
    """Return a contract with these inputs; its output is never read."""
    return draft.contract([{"name": "unread_output", "type": "float32"}])


def _predict(contract: Contract, model: Model, columns: Columns, records: int) -> Answers:
    groups = alike(contract.flat_inputs, columns)
    if groups is not None:
        # Lists of different lengths: those of the most frequent one.
        some = max(groups, key=len)
        free = {each.name for each in contract.flat_inputs if each.is_free}
        columns = {
            name: column(values[some]) if name in free else values[some]
            for name, values in columns.items()
        }
        records = len(some)
    tensors = {}
    for feed in bind_inputs(contract.flat_inputs, model.inputs):
        tensors[feed.name], _ = feed.fill(columns, records)
    found = model.predict(tensors)
    return Answers({name: np.asarray(each) for name, each in found.items()}, records, columns)


def _records(contract: Contract, draft: DraftInputs, sample: Sample, rows: int = _ROWS) -> Records:
    """Decode rows of the sample under the contract, as a batch run does."""
    table = sample.table
    step = max(1, len(table) // rows)
    some = table.take(np.arange(0, len(table), step)[:rows])
    columns: dict[str, Any] = {
        each.name: some.column(each.column).combine_chunks() for each in draft.fields if each.column
    }
    keys: Sequence[Any] = range(len(some))
    columns[contract.entity_key.name] = pa.array(
        keys if contract.entity_key.type == "int64" else list(map(str, keys))
    )
    batch = pa.RecordBatch.from_pydict(columns)
    records, rejects = Decoder(contract).decode(batch, np.arange(len(some)))
    if not len(records):
        raise NoManifest(f"no row of the sample fits the model: {rejects[0]}")
    return records


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; a missing number is null."""
    if isinstance(value, np.ndarray):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and value != value else value
