"""The record of batch runs: the list of runs, their progress, diffs and rejects.

Read-only. The cluster's permissions decide who may change what is published (``fourways rollback``
creates a Job), not access to the gateway.

These requests come from people, and rarely. Each one opens the store anew on a thread of its own,
separate from the connections that serve predictions, and only a few run at a time.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry

from fourways_http import HttpError, Request, Response, Router, json_response
from fourways_runtime.errors import ConfigError, StoreUnavailable, WorkloadError
from fourways_runtime.io.store.recent import MAX_ANSWERS
from fourways_runtime.io.store.runs.record import RunProgress
from fourways_runtime.io.store.runs.store import RunStore
from fourways_runtime.process import in_thread

from .mode import RETRY, deployment_of
from .run_gauges import RunGauges, UnderWay

logger = logging.getLogger("fourways.gateway.runs")

T = TypeVar("T")
OpenRunStore = Callable[[], RunStore]
"""Opens the store; blocks. Raises StoreUnavailable or ConfigError."""

RUN_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
SECONDS = 25.0
"""Maximum time of a response; a diff compares two runs row by row."""

AT_ONCE = 2
MAX_REJECTS = 10_000
_REJECTS = 100
SHOWN_ANSWERS = 20


@dataclass(frozen=True, slots=True)
class RunUnderWay:
    """An unfinished run, and its progress."""

    deployment: str
    run: str
    progress: RunProgress


class Runs:
    """Answers requests about the runs of a namespace's batch deployments."""

    def __init__(
        self,
        namespace: str,
        open_history: OpenRunStore,
        registry: CollectorRegistry,
        mode_of: Callable[[str], str | None],
        seconds: float = SECONDS,
    ) -> None:
        """``mode_of`` returns the mode of a deployment that is known."""
        self._namespace = namespace
        self._open = open_history
        self._mode_of = mode_of
        self._seconds = seconds
        self._asked_now = 0
        self._gauges = RunGauges(registry, lambda: self._ask(self._progresses))
        self._looking: asyncio.Task[None] | None = None

    def look(self) -> None:
        """Start updating the progress metrics in the background, if that is due."""
        if self._gauges.due and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self._looked())

    async def close(self) -> None:
        """Cancel the update in progress."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _looked(self) -> None:
        try:
            await self._gauges.look()
        except HttpError:
            pass  # the store is down: the next update may succeed
        except Exception:
            logger.exception("reading the runs failed; continuing")

    def _progresses(self, history: RunStore) -> UnderWay:
        # The store lists runs in start order, so the latest run of a deployment wins.
        return {each.deployment: each.progress for each in self._all_under_way(history)}

    def _all_under_way(self, history: RunStore) -> list[RunUnderWay]:
        found = []
        for deployment, run in history.under_way(self._namespace):
            with suppress(ConfigError):  # the run was just dropped
                progress = history.progress(self._namespace, deployment, run)
                found.append(RunUnderWay(deployment, run, progress))
        return found

    # Responses are built from dataclasses: objects with their field names, times as RFC 3339.

    def add_to(self, router: Router) -> None:
        """Add the routes for runs."""
        router.add("GET", "/runs", self._under_way)
        router.add("GET", "/runs/{deployment}", self._runs)
        router.add("GET", "/deployments/{deployment}/workers", self._workers)
        router.add("GET", "/deployments/{deployment}/answers", self._answers)
        router.add("GET", "/deployments/{deployment}/dead-letters", self._dead_letters)
        router.add("GET", "/runs/{deployment}/diff", self._difference)
        router.add("GET", "/runs/{deployment}/{run}/progress", self._progress)
        router.add("GET", "/runs/{deployment}/{run}/rejects", self._rejects)

    async def _under_way(self, request: Request) -> Response:
        found = await self._ask(self._all_under_way)
        return json_response({"runs": [run for run in found if request.sees(run.deployment)]})

    async def _runs(self, request: Request) -> Response:
        name = deployment_of(request)
        found = await self._ask(lambda history: history.runs(self._namespace, name))
        return json_response({"deployment": name, "runs": found})

    async def _workers(self, request: Request) -> Response:
        name = deployment_of(request)
        found = await self._ask(lambda history: history.worker_reports(self._namespace, name))
        return json_response({"deployment": name, "workers": found})

    async def _answers(self, request: Request) -> Response:
        """Tell the last predictions: entity keys and outputs."""
        name, mode = deployment_of(request), self._mode_of(request.params["deployment"])
        if mode == "edge":
            raise HttpError(404, "devices answer themselves, and report no predictions")
        limit = _limit(request.query.get("limit"), SHOWN_ANSWERS, MAX_ANSWERS)
        found = await self._ask(lambda h: h.recent_answers(self._namespace, name, mode, limit))
        return json_response(
            {
                "deployment": name,
                "run": found.run,
                "answers": found.answers,
                "message": found.message,
            }
        )

    async def _dead_letters(self, request: Request) -> Response:
        """Tell the newest events that were not scored, and why."""
        name = deployment_of(request)
        limit = _limit(request.query.get("limit"), _REJECTS, MAX_REJECTS)
        found = await self._ask(lambda h: h.dead_letters(self._namespace, name, limit))
        if found is None:
            raise HttpError(503, "the stream has too many dead letters to find the newest", RETRY)
        return json_response({"deployment": name, "dead_letters": found})

    async def _difference(self, request: Request) -> Response:
        name, query = deployment_of(request), request.query
        if not {"from", "to"} <= query.keys():
            raise HttpError(400, "name two runs: ?from=RUN&to=RUN")
        before, after = (_run(query[side]) for side in ("from", "to"))
        found = await self._ask(lambda h: h.difference(self._namespace, name, before, after))
        return json_response({"deployment": name, "from": before, "to": after, "difference": found})

    async def _progress(self, request: Request) -> Response:
        name, run = deployment_of(request), _run(request.params["run"])
        found = await self._ask(lambda history: history.progress(self._namespace, name, run))
        return json_response({"deployment": name, "run": run, "progress": found})

    async def _rejects(self, request: Request) -> Response:
        name, run = deployment_of(request), _run(request.params["run"])
        limit = _limit(request.query.get("limit"), _REJECTS, MAX_REJECTS)
        found = await self._ask(lambda h: h.rejects(self._namespace, name, run, limit))
        rejects = [
            {"row": each.row, "key": each.key, "field": each.field, "reason": each.reason}
            for each in found
        ]
        return json_response({"deployment": name, "run": run, "rejects": rejects})

    async def _ask(self, question: Callable[[RunStore], T]) -> T:
        if self._asked_now >= AT_ONCE:
            raise HttpError(503, "too many requests about runs: try again", RETRY)
        self._asked_now += 1
        asking = asyncio.ensure_future(in_thread(lambda: self._asked(question), "runs"))
        asking.add_done_callback(self._done)
        try:
            # After a time-out the query continues until the store has answered it.
            return await asyncio.wait_for(asyncio.shield(asking), self._seconds)
        except TimeoutError:
            raise HttpError(503, f"no response in {self._seconds:g} s: try again", RETRY) from None
        except ConfigError as error:
            raise HttpError(404, str(error)) from None
        except StoreUnavailable as error:
            # The reason may contain an address, so it only goes to the log.
            logger.warning("reading runs failed: %s", error)
            raise HttpError(503, "the prediction store is not available", RETRY) from None

    def _done(self, asking: asyncio.Future[Any]) -> None:
        self._asked_now -= 1
        if not asking.cancelled():
            asking.exception()  # mark it as retrieved, though the caller may be gone

    def _asked(self, question: Callable[[RunStore], T]) -> T:
        try:
            history = self._open()
        except WorkloadError as error:
            raise StoreUnavailable(str(error)) from None
        try:
            return question(history)
        finally:
            history.close()


def _run(name: str) -> str:
    if not RUN_NAME.fullmatch(name):
        raise HttpError(404, f"{name[:63]!r} is not a name of a run")
    return name


def _limit(text: str | None, usual: int, most: int) -> int:
    if text is None:
        return usual
    if not (text.isdecimal() and len(text) < 9 and 1 <= int(text) <= most):
        raise HttpError(400, f"limit must be a number from 1 to {most}")
    return int(text)
