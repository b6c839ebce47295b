"""The prediction store as the gateway reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fourways_runtime.scoring.columns import Key

from .base import Lookup, PublishedRun
from .streams.stream import AnswerKey, EventPosition, LiveLookup


class StoreReader(Protocol):
    """The store as the gateway sees it (asyncio)."""

    async def lookup(self, namespace: str, deployment: str, keys: list[Key]) -> Lookup | None:
        """Look up keys in the published run; None if nothing has been published yet.

        Keys are given in the contract's key type or as text; rows are returned under the keys as
        given. A key that does not fit the type counts as not found. Raises StoreUnavailable within
        the reader's time-out.
        """
        ...

    async def deployments(self, namespace: str) -> list[tuple[str, PublishedRun]]:
        """Return the deployments with a published run."""
        ...

    async def live(
        self,
        namespace: str,
        deployment: str,
        keys: list[AnswerKey],
        places: Sequence[EventPosition] = (),
    ) -> LiveLookup | None:
        """Look up keys and questions in a stream's predictions; None if it never had a worker.

        Keys are given in the contract's key type or as text; predictions are returned under the
        keys and questions as given. ``places`` are events for which the same round trip checks
        whether they became dead letters. Raises StoreUnavailable within the reader's time-out.
        """
        ...

    async def ready(self) -> bool:
        """Tell whether the store answers."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...
