"""A batch run on this host: a Job's life in the shape Kubernetes tells it.

A run is kept as a Job document and the documents of its pods, so that status is decided by the
operator's own code, from the same facts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fourways_api import Paths
from fourways_api.runtime_config import CONFIG_VARIABLE, RUN_VARIABLE

from .processes import worker
from .workloads import LocalCronJob, document

Json = dict[str, Any]
Clock = Callable[[], datetime]

FIRST_RETRY_SECONDS = 1.0


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


class LocalRun:
    """One run: ``job`` and ``pods`` tell how it goes, as the API server would."""

    def __init__(self, cron: LocalCronJob, name: str, state: Path, clock: Clock = now) -> None:
        self._cron = cron
        self._state = state
        self._clock = clock
        self.job: Json = {
            "metadata": {"name": name, "creationTimestamp": self._stamp()},
            "status": {"startTime": self._stamp()},
        }
        self.pods: list[Json] = []

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.job["metadata"]["name"])

    @property
    def log(self) -> Path:
        """The file its worker writes to."""
        return self._state / "logs" / f"{self.name}.log"

    async def run(self) -> None:
        """Run to the end: tried again as the Job's policy says, within its deadline."""
        try:
            async with asyncio.timeout(self._cron.deadline_seconds):
                await self._attempts()
        except TimeoutError:
            self._end("Failed", "DeadlineExceeded")

    async def _attempts(self) -> None:
        for attempt in range(self._cron.backoff_limit + 1):
            if attempt:
                await asyncio.sleep(FIRST_RETRY_SECONDS * 2 ** (attempt - 1))
            code = await self._attempt(attempt)
            if code == 0:
                return self._end("Complete", "")
            if code in self._cron.terminal:
                return self._end("Failed", "PodFailurePolicy")
        return self._end("Failed", "BackoffLimitExceeded")

    async def _attempt(self, attempt: int) -> int:
        last_words = self._state / "runs" / f"{self.name}-{attempt}.json"
        last_words.unlink(missing_ok=True)
        config = self._cron.config
        paths = config.paths.model_copy(update={"termination_log": str(last_words)})
        environment = {
            CONFIG_VARIABLE: document(config.model_copy(update={"paths": paths})),
            RUN_VARIABLE: self.name,
        }
        started = self._stamp()
        async with worker(self._cron.args, environment, self.log) as process:
            code = await process.wait()
        self.pods.append(_pod(self.name, attempt, started, code, _read(last_words)))
        return code

    def _end(self, kind: str, reason: str) -> None:
        stamp = self._stamp()
        status = self.job["status"]
        status["conditions"] = [
            {"type": kind, "status": "True", "reason": reason, "lastTransitionTime": stamp}
        ]
        if kind == "Complete":
            status["completionTime"] = stamp

    def _stamp(self) -> str:
        return self._clock().strftime("%Y-%m-%dT%H:%M:%SZ")


def local_paths(state: Path) -> Paths:
    """Return where this host keeps what a pod would have mounted."""
    return Paths(
        store_uri_file=str(state / "store" / "uri"),
        volumes_root=str(state / "volumes"),
        secrets_root=str(state / "secrets"),
        cache_dir=str(state / "cache"),
        termination_log=str(state / "last-words.json"),
    )


def _pod(run: str, attempt: int, started: str, code: int, message: str) -> Json:
    terminated = {"exitCode": code, "message": message}
    return {
        "metadata": {
            "name": f"{run}-{attempt}",
            "creationTimestamp": f"{started}-{attempt:04}",
            "labels": {"batch.kubernetes.io/job-name": run},
        },
        "status": {"containerStatuses": [{"state": {"terminated": terminated}}]},
    }


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
