"""The demand for deployments that scale to zero, asked of the host's own gateways.

The operator's tracker does the asking, with loopback addresses and the host's own token.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from fourways_api import ModelDeployment
from fourways_api.callers import CallerPolicy
from fourways_api.demand import DEMAND_PATH, MAX_WAIT_SECONDS
from fourways_operator.demand import NO_GATEWAYS, DemandTracker
from fourways_operator.errors import GatewaySilent
from fourways_operator.facts import Demand
from fourways_operator.scaling import may_sleep
from fourways_operator.work_queue import Key as WorkKey

from .host_token import HostToken
from .managed import Key
from .servers import ANSWER_SECONDS, fetched


class LocalDemand:
    """What the gateways of this host report."""

    def __init__(self, keys: Path | None, changed: Callable[[Key, Demand | None], None]) -> None:
        """``keys`` is the folder of the API keys that gateways ask for, if they do."""
        self._keys = keys
        self._token = HostToken()
        self._changed = changed
        self._tracker = DemandTracker(self._ask, self._news)

    def callers(self) -> CallerPolicy | None:
        """Return who may ask the gateways: who has a key, and this host."""
        if self._keys is None:
            return None
        return CallerPolicy(keys_dir=str(self._keys.absolute()), issuers=(self._token.issuer,))

    def follow(self, key: Key, deployment: ModelDeployment | None, gateway: str | None) -> None:
        """Follow a deployment at a gateway's address; None: it, or the gateway, has gone."""
        asked = deployment is not None and gateway is not None and may_sleep(deployment)
        urls = {key[0]: f"{gateway}{DEMAND_PATH}"} if asked else NO_GATEWAYS
        self._tracker.note(WorkKey(*key), urls)

    def stop(self) -> None:
        """Stop asking."""
        self._tracker.stop()

    def _news(self, key: WorkKey) -> None:
        self._changed((key.namespace, key.name), self._tracker.of(key))

    async def _ask(self, url: str) -> bytes:
        parts = urlsplit(url)
        header = self._token.header() if self._keys else ""
        path, seconds = f"{parts.path}?{parts.query}", MAX_WAIT_SECONDS + ANSWER_SECONDS
        try:
            return await fetched(parts.hostname or "", parts.port or 80, path, header, seconds)
        except (OSError, TimeoutError, ValueError) as error:
            raise GatewaySilent(f"{url}: {type(error).__name__}: {error}") from None
