"""The demand for deployments that scale to zero, asked of the gateways' pods.

A gateway holds the requests for a sleeping deployment and has no right to start anything. So the
operator waits for news at each of its pods: a request that is answered once something changes.
Every pod is asked, not the Service: each knows only its own requests.

Gateways are not trusted: a response is bounded and checked, and can only start or end replicas of
deployments of its own namespace whose spec allows it, between none and one. If one of the pods is
silent, nothing is known to be idle, so nothing is put to sleep.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from fourways_api import ModelDeployment
from fourways_api.backoff import Backoff
from fourways_api.demand import DEMAND_PATH, MAX_WAIT_SECONDS, DeploymentDemand, GatewayDemand

from .asking import ask, parsed, pod_url
from .errors import GatewaySilent
from .facts import Demand, Json
from .plan.parts import COMPONENT_LABEL
from .plan.worker import PORT
from .pods import is_ready
from .scaling import may_sleep
from .work_queue import Key

logger = logging.getLogger(__name__)

PAUSE = 0.05
"""Seconds between two requests to a gateway that answers at once."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
"""Pauses after a gateway was silent."""

ANSWER_SECONDS = 5.0
"""Time that a response may take, beside the time for which it is held back."""

NO_GATEWAYS: Mapping[str, str] = {}

AskDemand = Callable[[str], Awaitable[bytes]]
"""Requests a gateway's demand at a URL. Raises GatewaySilent."""


@dataclass(frozen=True, slots=True)
class _Source:
    namespace: str
    url: str


class DemandTracker:
    """The demand that gateways reported last. Use it only in its event loop."""

    def __init__(
        self,
        ask: AskDemand,
        changed: Callable[[Key], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``changed`` is called with a deployment whose demand changed."""
        self._ask = ask
        self._changed = changed
        self._sleep = sleep
        self._gateways: dict[Key, frozenset[str]] = {}
        self._reports: dict[_Source, dict[str, DeploymentDemand]] = {}
        self._following: dict[_Source, asyncio.Task[None]] = {}

    def of(self, key: Key) -> Demand | None:
        """Return the demand for a deployment; None while no gateway has reported it."""
        urls = self._gateways.get(key, frozenset())
        reports = [self._reports.get(_Source(key.namespace, url), {}).get(key.name) for url in urls]
        known = [one for one in reports if one is not None]
        if not known:
            return None
        woken = [one for one in known if one.woken_at and one.cold_start_seconds is not None]
        last = max(woken, key=lambda one: str(one.woken_at), default=None)
        return Demand(
            waiting=sum(one.waiting for one in known),
            idle=len(known) == len(urls) and all(one.idle for one in known),
            cold_start_seconds=last.cold_start_seconds if last else None,
            woken_at=last.woken_at if last else None,
        )

    def note(self, key: Key, gateways: Mapping[str, str]) -> None:
        """Follow a deployment at these gateways from now on: URLs by the pod's name."""
        if not gateways:
            self._gateways.pop(key, None)
        else:
            self._gateways[key] = frozenset(gateways.values())
        for url in gateways.values():
            source = _Source(key.namespace, url)
            if source not in self._following:
                self._following[source] = asyncio.create_task(self._follow(source))

    def forget_all_but(self, keys: Collection[Key]) -> None:
        """Forget deployments that were deleted without a watch event."""
        for key in self._gateways.keys() - set(keys):
            self.note(key, NO_GATEWAYS)

    def stop(self) -> None:
        """Stop all requests."""
        for task in self._following.values():
            task.cancel()

    def _keys_at(self, source: _Source) -> list[Key]:
        return [
            key
            for key, urls in self._gateways.items()
            if key.namespace == source.namespace and source.url in urls
        ]

    async def _follow(self, source: _Source) -> None:
        backoff, mark = Backoff(FIRST_PAUSE, LONGEST_PAUSE), ""
        while self._keys_at(source):
            pause = PAUSE
            try:
                query = f"?mark={mark}&wait={MAX_WAIT_SECONDS:g}"
                text = await self._ask(source.url + query)
                found = parsed(GatewayDemand, text, "a gateway's answer about demand")
                mark = found.mark
                self._learn(source, {one.deployment: one for one in found.deployments})
                backoff.reset()
            except GatewaySilent as fault:
                logger.debug("%s", fault)
                mark, pause = "", backoff.pause()
                self._learn(source, {})
            except Exception:
                logger.exception("demand of %s: unexpected, please report it", source.namespace)
                mark, pause = "", LONGEST_PAUSE
            await self._sleep(pause)
        self._reports.pop(source, None)
        del self._following[source]

    def _learn(self, source: _Source, report: dict[str, DeploymentDemand]) -> None:
        keys = self._keys_at(source)
        before = {key: self.of(key) for key in keys}
        self._reports[source] = report
        for key in keys:
            if self.of(key) != before[key]:
                self._changed(key)


def urls_of_gateways(deployment: ModelDeployment | None, pods: Sequence[Json]) -> Mapping[str, str]:
    """Return where gateways report the demand for a deployment, by the pod's name. Pure.

    Empty if it does not scale to zero.
    """
    if deployment is None or not may_sleep(deployment):
        return NO_GATEWAYS
    urls = {}
    for pod in pods:
        url, meta = pod_url(pod, PORT, DEMAND_PATH), pod["metadata"]
        labels = meta.get("labels") or {}
        if url and labels.get(COMPONENT_LABEL) == "gateway" and is_ready(pod):
            urls[meta["name"]] = url
    return urls


async def ask_demand(url: str) -> bytes:
    """Query a gateway's pod, and wait until it has news. Raises GatewaySilent."""
    return await ask(url, MAX_WAIT_SECONDS + ANSWER_SECONDS)
