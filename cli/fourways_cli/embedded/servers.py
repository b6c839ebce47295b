"""A long-running worker on this host: restarted when it ends, described as in Kubernetes.

Its pod is kept as a document, and so is the object it belongs to (Deployment, InferenceService), so
that the operator's own code decides the status from the same facts.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fourways_api.backoff import Backoff
from fourways_api.runtime_config import CONFIG_VARIABLE, TERMINAL_EXIT_CODES
from fourways_api.worker_faults import FAULTS_PATH, WorkerFaults

from .clock import Clock, now, stamp
from .ports import ListeningLog
from .processes import worker
from .workloads import LocalServer, document

Json = dict[str, Any]

FIRST_RESTART_SECONDS = 1.0
POINTLESS_RESTART_SECONDS = 10.0
LONGEST_RESTART_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""A worker that ran this long before it ended is restarted after the first, short pause."""

STARTING_POLL_SECONDS = 0.05
POLL_SECONDS = 1.0
ANSWER_SECONDS = 2.0
MAX_ANSWER = 1 << 16
"""Bytes of a response that are read."""

REPORTING = ("serve", "stream")
"""Programs that report their faults while they run."""


class RunningServer:
    """One worker, across restarts. ``pod`` and ``owner`` describe it as the API server would.

    It is ready once its own process listens on its port and answers there.
    """

    def __init__(
        self,
        server: LocalServer,
        state: Path,
        clock: Clock = now,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.server = server
        self.ready = False
        self.listening = False
        self.faults = WorkerFaults()
        """What it reports about itself while it runs."""

        self._state = state
        self._clock = clock
        self._on_change = on_change
        self._restarts = 0
        self._now: Json = {"waiting": {"reason": "ContainerCreating"}}
        self._before: Json = {}
        self._created = stamp(clock)

    async def keep(self) -> None:
        """Keep it running until cancelled; on return, its process has ended."""
        soon = Backoff(FIRST_RESTART_SECONDS, LONGEST_RESTART_SECONDS)
        # A fault of the model or the spec does not go away within a second.
        pointless = Backoff(POINTLESS_RESTART_SECONDS, LONGEST_RESTART_SECONDS)
        while True:
            began = asyncio.get_running_loop().time()
            code = await self._life()
            if asyncio.get_running_loop().time() - began > STEADY_SECONDS:
                soon.reset()
                pointless.reset()
            backoff = pointless if code in TERMINAL_EXIT_CODES else soon
            await asyncio.sleep(backoff.pause())
            self._restarts += 1

    async def _life(self) -> int:
        """Run it once, from its start to its end; return its exit code."""
        termination = self._state / "runs" / f"{self.server.namespace}-{self.server.name}.json"
        termination.unlink(missing_ok=True)
        config = self.server.config
        paths = config.paths.model_copy(update={"termination_log": str(termination)})
        environment = {CONFIG_VARIABLE: document(config.model_copy(update={"paths": paths}))}
        started = stamp(self._clock)
        log = ListeningLog(self.log, config.port)
        try:
            async with worker(self.server.args, environment, self.log) as process:
                self._set({"running": {"startedAt": started}}, ready=False)
                ended = asyncio.create_task(process.wait())
                await self._watch(ended, log)
                code = await ended
        finally:
            self.listening = False
            self.faults = WorkerFaults()
        terminated = {
            "exitCode": exit_code(code),
            "reason": _reason(code),
            "message": read(termination),
            "startedAt": started,
            "finishedAt": stamp(self._clock),
        }
        self._before = {"terminated": terminated}
        # The state that the kubelet reports for a container that waits for its restart.
        self._set({"waiting": {"reason": "CrashLoopBackOff"}}, ready=False)
        return code

    async def _watch(self, ended: asyncio.Task[int], log: ListeningLog) -> None:
        """Probe its readiness, as the kubelet does, until it ends."""
        config = self.server.config
        while not ended.done():
            # Before it listens itself, a response would be another program's.
            self.listening = log.look()
            ready = self.listening and await answers(
                config.host, config.port, self.server.ready_path
            )
            faults = await self._faults() if self.listening else WorkerFaults()
            if (ready, faults) != (self.ready, self.faults):
                self.faults = faults
                self._set(self._now, ready=ready)
            wait = POLL_SECONDS if self.ready else STARTING_POLL_SECONDS
            await asyncio.wait([ended], timeout=wait)

    async def _faults(self) -> WorkerFaults:
        config = self.server.config
        if not self.server.args or self.server.args[0] not in REPORTING:
            return WorkerFaults()
        try:
            body = await fetched(config.host, config.port, FAULTS_PATH)
            return WorkerFaults.model_validate_json(body)
        except (OSError, TimeoutError, ValueError):
            return self.faults  # it may be busy: the last answer stays valid

    def _set(self, now: Json, *, ready: bool) -> None:
        self._now, self.ready = now, ready
        self._on_change()

    # ------------------------------------------------------------ as Kubernetes would report it

    @property
    def log(self) -> Path:
        """The file that it writes to."""
        return self._state / "logs" / f"{self.server.namespace}-{self.server.name}.log"

    @property
    def pod(self) -> Json:
        """Its pod."""
        container: Json = {
            "name": "worker",
            "ready": self.ready,
            "restartCount": self._restarts,
            "state": self._now,
        }
        if self._before:
            container["lastState"] = self._before
        running = "running" in self._now
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{self.server.name}-0",
                "namespace": self.server.namespace,
                "labels": dict(self.server.pod_labels),
                "creationTimestamp": self._created,
            },
            "spec": self._pod_spec(),
            "status": {
                "phase": "Running" if running or self._before else "Pending",
                "conditions": [{"type": "Ready", "status": str(self.ready)}],
                "containerStatuses": [container],
            },
        }

    def _pod_spec(self) -> Json:
        spec = self.server.planned["spec"]
        template: Json = spec["template"]["spec"] if "template" in spec else spec["predictor"]
        return template

    @property
    def owner(self) -> Json:
        """The object it belongs to: as planned, in its first generation, with its status."""
        planned = self.server.planned
        meta = {**planned["metadata"], "generation": 1, "creationTimestamp": self._created}
        is_service = planned["kind"] == "InferenceService"
        status = self._service_status() if is_service else self._deployment_status()
        return {**planned, "metadata": meta, "status": {"observedGeneration": 1, **status}}

    def _deployment_status(self) -> Json:
        count = 1 if self.ready else 0
        return {
            "replicas": 1,
            "updatedReplicas": 1,
            "readyReplicas": count,
            "availableReplicas": count,
            "conditions": [
                {"type": "Available", "status": str(self.ready)},
                {"type": "Progressing", "status": "True"},
            ],
        }

    def _service_status(self) -> Json:
        return {
            "address": {"url": self.server.url},
            "url": self.server.url,
            "conditions": [
                {"type": "PredictorReady", "status": str(self.ready)},
                {"type": "Ready", "status": str(self.ready)},
            ],
        }


async def answers(host: str, port: int, path: str) -> bool:
    """Return whether an HTTP server answers 200 for a path, within two seconds."""
    try:
        await fetched(host, port, path)
    except (OSError, TimeoutError, ValueError):
        return False
    return True


async def fetched(host: str, port: int, path: str) -> bytes:
    """Return the body that an HTTP server answers with 200 for a path, within two seconds.

    Raises:
        OSError or TimeoutError: there is no answer.
        ValueError: it has another status, or is too long.

    """
    async with asyncio.timeout(ANSWER_SECONDS):
        reader, writer = await asyncio.open_connection(host, port)
        with contextlib.closing(writer):
            head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode())
            answer = await reader.read(MAX_ANSWER)
            while part := await reader.read(MAX_ANSWER - len(answer)):
                answer += part
    top, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in top.split(b"\r\n", 1)[0]:
        raise ValueError(f"{path}: another status than 200")
    return body


def read(path: Path) -> str:
    """Return a worker's termination message; empty if it left none."""
    try:
        return path.read_text()
    except OSError:
        return ""


def exit_code(code: int) -> int:
    """Return a process's exit code as the kubelet reports it: 128 + N for signal N."""
    return code if code >= 0 else 128 - code


def _reason(code: int) -> str:
    if code == -signal.SIGKILL:
        return "Killed"
    return "Error" if code else "Completed"
