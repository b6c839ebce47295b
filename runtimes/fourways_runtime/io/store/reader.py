"""The prediction store as the gateway reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fourways_runtime.scoring.columns import Key

from .base import Lookup, PublishedRun
from .streams.stream import EventPosition, LiveLookup


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
        self, namespace: str, deployment: str, keys: list[Key], places: Sequence[EventPosition] = ()
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
