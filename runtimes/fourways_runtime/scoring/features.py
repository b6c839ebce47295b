"""The interface for looking up inputs by entity key while a request waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from .columns import Key

Row: TypeAlias = Mapping[str, Any]
"""Values by input name: plain Python values as in JSON, None for a missing one."""


class FeatureReader(Protocol):
    """A feature database as servers see it."""

    async def fetch(self, keys: Sequence[Key]) -> Mapping[Key, Row]:
        """Return the existing rows by key; the result may include keys that were not requested.

        Raises:
            FeaturesUnavailable: no response within the time budget.

        """

    def age(self, key: Key) -> float:
        """Return how many seconds ago the row that :meth:`fetch` returns was looked up."""

    async def check(self) -> None:
        """Connect, and check that every input has a column of a compatible type.

        Raises:
            FeaturesUnavailable: it cannot be reached, or rejects the connection.
            ConfigError: the configuration is invalid; FeaturesMismatch names the columns.

        """

    async def close(self) -> None:
        """Abandon the lookups in progress and disconnect."""
