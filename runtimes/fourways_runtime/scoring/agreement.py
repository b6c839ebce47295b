"""Golden vectors asked one by one, and which of them a model answers as it should.

The build measures a variant's agreement by this, and a device judges by it what it has received. A
vector agrees when every output known for it, numbers and labels, is within the declared tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence

from fourways_api import GoldenVectors
from fourways_runtime.errors import ModelError

from .golden import Vector, compare
from .single import RecordRefused, RecordScorer


def differences(
    scorer: RecordScorer, vectors: Sequence[Vector], golden: GoldenVectors
) -> list[str | None]:
    """Ask about each vector alone; say by vector how the answer differs, None where it agrees."""
    return [_difference(scorer, vector, at, golden) for at, vector in enumerate(vectors)]


def _difference(scorer: RecordScorer, vector: Vector, at: int, golden: GoldenVectors) -> str | None:
    try:
        answer = scorer.ask(vector.inputs)
    except (ModelError, RecordRefused) as error:
        return f"vector {at}: {error}"
    for name, expected in vector.outputs.items():
        difference = compare(expected, answer[name], golden)
        if difference is not None:
            return f"vector {at}: {name}: {difference}"
    return None
