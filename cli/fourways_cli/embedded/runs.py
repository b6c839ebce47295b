"""A Job on this host (a batch run or a build of bundles), described as in Kubernetes.

It is kept as a Job document and the documents of its pods, so that the operator's own code decides
the status from the same facts.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from fourways_api import RunReport
from fourways_api.backoff import Backoff
from fourways_api.reasons import Reason
from fourways_api.runtime_config import CONFIG_VARIABLE, RUN_VARIABLE
from fourways_operator.pods import report_of
from fourways_operator.runs import JOB_LABEL

from .clock import Clock, now, stamp
from .processes import worker
from .servers import exit_code, read
from .workloads import LocalJob, document

Json = dict[str, Any]

INDEX_VARIABLE = "JOB_COMPLETION_INDEX"
FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 1.0, 360.0
_LOST = "Lost"


class LocalRun:
    """One Job: ``job`` and ``pods`` describe it as the API server would."""

    def __init__(self, job: LocalJob, state: Path, clock: Clock = now) -> None:
        self._job = job
        self._state = state
        self._clock = clock
        meta = {"name": job.name, "creationTimestamp": self._stamp(), "generation": 1}
        self.job: Json = {
            **job.planned,
            "metadata": {**job.planned["metadata"], **meta},
            "status": {"startTime": self._stamp(), "active": 0},
        }
        self.pods: list[Json] = []

    @property
    def name(self) -> str:
        """The Job's name."""
        return self._job.name

    @property
    def log(self) -> Path:
        """The file its workers write to."""
        return self._state / "logs" / f"{self._job.namespace}-{self.name}.log"

    @property
    def report(self) -> RunReport | None:
        """What its last worker reported."""
        reports = (report_of(pod) for pod in reversed(self.pods))
        return next((report for report in reports if report), None)

    @property
    def ended(self) -> bool:
        """True once the Job is complete or has failed."""
        return "conditions" in self.job["status"]

    async def run(self) -> None:
        """Run the Job to its end, with the retries of its policy and within its deadline."""
        try:
            async with asyncio.timeout(self._job.deadline_seconds):
                kind, reason = await self._workers()
        except TimeoutError:
            kind, reason = "Failed", Reason.DeadlineExceeded
        self._end(kind, reason)

    async def _workers(self) -> tuple[str, str]:
        """Run all workers until one succeeds, one fails for good, or all are lost."""
        workers = [asyncio.create_task(self._worker(i)) for i in range(self._job.workers)]
        try:
            for ended in asyncio.as_completed(workers):
                kind, reason = await ended
                if kind != _LOST:
                    return kind, reason
        finally:
            for task in workers:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        indexed = self._job.planned["spec"].get("completionMode") == "Indexed"
        return "Failed", Reason.FailedIndexes if indexed else Reason.BackoffLimitExceeded

    async def _worker(self, index: int) -> tuple[str, str]:
        backoff = Backoff(FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS)
        for attempt in range(self._job.backoff_limit + 1):
            if attempt:
                await asyncio.sleep(backoff.pause())
            code = await self._attempt(index, attempt)
            if code == 0:
                return "Complete", ""
            if code in self._job.terminal:
                return "Failed", "PodFailurePolicy"
        status = self.job["status"]
        status["failedIndexes"] = ",".join(filter(None, (status.get("failedIndexes"), str(index))))
        return _LOST, ""

    async def _attempt(self, index: int, attempt: int) -> int:
        pod = f"{self.name}-{index}-{attempt}"
        started = self._stamp()
        status = self.job["status"]
        status["active"] += 1
        ended: list[Json] = []
        try:
            for args in (*self._job.before, self._job.args):
                code, message = await self._process(args, pod, index)
                ended.append({"exitCode": exit_code(code), "message": message})
                if code:
                    break
        finally:
            status["active"] -= 1
        self.pods.append(self._pod(pod, index, f"{started}-{attempt:04}", code, ended))
        return code

    async def _process(self, args: tuple[str, ...], pod: str, index: int) -> tuple[int, str]:
        """Run one process of a pod; return its exit code and its termination message."""
        termination = self._state / "runs" / f"{self._job.namespace}-{pod}.json"
        termination.unlink(missing_ok=True)
        config = self._job.config
        paths = config.paths.model_copy(update={"termination_log": str(termination)})
        environment = {
            CONFIG_VARIABLE: document(config.model_copy(update={"paths": paths})),
            RUN_VARIABLE: self._job.run or self.name,
            INDEX_VARIABLE: str(index),
        }
        async with worker(args, environment, self.log) as process:
            code = await process.wait()
        return code, read(termination)

    def _pod(self, name: str, index: int, created: str, code: int, ended: list[Json]) -> Json:
        template = self._job.planned["spec"]["template"]
        states: list[Json] = [{"state": {"terminated": each}} for each in ended]
        first = len(self._job.before)
        return {
            "metadata": {
                "name": name,
                "creationTimestamp": created,
                "labels": {
                    **template["metadata"]["labels"],
                    JOB_LABEL: self.name,
                    "batch.kubernetes.io/job-completion-index": str(index),
                },
            },
            "spec": template["spec"],
            "status": {
                "phase": "Failed" if code else "Succeeded",
                "initContainerStatuses": states[:first],
                "containerStatuses": states[first:] or [{"state": {}}],
            },
        }

    def _end(self, kind: str, reason: str) -> None:
        stamp = self._stamp()
        status = self.job["status"]
        status["conditions"] = [
            {"type": kind, "status": "True", "reason": reason, "lastTransitionTime": stamp}
        ]
        if kind == "Complete":
            status["completionTime"] = stamp

    def _stamp(self) -> str:
        return stamp(self._clock)
