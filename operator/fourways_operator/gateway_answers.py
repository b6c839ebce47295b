"""Whether each namespace's gateway answers for its deployments, asked apart from the reconciles.

The state of pods says that a model server is ready, not that the gateway can reach it: a network
policy, a name that does not resolve or the gateway's own address of the store may be wrong. So this
module asks the gateway, as a client would, whether each deployment is ready whose own objects serve
predictions. A deployment scaled to zero has none, so the question does not start it.

It decides when to ask a gateway, and owns the answers. A gateway that does not respond at all costs
nothing but the answers: its own pods' state decides then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from http import HTTPStatus

from .asking import ask
from .conditions.common import GATEWAY_REFUSALS
from .errors import GatewaySilent
from .plan.parts import GATEWAY
from .work_queue import Key

logger = logging.getLogger(__name__)

PAUSE = 4.0
"""Seconds between two rounds of requests to one gateway."""

FIRST_PAUSE = 0.5
"""Seconds between two requests for a deployment until its first answer: its Ready waits for it."""

ANSWER_SECONDS = 4.0
"""Longer than the gateway waits for its store."""

WITHIN_SECONDS = 2.0
"""How long the gateway waits for a model server. It then says so, whatever the deployment's own
time-out is."""

MAX_AT_ONCE = 16
"""Maximum number of requests at a time, over all namespaces."""

REFUSALS = 2
"""Number of consecutive refusals that count: a rollout may cause a single one."""

MAX_SILENCE = 3
"""Number of consecutive missed answers after which the last answer no longer counts."""

FIRST_REFUSALS, FIRST_SILENCE = 4, 6
"""The same before the first answer. The nodes may not know the deployment's Service yet, nor the
gateway's if it is new too."""

AskReady = Callable[[str, str], Awaitable[bytes]]
"""Requests a deployment's readiness from a namespace's gateway. Raises GatewaySilent."""


class GatewayAnswerTracker:
    """The gateways' last answers, by deployment. Use it only in its event loop."""

    def __init__(
        self,
        ask_ready: AskReady,
        changed: Callable[[Key], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``changed`` is called with a deployment whose answer changed."""
        self._ask = ask_ready
        self._changed = changed
        self._sleep = sleep
        self._followed: set[Key] = set()
        self._known: dict[Key, int] = {}
        self._refused: dict[Key, int] = {}
        self._silent: dict[Key, int] = {}
        self._room = asyncio.Semaphore(MAX_AT_ONCE)
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._first: dict[Key, asyncio.Task[None]] = {}

    def of(self, key: Key) -> int | None:
        """Return the status code of the last answer about a deployment; None before the first."""
        return self._known.get(key)

    def note(self, key: Key, serves: bool) -> None:
        """Ask about a deployment from now on if objects of it serve predictions."""
        if not serves:
            self._followed.discard(key)
            for kept in (self._known, self._refused, self._silent):
                kept.pop(key, None)
            return
        self._followed.add(key)
        if key not in self._known and key not in self._first:
            self._first[key] = asyncio.create_task(self._until_known(key))

    def forget_all_but(self, keys: Collection[Key]) -> None:
        """Forget deployments that were deleted without a watch event."""
        for key in self._followed - set(keys):
            self.note(key, False)

    def stop(self) -> None:
        """Stop all requests."""
        for task in (*self._asking.values(), *self._first.values()):
            task.cancel()

    async def _until_known(self, key: Key) -> None:
        while key in self._followed:
            await self._one(key)
            if key in self._known:
                break
            await self._sleep(FIRST_PAUSE)
        del self._first[key]
        if key in self._known and key.namespace not in self._asking:
            task = asyncio.create_task(self._follow(key.namespace))
            self._asking[key.namespace] = task

    async def _follow(self, namespace: str) -> None:
        await self._sleep(PAUSE)
        while keys := [key for key in self._known if key.namespace == namespace]:
            await asyncio.gather(*map(self._one, keys))
            await self._sleep(PAUSE)
        del self._asking[namespace]

    async def _one(self, key: Key) -> None:
        code: int | None = HTTPStatus.OK
        try:
            async with self._room:
                await self._ask(key.namespace, key.name)
        except GatewaySilent as fault:
            code = fault.http_status if fault.http_status in GATEWAY_REFUSALS else None
            logger.debug("%s", fault)
        except Exception:
            code = None
            logger.exception("readiness of %s: unexpected, please report it", key)
        if key in self._followed:
            self._learn(key, code)

    def _learn(self, key: Key, code: int | None) -> None:
        refusals, silence = REFUSALS, MAX_SILENCE
        if key not in self._known:
            refusals, silence = FIRST_REFUSALS, FIRST_SILENCE
        if code is None:
            self._silent[key] = self._silent.get(key, 0) + 1
            if self._silent[key] < silence:
                return
            code = HTTPStatus.OK  # the gateway's own state decides
        else:
            self._silent.pop(key, None)
        if code == HTTPStatus.OK:
            self._refused.pop(key, None)
        else:
            self._refused[key] = self._refused.get(key, 0) + 1
            if self._refused[key] < refusals:
                return
        before, self._known[key] = self._known.get(key), int(code)
        if code != before:
            self._changed(key)


async def ask_ready_of(namespace: str, deployment: str) -> bytes:
    """Query a namespace's gateway at its Service's name. Raises GatewaySilent."""
    url = f"http://{GATEWAY}.{namespace}.svc/v2/models/{deployment}/ready"
    return await ask(url, ANSWER_SECONDS, headers={"X-Request-Timeout": f"{WITHIN_SECONDS:g}"})
