"""Checks once a second whether the feature database answers, also while nobody asks for features.

Requests show a failure only to those who send them. The monitor makes it a fault that the operator
reads. While lookups succeed, nothing is sent to the database; otherwise an empty lookup is. Two
checks in a row have to fail, so that one slow response is no fault.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from fourways_runtime.errors import FeaturesUnavailable, WorkloadError

from .base import WHAT
from .coalesced import CoalescedFeatures

LOOK_SECONDS = 1.0
PROBE_SECONDS = 1.0
"""Maximum time of an empty lookup, and of the connection that shows why it failed."""

FAILURES = 2
"""Number of consecutive failed checks that make a fault."""

logger = logging.getLogger("fourways.features")


class FeatureMonitor:
    """Knows whether one feature database answers. Use it only on its event loop.

    Args:
        features: the database.
        secret: the name of the Secret with its address, which messages name.

    """

    def __init__(
        self,
        features: CoalescedFeatures,
        secret: str,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._features = features
        self._secret = secret
        self._sleep = sleep
        self._failures = 0
        self._answered = features.answered
        self._error: WorkloadError | None = None

    @property
    def fault(self) -> WorkloadError | None:
        """Why the database answers nobody at present; None if it does."""
        return self._error if self._failures >= FAILURES else None

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            await self._sleep(LOOK_SECONDS)
            try:
                await self.look()
            except Exception:
                logger.exception("checking the feature database failed; continuing")

    async def look(self) -> None:
        """Check once."""
        answered = self._features.answered
        if answered == self._answered:
            try:
                await self._within(self._features.ping())
            except WorkloadError as error:
                await self._failed(error, answered)
                return
        self._answered = self._features.answered
        self._failures, self._error = 0, None

    async def _failed(self, error: WorkloadError, answered: int) -> None:
        try:
            # A connection outside the pool shows the cause, for example a rejected login.
            await self._within(self._features.check())
        except FeaturesUnavailable as cause:
            error = cause
        except WorkloadError:
            pass  # it answers, and refuses the lookup: the first error says why
        else:
            return  # it answers: the pool will connect again
        if self._features.answered != answered:
            return  # a request was answered meanwhile: the next look decides
        self._error = FeaturesUnavailable(f"{error} (Secret {self._secret})")
        self._failures += 1

    async def _within(self, asked: Awaitable[None]) -> None:
        try:
            await asyncio.wait_for(asked, PROBE_SECONDS)
        except TimeoutError:
            raise FeaturesUnavailable(f"{WHAT}: no response in {PROBE_SECONDS:g} s") from None
