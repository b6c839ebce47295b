"""Golden vectors: known inputs whose outputs a model must reproduce before it is used.

Owns the file's format (JSON Lines, ``{"inputs": {NAME: VALUE}, "outputs": {NAME: VALUE}}``) and the
comparison. The vectors go through the same pipeline as every other record. No I/O beyond reading
the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import orjson

from fourways_api import Contract, GoldenVectors
from fourways_runtime.errors import GoldenMismatch, WorkloadError
from fourways_runtime.model_watch import WATCH

from . import exact_json
from .checks import RecordChecker
from .columns import Array, Scored
from .pipeline import Pipeline

MAX_BYTES = 64 * 2**20
"""Maximum size of a golden vectors file."""

ALONE_SECONDS = 2.0
"""How long vectors are scored one by one before they are scored together."""

_COARSE_ABSOLUTE, _COARSE_RELATIVE = 1e-4, 1e-3
"""Least tolerances where a record scored alone is compared: libraries compute batches of another
size in another order, and round differently."""

_MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class Vector:
    """One known record: inputs by name, and its known outputs."""

    inputs: dict[str, Any]
    outputs: dict[str, Any]
    line: int = 0
    """Its line in the file, from 1."""


def read_vectors(path: Path, contract: Contract) -> tuple[Vector, ...]:
    """Read golden vectors. Blank lines are skipped.

    Raises:
        GoldenMismatch: a line is not a vector of this contract, or there are no vectors.

    """
    vectors = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if line.strip():
            vectors.append(_vector(line, number, contract))
    if not vectors:
        raise GoldenMismatch("the golden file contains no vectors")
    return tuple(vectors)


def check_vectors(pipeline: Pipeline, vectors: Sequence[Vector], golden: GoldenVectors) -> None:
    """Score the vectors and compare each known output.

    They are scored together, as records are. Before that each is scored alone, as far as
    :data:`ALONE_SECONDS` go: the watchdog can name the one at which the model hangs, and outputs
    that depend on the other records of a batch are found.

    Raises:
        GoldenMismatch: naming vector (from 0), field, expected value, actual value and tolerance.

    """
    alone = _score_alone(pipeline, vectors)
    together = named(vectors, 0) if len(vectors) == 1 else f"vectors 0 to {len(vectors) - 1}"
    with WATCH.at(together):
        scored = _scored(pipeline, vectors)
    if scored.rejects:
        first = scored.rejects[0]
        raise GoldenMismatch(f"vector {first.row} was refused: {first}")
    wrong = []
    for name, answers in scored.predictions.columns.items():
        for at, vector in enumerate(vectors):
            if name in vector.outputs:
                difference = compare(vector.outputs[name], answers[at], golden)
                if difference is not None:
                    wrong.append((at, f"vector {at}: {name}: {difference}"))
    if wrong:
        texts = [text for _, text in sorted(wrong)]
        more = f"; and {len(texts) - _MAX_NAMED} more" if len(texts) > _MAX_NAMED else ""
        raise GoldenMismatch("; ".join(texts[:_MAX_NAMED]) + more)
    coarse = golden.model_copy(
        update={
            "absolute_tolerance": max(golden.absolute_tolerance, _COARSE_ABSOLUTE),
            "relative_tolerance": max(golden.relative_tolerance, _COARSE_RELATIVE),
        }
    )
    for at, found in alone.items():
        _check_alone(at, vectors[at], found, coarse)


def _check_alone(
    at: int, vector: Vector, found: Scored | WorkloadError, golden: GoldenVectors
) -> None:
    """Check a vector that is right beside the others. Raises GoldenMismatch."""
    faults = [str(found)] if isinstance(found, WorkloadError) else list(map(str, found.rejects))
    if isinstance(found, Scored) and not faults:
        for name, answers in found.predictions.columns.items():
            if name in vector.outputs:
                difference = compare(vector.outputs[name], answers[0], golden)
                faults += [f"{name}: {difference}"] if difference is not None else []
    if faults:
        raise GoldenMismatch(
            f"vector {at} is right beside the others, but scored alone: {faults[0]}; what the model"
            " answers to a record must not depend on the others: export it for inference, with a"
            " free first dimension"
        )


def named(vectors: Sequence[Vector], at: int) -> str:
    """Return where a vector is, without its values: status shows it."""
    return f"vector {at} (line {vectors[at].line} of the golden file)"


def _scored(pipeline: Pipeline, vectors: Sequence[Vector]) -> Scored:
    contract, rows = pipeline.contract, np.arange(len(vectors))
    columns = {
        field.name: [vector.inputs.get(field.name) for vector in vectors]
        for field in contract.flat_inputs
    }
    return pipeline.score_records(*RecordChecker(contract).check_json(rows, columns, rows))


def _score_alone(
    pipeline: Pipeline, vectors: Sequence[Vector]
) -> dict[int, Scored | WorkloadError]:
    """Score vectors one by one, as many as there is time for; return what came of each."""
    end = monotonic() + ALONE_SECONDS
    found: dict[int, Scored | WorkloadError] = {}
    for at in range(len(vectors) if len(vectors) > 1 else 0):
        if monotonic() > end:
            break
        try:
            with WATCH.at(named(vectors, at)):
                found[at] = _scored(pipeline, vectors[at : at + 1])
        except WorkloadError as error:
            found[at] = error
    return found


def compare(expected: Any, got: Any, golden: GoldenVectors) -> str | None:
    """Describe how an output differs from the expected one, or return None if it does not.

    Numbers may differ by absolute + relative x abs(expected); texts and booleans must be equal.
    """
    ours, theirs = np.asarray(got), np.asarray(expected)
    if ours.shape != theirs.shape:
        return f"expected shape {list(theirs.shape)}, got {list(ours.shape)}"
    if ours.dtype.kind not in "iuf" or theirs.dtype.kind not in "iuf":
        same = ours.tolist() == theirs.tolist() and (ours.dtype.kind == "b") == (
            theirs.dtype.kind == "b"
        )
        return None if same else f"expected {_rendered(theirs)}, got {_rendered(ours)}"
    difference = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
    if "f" not in ours.dtype.kind + theirs.dtype.kind:
        # Two whole numbers may become the same float.
        difference = np.where((difference == 0) & (ours != theirs), 1.0, difference)
    allowed = golden.absolute_tolerance + golden.relative_tolerance * np.abs(theirs)
    # Not "difference > allowed": NaN must fail.
    if bool(np.all(difference <= allowed)):
        return None
    worst = int(np.argmax(np.nan_to_num(difference - allowed, nan=np.inf)))
    at = (
        ""
        if not ours.shape
        else f" at element {list(map(int, np.unravel_index(worst, ours.shape)))}"
    )
    return (
        f"expected {theirs.reshape(-1)[worst]:.9g}, got {ours.reshape(-1)[worst]:.9g}{at}, "
        f"tolerance {np.reshape(allowed, -1)[worst]:.3g}"
    )


def _vector(line: bytes, number: int, contract: Contract) -> Vector:
    try:
        found = exact_json.loads(line)
        vector = Vector(dict(found["inputs"]), dict(found["outputs"]), number)
    except orjson.JSONDecodeError:
        raise GoldenMismatch(f"line {number} of the golden file is not JSON") from None
    except (KeyError, TypeError, ValueError):
        raise GoldenMismatch(
            f'line {number} of the golden file is not {{"inputs": {{…}}, "outputs": {{…}}}}'
        ) from None
    for block in [field for field in contract.inputs if field.columns]:
        listed = vector.inputs.pop(block.name, None)
        if isinstance(listed, list) and len(listed) == len(block.column_names):
            vector.inputs.update(zip(block.column_names, listed, strict=True))
        elif listed is not None:
            raise GoldenMismatch(
                f"line {number} of the golden file: {block.name} is not a list of "
                f"{len(block.column_names)} values, one for each column"
            )
    inputs, outputs = ({f.name for f in side} for side in (contract.flat_inputs, contract.outputs))
    for side, given, known in (
        ("inputs", vector.inputs, inputs),
        ("outputs", vector.outputs, outputs),
    ):
        for name in given:
            if name not in known:
                raise GoldenMismatch(
                    f"line {number} of the golden file: the contract's {side} have no {name}"
                )
    if not vector.outputs:
        raise GoldenMismatch(f"line {number} of the golden file has no output")
    return vector


def _rendered(value: Array) -> str:
    return str(value.tolist())[:120]
