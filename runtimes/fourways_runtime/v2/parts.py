"""What each request gets of a batch's predictions.

Every request gets an object of its own, so this is compiled (``runtimes/compile.py``).
"""

from __future__ import annotations

from collections.abc import Sequence

from fourways_runtime.scoring.columns import Columns

from .request import BadRow, InferenceRequest
from .templates import UnparsedRequest


class ScoredPart:
    """One request's predictions: rows ``start`` to ``stop`` of a batch's outputs (N, *shape)."""

    __slots__ = ("bad", "columns", "start", "stop", "texts")

    def __init__(
        self,
        columns: Columns,
        start: int,
        stop: int,
        texts: dict[str, list[bytes]],
        bad: tuple[BadRow, ...] = (),
    ) -> None:
        """Take a part of a batch.

        Args:
            columns: The batch's outputs.
            start: The part's first row.
            stop: The row after its last one.
            texts: The batch's output numbers as JSON text, shared by its parts.
            bad: Rows of the request that are left out because they are bad, if it is partial.

        """
        self.columns = columns
        self.start = start
        self.stop = stop
        self.texts = texts
        self.bad = bad


RequestOutcome = ScoredPart | Exception
"""A request's predictions, or the error to answer it with."""


def parted(
    asked: Sequence[UnparsedRequest | InferenceRequest], answers: Columns
) -> list[RequestOutcome]:
    """Return the parts of a batch in which no row is bad."""
    parts: list[RequestOutcome] = []
    texts: dict[str, list[bytes]] = {}
    start = 0
    for one in asked:
        if isinstance(one, UnparsedRequest):
            stop = start + one.rows
            parts.append(ScoredPart(answers, start, stop, texts))
        else:
            stop = start + one.rows
            parts.append(ScoredPart(answers, start, stop, texts, one.bad))
        start = stop
    return parts
