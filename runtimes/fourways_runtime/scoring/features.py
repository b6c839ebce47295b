"""Inputs looked up by entity key while a request waits, as whoever completes requests sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from .columns import Key

Row: TypeAlias = Mapping[str, Any]
"""Values by input name: plain Python values as JSON has them, None where there is none."""


class FeatureReader(Protocol):
    """A feature database as servers see it."""

    async def fetch(self, keys: Sequence[Key]) -> Mapping[Key, Row]:
        """Return the rows there are, by key; rows of keys nobody here asked for may be among them.

        Raises:
            FeaturesUnavailable: no answer within the time budget.

        """

    async def check(self) -> None:
        """Connect, and see that every input has a column of a type that fits.

        Raises:
            FeaturesUnavailable: it cannot be reached, or refuses us.
            ConfigError: what was asked for makes no sense; FeaturesMismatch names the columns.

        """

    async def close(self) -> None:
        """Give up what is under way and disconnect."""
