"""The progress of runs, requested from each namespace's gateway independently of the reconciles.

The operator reads no store and holds no Secret; the gateway has the store open. This module decides
when to query a gateway, and owns its last responses. A reconcile only reads those responses, so a
gateway that is silent, slow or sends invalid data costs the figures and nothing else.

One request per namespace covers all of its runs. It is sent only while a run is in progress there,
at most every ten seconds, which also limits the writes of status.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import BaseModel, Field

from fourways_api import MAX_WORKERS_REPORTED, ProgressStatus, WorkerStatus
from fourways_api.backoff import Backoff

from .asking import ask, parsed
from .errors import GatewaySilent
from .facts import Json, rfc3339
from .plan.parts import GATEWAY
from .work_queue import Key

logger = logging.getLogger(__name__)

PAUSE, LONGEST_PAUSE = 10.0, 160.0
Ask = Callable[[str], Awaitable[bytes]]
"""Requests the runs in progress from a namespace's gateway. Raises GatewaySilent."""

Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, lt=1e9, allow_inf_nan=False)]


class _Worker(BaseModel):
    name: Annotated[str, Field(max_length=253)]
    rows: Count
    rejects: Count
    rows_per_second: Rate
    alive: bool


class _Progress(BaseModel):
    rows: Count
    total_rows: Count | None = None
    rejects: Count
    rows_per_second: Rate
    eta_seconds: Seconds | None = None
    workers: tuple[_Worker, ...] = ()


class _Run(BaseModel):
    deployment: str
    run: str
    progress: _Progress


class _Answer(BaseModel):
    """The fields of a gateway's response that are read: another version may send more."""

    runs: tuple[_Run, ...]


class RunProgressTracker:
    """The last known progress of runs. Use it only in its event loop."""

    def __init__(
        self,
        ask: Ask,
        changed: Callable[[Key], None],
        now: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``changed`` is called with a deployment whose figures changed."""
        self._ask = ask
        self._changed = changed
        self._now = now
        self._sleep = sleep
        self._at_work: dict[Key, str] = {}
        self._known: dict[Key, ProgressStatus] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}

    def of(self, key: Key) -> dict[str, ProgressStatus]:
        """Return the progress of a deployment's run, by the run's name; empty if unknown."""
        known = self._known.get(key)
        return {self._at_work[key]: known} if known else {}

    def note(self, key: Key, status: Json | None) -> None:
        """Follow the run that is in progress by a deployment's status; None if it is deleted."""
        run = _at_work(status or {})
        if self._at_work.get(key) != run:
            self._known.pop(key, None)
        if run is None:
            self._at_work.pop(key, None)
            return
        self._at_work[key] = run
        if key.namespace not in self._asking:
            task = asyncio.create_task(self._follow(key.namespace))
            self._asking[key.namespace] = task

    def forget_all_but(self, keys: Collection[Key]) -> None:
        """Forget deployments that were deleted without a watch event."""
        for key in self._at_work.keys() - set(keys):
            self.note(key, None)

    def stop(self) -> None:
        """Stop all requests."""
        for task in self._asking.values():
            task.cancel()

    async def _follow(self, namespace: str) -> None:
        backoff, silent = Backoff(PAUSE, LONGEST_PAUSE), False
        while any(key.namespace == namespace for key in self._at_work):
            try:
                self._learn(
                    namespace,
                    parsed(_Answer, await self._ask(namespace), "a gateway's answer about runs"),
                )
                pause, silent = PAUSE, False
                backoff.reset()
            except GatewaySilent as fault:
                # Warned about only once: a gateway may be unavailable for a long time.
                logger.log(logging.DEBUG if silent else logging.WARNING, "%s", fault)
                pause, silent = backoff.pause(), True
            except Exception:
                logger.exception("progress of %s: unexpected, please report it", namespace)
                pause = LONGEST_PAUSE
            await self._sleep(pause)
        del self._asking[namespace]

    def _learn(self, namespace: str, answer: _Answer) -> None:
        for run in answer.runs:
            key = Key(namespace, run.deployment)
            if self._at_work.get(key) != run.run:
                continue  # its Job no longer exists or is not the latest
            figures = _figures(run.progress, self._now())
            if not _same(figures, self._known.get(key)):
                self._known[key] = figures
                self._changed(key)


def _at_work(status: Json) -> str | None:
    """Return the run in progress by the status: its Job exists and has not ended."""
    run = status.get("lastRun") or {}
    progressing = any(
        c["type"] == "Progressing" and c["status"] == "True" for c in status.get("conditions", ())
    )
    return str(run["name"]) if progressing and run.get("outcome") == "Running" else None


def _figures(reported: _Progress, now: datetime) -> ProgressStatus:
    left = reported.eta_seconds
    return ProgressStatus(
        rows=reported.rows,
        total_rows=reported.total_rows,
        rejects=reported.rejects,
        rows_per_second=_rounded(reported.rows_per_second),
        estimated_completion=None if left is None else rfc3339(now + timedelta(seconds=left)),
        workers=tuple(
            WorkerStatus(
                name=worker.name,
                rows=worker.rows,
                rejects=worker.rejects,
                rows_per_second=_rounded(worker.rows_per_second),
                alive=worker.alive,
            )
            for worker in reported.workers[:MAX_WORKERS_REPORTED]
        ),
        updated_at=rfc3339(now),
    )


def _same(figures: ProgressStatus, before: ProgressStatus | None) -> bool:
    """Tell whether only times differ."""
    moments = {"updated_at": "", "estimated_completion": None}
    return before is not None and (
        figures.model_copy(update=moments) == before.model_copy(update=moments)
    )


def _rounded(rate: float) -> float:
    return float(f"{rate:.3g}")


async def ask_gateway(namespace: str) -> bytes:
    """Query a namespace's gateway at its Service's name. Raises GatewaySilent."""
    return await ask(f"http://{GATEWAY}.{namespace}.svc/runs")
