"""A long-running worker on this host: restarted when it ends, described as in Kubernetes.

Its pod is kept as a document, and so is the object it belongs to (Deployment, InferenceService), so
that the operator's own code decides the status from the same facts. A model server that scales to
zero has no process while it sleeps.
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

SLOW_START_SECONDS = 3.0
"""A process that is not ready by then is said to be starting, with what it does."""

STARTING_POLL_SECONDS = 0.05
POLL_SECONDS = 1.0
ANSWER_SECONDS = 2.0
MAX_ANSWER = 1 << 16
"""Bytes of a response that are read."""

REPORTING = ("serve", "stream", "quality")
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
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._sleeps = 0
        self._process: asyncio.subprocess.Process | None = None
        self._starting_since: float | None = None

    @property
    def slow_start(self) -> str | None:
        """What its process does that has been starting for long; None for any other."""
        if self._starting_since is None:
            return None
        seconds = asyncio.get_running_loop().time() - self._starting_since
        if seconds < SLOW_START_SECONDS:
            return None
        doing = "loads and tries what it serves" if self.listening else "loads its libraries"
        return f"still starting after {seconds:.0f} s: it {doing}; its log is {self.log}"

    def scale(self, replicas: int) -> None:
        """Start its process, or end it: with 0 it sleeps until the next call."""
        if replicas and not self._wanted.is_set():
            self._created = stamp(self._clock)
            self._wanted.set()
            self._on_change()
        elif not replicas and self._wanted.is_set():
            self._wanted.clear()
            self._sleeps += 1
            if self._process is not None and self._process.returncode is None:
                # Nobody has to notice that it ends, so it needs no notice period. Before it
                # listens, it has no handler for the gentler signal.
                number = signal.SIGINT if self.listening else signal.SIGTERM
                with contextlib.suppress(ProcessLookupError):
                    self._process.send_signal(number)
            self._on_change()

    async def keep(self) -> None:
        """Keep it running until cancelled; on return, its process has ended."""
        soon = Backoff(FIRST_RESTART_SECONDS, LONGEST_RESTART_SECONDS)
        # A fault of the model or the spec does not go away within a second.
        pointless = Backoff(POINTLESS_RESTART_SECONDS, LONGEST_RESTART_SECONDS)
        while True:
            await self._wanted.wait()
            began = asyncio.get_running_loop().time()
            sleeps = self._sleeps
            code = await self._life()
            if self._sleeps > sleeps:  # it was put to sleep, and may have been woken since
                self._restarts, self._before = 0, {}
                self._set({"waiting": {"reason": "ContainerCreating"}}, ready=False)
                continue
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
                self._process = process
                self._starting_since = asyncio.get_running_loop().time()
                self._set({"running": {"startedAt": started}}, ready=False)
                ended = asyncio.create_task(process.wait())
                await self._watch(ended, log)
                code = await ended
        finally:
            self._process = None
            self._starting_since = None
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
        if ready:
            self._starting_since = None
        self._on_change()

    # ------------------------------------------------------------ as Kubernetes would report it

    @property
    def log(self) -> Path:
        """The file that it writes to."""
        return self._state / "logs" / f"{self.server.namespace}-{self.server.name}.log"

    @property
    def pods(self) -> tuple[Json, ...]:
        """Its pod, unless it sleeps."""
        return (self.pod,) if self._wanted.is_set() else ()

    @property
    def scaled(self) -> Json | None:
        """The Deployment that KServe would make for an InferenceService."""
        planned = self.server.planned
        if planned["kind"] != "InferenceService":
            return None
        meta = planned["metadata"]
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {**meta, "name": f"{meta['name']}-predictor"},
            "spec": {"replicas": 1 if self._wanted.is_set() else 0},
        }

    @property
    def pod(self) -> Json:
        """Its pod, also while it sleeps."""
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
        ready = str(self.ready or not self._wanted.is_set())
        return {
            "address": {"url": self.server.url},
            "url": self.server.url,
            "conditions": [
                {"type": "PredictorReady", "status": ready},
                {"type": "Ready", "status": ready},
            ],
        }


async def answers(host: str, port: int, path: str) -> bool:
    """Return whether an HTTP server answers 200 for a path, within two seconds."""
    try:
        await fetched(host, port, path)
    except (OSError, TimeoutError, ValueError):
        return False
    return True


async def fetched(
    host: str, port: int, path: str, header: str = "", seconds: float = ANSWER_SECONDS
) -> bytes:
    """Return the body that an HTTP server answers with 200 for a path.

    ``header`` is a further line of the request, with its line end.

    Raises:
        OSError or TimeoutError: there is no answer.
        ValueError: it has another status, or is too long.

    """
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_connection(host, port)
        with contextlib.closing(writer):
            head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{header}\r\n"
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
