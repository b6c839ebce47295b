"""What is wrong with a worker while it runs: the document that it serves under :data:`FAULTS_PATH`.

A worker that ends reports through its termination message. One that runs and cannot do its work, or
lost something, lists its present faults here, so that a condition can name them. A fault disappears
from the list once its cause has gone.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from .display import displayed
from .reasons import MAX_REASON
from .status import DriftStatus, QualityStatus

FAULTS_PATH = "/faults"

MAX_FAULTS = 8
MAX_FAULT_MESSAGE = 1024
"""Maximum number of characters of a message."""


class WorkerFault(BaseModel):
    """One present fault."""

    reason: Annotated[str, Field(min_length=1, max_length=MAX_REASON)]
    """A ``Reason``, or one of an image of another version."""

    message: Annotated[str, Field(max_length=2 * MAX_FAULT_MESSAGE)]


class WorkerFaults(BaseModel):
    """The present faults of a worker, the most important first; empty if nothing is wrong."""

    faults: Annotated[tuple[WorkerFault, ...], Field(max_length=MAX_FAULTS)] = ()
    drift: DriftStatus | None = None
    """How its records differ from the training profile; None if they are not compared, or too few
    were scored so far."""

    quality: QualityStatus | None = None
    """How well stored predictions agree with labels; None if another worker compares them, or none
    did so far."""


def worker_fault(reason: str, message: object) -> WorkerFault:
    """Return a fault; its message is escaped and bounded."""
    return WorkerFault(
        reason=str(reason), message=displayed(message, MAX_FAULT_MESSAGE - 64, lines=True)
    )
