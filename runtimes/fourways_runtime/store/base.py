"""The prediction store, as its writers and readers see it.

One schema, two databases: PostgreSQL in a cluster, SQLite embedded. A run's predictions go to a
table of the run's own, with typed columns from the contract's outputs, and are published by moving
a pointer in one transaction: readers see the run before or the run after, whole. The store
describes itself (each run carries its contract), so a reader needs nothing but its address.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from fourways_api import Contract

if TYPE_CHECKING:
    from .stream import LiveLookup, Place

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

    async def live(
        self, namespace: str, deployment: str, keys: list[Key], places: Sequence[Place] = ()
    ) -> LiveLookup | None:
        """Answer by keys from a stream; None where no worker of it ever started.

        Keys are given in the contract's key type or as text; answers come back under the keys as
        given. ``places`` are events of which it is asked, in the same round trip, whether they
        became dead letters. Raises StoreUnavailable, within the time-out the reader was opened
        with.
        """
        ...

    async def ready(self) -> bool:
        """Tell whether the store answers."""
        ...

    async def close(self) -> None:
        """Let go of all connections."""
        ...
