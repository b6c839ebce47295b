"""The prediction store, as its writers and readers see it.

One schema, two databases: PostgreSQL in a cluster, SQLite embedded. A run's predictions go to a
table of the run's own, with typed columns from the contract's outputs, and are published by moving
a pointer in one transaction: readers see the run before or the run after, whole. The store
describes itself (each run carries its contract), so a reader needs nothing but its address.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, Self

from fourways_api import Contract

from ..records import Predictions, Reject

Key = str | int


@dataclass(frozen=True, slots=True)
class Run:
    """A batch run, identified by namespace, deployment and the Job's name."""

    namespace: str
    deployment: str
    name: str
    version: str
    digest: str
    contract: Contract
    started_at: datetime


@dataclass(frozen=True, slots=True)
class PublishedRun:
    """A run readers see. ``computed_at`` is when its predictions were made (UTC)."""

    name: str
    version: str
    digest: str
    contract: Contract
    computed_at: datetime
    rows: int
    rejects: int


@dataclass(frozen=True, slots=True)
class Lookup:
    """The answer to a question by keys: the run it comes from and a row for each key found."""

    run: PublishedRun
    rows: dict[Key, dict[str, Any]]
    """By key: outputs by name, as plain Python values (lists for arrays)."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A run as it will be published: how many rows it holds, and how many were refused."""

    rows: int
    rejects: int


class RunWriter(Protocol):
    """Writes one run aside and publishes it whole. Leaving the context without publish drops it.

    Calls may come from different threads, one at a time.
    """

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...

    def write(self, predictions: Predictions) -> None:
        """Append predictions. Raises StoreUnavailable."""
        ...

    def reject(self, rejects: list[Reject]) -> None:
        """Append rejects. Raises StoreUnavailable."""
        ...

    def seal(self) -> Sealed:
        """End the writing: index the keys, and settle the ones that occur more than once.

        Such a key keeps the row furthest down the source; each one before is a reject. Only now
        is the number of rejects final: judge it before publishing. Raises StoreUnavailable.
        """
        ...

    def publish(self, keep: int) -> PublishedRun:
        """Make this run (sealed here, if it was not) what readers see; keep ``keep`` runs in all.

        Older runs are dropped, and so is what dead workers left behind. Where the connection
        breaks before the answer, nobody knows which side of the commit it broke on: raises
        StoreUnavailable, and the next try asks ``finished``. Also raised where another try took
        this run over. The run before stays published then.
        """
        ...


class StoreWriter(Protocol):
    """The store as a batch worker sees it (blocking)."""

    def open_run(self, run: Run) -> RunWriter:
        """Start a run. What an earlier try of the same run left behind is dropped first.

        A run of this name that is published already is not touched: raises ConfigError. Ask
        ``finished`` first. Raises StoreUnavailable.
        """
        ...

    def finished(self, namespace: str, deployment: str, run: str) -> PublishedRun | None:
        """Return this very run if it was published, whether or not readers still see it."""
        ...

    def published(self, namespace: str, deployment: str) -> PublishedRun | None:
        """Return the run readers see now."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


class StoreReader(Protocol):
    """The store as the gateway sees it (asyncio)."""

    async def lookup(self, namespace: str, deployment: str, keys: list[Key]) -> Lookup | None:
        """Answer by keys from the published run; None where nothing was published yet.

        Keys are given in the contract's key type or as text; rows come back under the keys as
        given. A key that cannot be one of that type is one that is not found.
        Raises StoreUnavailable, within the time-out the reader was opened with.
        """
        ...

    async def deployments(self, namespace: str) -> list[tuple[str, PublishedRun]]:
        """Return the deployments with a published run."""
        ...

    async def ready(self) -> bool:
        """Tell whether the store answers."""
        ...

    async def close(self) -> None:
        """Let go of all connections."""
        ...
