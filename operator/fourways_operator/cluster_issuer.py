"""The cluster as an issuer of tokens: its name and its public keys, read from the API server.

Gateways verify tokens of ServiceAccounts with these, so they need neither a token of their own nor
a connection to the API server. The keys are public; every ServiceAccount may read them.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from pydantic import ValidationError

from fourways_api.callers import ClusterIssuer

from .errors import ApiFault
from .facts import Json

logger = logging.getLogger(__name__)

CONFIGURATION = "/.well-known/openid-configuration"
KEYS = "/openid/v1/jwks"

EVERY_SECONDS = 600.0
"""Time between two reads: the API server's keys are rotated rarely."""

SOON_SECONDS = 10.0
"""Time to the next read after a failed one."""

Read = Callable[[str], Awaitable[Json]]
"""Reads a path of the API server. Raises ApiFault."""


async def read_cluster_issuer(read: Read) -> ClusterIssuer | None:
    """Return the issuer; None if the API server does not say, which is logged."""
    try:
        configuration, keys = await read(CONFIGURATION), await read(KEYS)
        listed = sorted(keys["keys"], key=lambda key: str(key.get("kid", "")))
        return ClusterIssuer(issuer=configuration["issuer"], jwks={"keys": listed})
    except (ApiFault, KeyError, TypeError, AttributeError, ValidationError) as error:
        logger.warning(
            "the cluster's public keys cannot be read, so gateways refuse tokens of "
            "ServiceAccounts: %s",
            error,
        )
        return None


class ClusterIssuerWatch:
    """Reads the issuer again from time to time, and reports a change."""

    def __init__(
        self,
        read: Read,
        changed: Callable[[ClusterIssuer], None],
        sleep: Callable[[float], Awaitable[None]],
        known: ClusterIssuer | None,
    ) -> None:
        self._read = read
        self._changed = changed
        self._sleep = sleep
        self._known = known

    async def run(self) -> None:
        """Run until cancelled. What was known stays valid while the API server does not answer."""
        while True:
            await self._sleep(SOON_SECONDS if self._known is None else EVERY_SECONDS)
            found = await read_cluster_issuer(self._read)
            if found is not None and found != self._known:
                self._known = found
                self._changed(found)
