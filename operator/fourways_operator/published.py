"""Query each namespace's gateway for the run that serves, independently of the reconciles.

Status remembers the last published run. The store may have been emptied or restored since, or may
contain a run that this status never showed (the deployment was in another mode meanwhile). So this
module queries the gateway for the current run of each batch deployment once a minute. The operator
reads no store and holds no Secret. If a gateway does not respond, the last response stays valid.

It decides when to query a gateway, and owns the responses. ``conditions.batch`` interprets them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, Field

from fourways_api import RunStatus

from .asking import ask, parsed
from .errors import GatewaySilent
from .facts import Json, StoreAnswer, rfc3339
from .plan.parts import GATEWAY
from .work_queue import Key

logger = logging.getLogger(__name__)

PAUSE = 60.0
"""Seconds between two rounds of queries to one gateway."""

AskRuns = Callable[[str, str], Awaitable[bytes]]
"""Requests the runs of a deployment from a namespace's gateway. Raises GatewaySilent."""

_Count = Annotated[int, Field(ge=0, lt=1 << 63)]


class _Record(BaseModel):
    """The fields of a run in the gateway's response that matter here."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    version: Annotated[str, Field(max_length=63)]
    rows: _Count
    rejects: _Count
    published_at: AwareDatetime | None = None
    current: bool


class _Runs(BaseModel):
    runs: tuple[_Record, ...]


class PublishedRunTracker:
    """The gateways' responses, by deployment. Use it only in its event loop."""

    def __init__(
        self,
        ask_runs: AskRuns,
        changed: Callable[[Key], None],
        now: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``changed`` is called with a deployment whose status and store name different runs."""
        self._ask = ask_runs
        self._changed = changed
        self._now = now
        self._sleep = sleep
        self._followed: dict[Key, str | None] = {}
        """By followed deployment: the run that serves according to its status."""

        self._answers: dict[Key, StoreAnswer] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}

    def of(self, key: Key) -> StoreAnswer | None:
        """Return the last response about a deployment, or None."""
        return self._answers.get(key)

    def note(self, key: Key, status: Json | None) -> None:
        """Follow a deployment while its status has mode batch; None if it is deleted."""
        if (status or {}).get("mode") != "batch":
            self._followed.pop(key, None)
            self._answers.pop(key, None)
            return
        self._followed[key] = ((status or {}).get("lastPublished") or {}).get("name")
        if key.namespace not in self._asking:
            task = asyncio.create_task(self._follow(key.namespace))
            self._asking[key.namespace] = task

    def forget_all_but(self, keys: Collection[Key]) -> None:
        """Forget deployments that were deleted without a watch event."""
        for key in self._followed.keys() - set(keys):
            self.note(key, None)

    def stop(self) -> None:
        """Stop all requests."""
        for task in self._asking.values():
            task.cancel()

    async def _follow(self, namespace: str) -> None:
        silent = False
        while keys := sorted(key for key in self._followed if key.namespace == namespace):
            try:
                for key in keys:
                    self._learn(key, _current(await self._ask(namespace, key.name)))
                silent = False
            except GatewaySilent as fault:
                # Logged once at INFO: a gateway may be unavailable for a long time.
                logger.log(logging.DEBUG if silent else logging.INFO, "%s", fault)
                silent = True
            except Exception:
                logger.exception("published runs of %s: unexpected, please report it", namespace)
            await self._sleep(PAUSE)
        del self._asking[namespace]

    def _learn(self, key: Key, current: RunStatus | None) -> None:
        if key not in self._followed:
            return
        self._answers[key] = StoreAnswer(self._now(), current)
        if self._followed[key] != (current.name if current else None):
            self._changed(key)


def _current(text: bytes) -> RunStatus | None:
    """Return the run that readers see from a gateway's response. Raises GatewaySilent."""
    runs = parsed(_Runs, text, "a gateway's answer about runs").runs
    found = next((run for run in runs if run.current), None)
    if found is None:
        return None
    return RunStatus(
        name=found.name,
        outcome="Succeeded",
        finished_at=rfc3339(found.published_at) if found.published_at else None,
        version=found.version,
        rows=found.rows,
        rejects=found.rejects,
    )


async def ask_runs_of(namespace: str, deployment: str) -> bytes:
    """Query a namespace's gateway at its Service's name. Raises GatewaySilent."""
    return await ask(f"http://{GATEWAY}.{namespace}.svc/runs/{deployment}")
