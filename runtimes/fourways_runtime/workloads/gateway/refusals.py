"""The response for an event that became a dead letter.

Owns the status (422 if the event is at fault, 500 if the model is) and the reason. Reasons that
name a field and its fault are meant for the client and are passed on. The model's own error
messages are not: they may quote anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import Counter

from fourways_api import Contract
from fourways_http import HttpError
from fourways_runtime.io.store.streams.stream import DIED, MODEL, DeadLetterReason
from fourways_runtime.scoring.columns import Key
from fourways_runtime.v2.faults import MODEL as MODEL_FAULT
from fourways_runtime.v2.faults import fault_header

from . import v2

FAILED = f"{MODEL}it failed on this event; the dead letter has the error"
_ANSWERED = "the model answered"
"""How the reason for an invalid output begins."""


class Refusals:
    """The error responses of one stream, and the count of those that are the model's fault."""

    def __init__(self, deployment: str, faults: Counter) -> None:
        self._deployment = deployment
        self._faults = faults

    def error(
        self,
        refused: Mapping[Key, DeadLetterReason],
        of: int,
        applied: tuple[bytes, ...],
        contract: Contract | None,
    ) -> HttpError:
        """Return the error that lists the dead letters by key; ``of`` is the number of keys."""
        described = [
            {"key": key, "id": letter.id, "reason": _reason(letter), "attempts": letter.attempts}
            for key, letter in refused.items()
        ]
        status = 422
        if all(_is_the_model_s(letter, contract) for letter in refused.values()):
            status, applied = 500, (*applied, *fault_header(MODEL_FAULT))
            self._faults.labels(self._deployment, MODEL_FAULT.decode()).inc()
        first = described[0]["reason"]
        more: dict[str, Any] = {"deployment": self._deployment}
        if of == 1:
            text = f"the event was rejected: {first}"
            return HttpError(status, text, applied, **more, **described[0])
        text = (
            f"the events of {len(described)} of {of} keys were rejected; the first reason: {first}"
        )
        more["refused"] = described[: v2.MAX_MISSING_NAMED]
        return HttpError(status, text, applied, **more)


def _is_the_model_s(letter: DeadLetterReason, contract: Contract | None) -> bool:
    field, _, why = letter.reason.partition(": ")
    if letter.reason.startswith(MODEL) or why.startswith(_ANSWERED):
        return True
    if contract is None or field in (one.name for one in contract.flat_inputs):
        return False
    return field in (one.name for one in contract.outputs)


def _reason(letter: DeadLetterReason) -> str:
    if letter.reason.startswith(MODEL) and not letter.reason.startswith(DIED):
        return FAILED
    return letter.reason
