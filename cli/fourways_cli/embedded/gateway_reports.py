"""What the host's own gateways know of deployments: demand and drift.

That is the demand for deployments that scale to zero, and what devices tell of their records. The
operator's trackers do the asking, with loopback addresses and the host's own token.
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
from fourways_operator.scaling import may_sleep
from fourways_operator.work_queue import Key as WorkKey
from fourways_operator.worker_faults import NO_WORKERS, WorkerFaultTracker

from .host_token import HostToken
from .managed import GatewayReport, Key
from .servers import ANSWER_SECONDS, fetched

_GATEWAY = "gateway"


class LocalReports:
    """What the gateways of this host report."""

    def __init__(self, keys: Path | None, changed: Callable[[Key, GatewayReport], None]) -> None:
        """``keys`` is the folder of the API keys that gateways ask for, if they do."""
        self._keys = keys
        self._token = HostToken()
        self._changed = changed
        self._demand = DemandTracker(self._ask_and_wait, self._news)
        self._drift = WorkerFaultTracker(self._ask, self._news)

    def callers(self) -> CallerPolicy | None:
        """Return who may ask the gateways: who has a key, and this host."""
        if self._keys is None:
            return None
        return CallerPolicy(keys_dir=str(self._keys.absolute()), issuers=(self._token.issuer,))

    def follow(self, key: Key, deployment: ModelDeployment | None, gateway: str | None) -> None:
        """Follow a deployment at a gateway's address; None: it, or the gateway, has gone."""
        asked = deployment is not None and gateway is not None and may_sleep(deployment)
        urls = {key[0]: f"{gateway}{DEMAND_PATH}"} if asked else NO_GATEWAYS
        self._demand.note(WorkKey(*key), urls)
        reports = deployment is not None and gateway is not None and _has_devices(deployment)
        url = {_GATEWAY: f"{gateway}/deployments/{key[1]}/drift"} if reports else NO_WORKERS
        self._drift.note(WorkKey(*key), url)

    def stop(self) -> None:
        """Stop asking."""
        self._demand.stop()
        self._drift.stop()

    def _news(self, key: WorkKey) -> None:
        reported = self._drift.of(key).get(_GATEWAY)
        report = GatewayReport(self._demand.of(key), reported.drift if reported else None)
        self._changed((key.namespace, key.name), report)

    async def _ask_and_wait(self, url: str) -> bytes:
        return await self._ask(url, MAX_WAIT_SECONDS + ANSWER_SECONDS)

    async def _ask(self, url: str, seconds: float = ANSWER_SECONDS) -> bytes:
        parts = urlsplit(url)
        header = self._token.header() if self._keys else ""
        path = f"{parts.path}?{parts.query}"
        try:
            return await fetched(parts.hostname or "", parts.port or 80, path, header, seconds)
        except (OSError, TimeoutError, ValueError) as error:
            raise GatewaySilent(f"{url}: {type(error).__name__}: {error}") from None


def _has_devices(deployment: ModelDeployment) -> bool:
    """Return whether devices may tell of their records."""
    spec = deployment.spec
    return spec.monitoring is not None and spec.choice().mode == "edge"
