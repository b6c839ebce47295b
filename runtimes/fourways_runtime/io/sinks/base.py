"""Where predictions go instead of the prediction store, as the batch shell sees it.

A run's chunks are written by several workers, each chunk perhaps more than once: a worker may die
over it, or be overtaken. Readers only ever see what :meth:`PredictionSink.publish` is told of. The
order is always: make the chunk durable, record its receipt in the ledger, publish when all are
recorded. So a receipt must be enough to find what was written, and each attempt writes apart from
every other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from fourways_runtime.scoring.columns import Predictions, Reject


class SinkChunk(Protocol):
    """A chunk as it is written. Calls come one at a time, from one thread."""

    def write(self, predictions: Predictions) -> None:
        """Append predictions. Raises Unavailable."""
        ...

    def finish(self) -> str:
        """Make what was written durable; return what publishing needs to find it."""
        ...

    def abandon(self) -> None:
        """Drop what was written, as far as that is possible. Raises nothing."""
        ...


class PredictionSink(Protocol):
    """A place for the predictions of one run. Every call may raise ConfigError or Unavailable."""

    def begin(self) -> None:
        """Check that the place can be written to, and prepare it. Each worker calls it."""
        ...

    def chunk(self, number: int, attempt: int) -> SinkChunk:
        """Begin to write a chunk; ``attempt`` tells apart those who write the same one."""
        ...

    def repeated(self, receipts: Mapping[int, str]) -> list[Reject]:
        """Return the rows of these chunks whose key occurs again further down; change nothing.

        They are what publishing leaves out. Asked before it.
        """
        ...

    def publish(self, receipts: Mapping[int, str]) -> None:
        """Let readers see exactly these chunks, whole, instead of what they saw before.

        Called again with the same receipts where nobody knows whether the first call got through:
        the outcome must be the same. Of rows with one key that of the later position counts.
        """
        ...

    def discard(self) -> None:
        """Drop what this run wrote and did not publish; nothing may be there."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...
