"""The interface of a sink for the batch workload.

A run's chunks are written by several workers, and a chunk perhaps more than once: a worker may die
while writing it, or be overtaken. Readers only ever see the chunks passed to
:meth:`PredictionSink.publish`. The order is always: make the chunk durable, record its receipt in
the ledger, publish when all are recorded. So a receipt must be enough to find what was written, and
each attempt writes separately from all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from fourways_runtime.scoring.columns import Predictions, Reject


class SinkChunk(Protocol):
    """A chunk while it is written. Calls come one at a time, from one thread."""

    def write(self, predictions: Predictions) -> None:
        """Append predictions. Raises Unavailable."""
        ...

    def finish(self) -> str:
        """Make what was written durable; return what publishing needs to find it."""
        ...

    def abandon(self) -> None:
        """Delete what was written, as far as possible. Raises nothing."""
        ...


class PredictionSink(Protocol):
    """The destination of one run's predictions. Every call may raise ConfigError or Unavailable."""

    def begin(self) -> None:
        """Check that the destination is writable, and prepare it. Each worker calls this."""
        ...

    def probe(self) -> None:
        """Ask the destination something small, apart from all other calls; change nothing."""
        ...

    def chunk(self, number: int, attempt: int) -> SinkChunk:
        """Begin to write a chunk; ``attempt`` distinguishes several writers of the same chunk."""
        ...

    def repeated(self, receipts: Mapping[int, str]) -> list[Reject]:
        """Return the rows of these chunks whose key occurs again in a later row; change nothing.

        These are the rows that publishing leaves out. Called before :meth:`publish`.
        """
        ...

    def publish(self, receipts: Mapping[int, str]) -> None:
        """Show readers exactly these chunks, all at once, in place of the previous predictions.

        This is called again with the same receipts if it is unknown whether the first call
        succeeded: the result must be the same. If several rows share a key, the one at the latest
        position wins.
        """
        ...

    def discard(self) -> None:
        """Delete what this run wrote and did not publish, if anything."""
        ...

    def close(self) -> None:
        """Close connections."""
        ...
