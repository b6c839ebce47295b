"""The response for an event that became a dead letter.

Owns the 422 and its reason. Reasons that name a field and its fault are meant for the client and
are passed on. The model's own error messages are not: they may quote anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fourways_http import HttpError
from fourways_runtime.io.store.streams.stream import DIED, MODEL, DeadLetterReason
from fourways_runtime.scoring.columns import Key

from . import v2

FAILED = f"{MODEL}it failed on this event; the dead letter has the error"


def refusal(
    deployment: str, refused: Mapping[Key, DeadLetterReason], of: int, applied: tuple[bytes, ...]
) -> HttpError:
    """Return the 422 that lists the dead letters by key; ``of`` is the number of requested keys."""
    told = [
        {"key": key, "id": letter.id, "reason": _reason(letter), "attempts": letter.attempts}
        for key, letter in refused.items()
    ]
    first = told[0]["reason"]
    more: dict[str, Any] = {"deployment": deployment}
    if of == 1:
        return HttpError(422, f"the event was rejected: {first}", applied, **more, **told[0])
    text = f"the events of {len(told)} of {of} keys were rejected; the first reason: {first}"
    return HttpError(422, text, applied, **more, refused=told[: v2.MAX_MISSING_NAMED])


def _reason(letter: DeadLetterReason) -> str:
    if letter.reason.startswith(MODEL) and not letter.reason.startswith(DIED):
        return FAILED
    return letter.reason
