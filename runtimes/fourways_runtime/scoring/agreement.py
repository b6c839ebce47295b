"""Scores golden vectors one by one and reports which of them a model reproduces.

The build measures a variant's agreement with it, and a device uses it to judge the model it has
received. A vector agrees if every known output, number or label, is within the declared tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence

from fourways_api import GoldenVectors
from fourways_runtime.errors import ModelError
from fourways_runtime.model_watch import WATCH

from .golden import Vector, compare, named
from .single import RecordRefused, RecordScorer


def differences(
    scorer: RecordScorer, vectors: Sequence[Vector], golden: GoldenVectors
) -> list[str | None]:
    """Score each vector alone; return per vector how the outputs differ, or None if they agree."""
    return [_difference(scorer, vectors, at, golden) for at in range(len(vectors))]


def _difference(
    scorer: RecordScorer, vectors: Sequence[Vector], at: int, golden: GoldenVectors
) -> str | None:
    vector = vectors[at]
    try:
        with WATCH.at(named(vectors, at)):
            answer = scorer.ask(vector.inputs)
    except (ModelError, RecordRefused) as error:
        return f"vector {at}: {error}"
    for name, expected in vector.outputs.items():
        difference = compare(expected, answer[name], golden)
        if difference is not None:
            return f"vector {at}: {name}: {difference}"
    return None
