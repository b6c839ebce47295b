"""What running workers report about themselves, requested from each pod apart from the reconciles.

A worker's termination message reports only what ended it, and its readiness probe only that
something is wrong. So this module asks the running model servers and stream workers for their
present faults. It asks the pods directly, not the gateway: a stream worker has no Service, a
Service picks one of many model servers, and the answers are needed while the gateway is down.

What devices tell of their records is known to the gateways, so their pods are asked for that.

Pods are not trusted: workers are asked without credentials, and an answer is bounded and escaped
before it is shown. A pod that does not answer three times in a row has no known fault; its state
decides then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from fourways_api import ModelDeployment
from fourways_api.worker_faults import FAULTS_PATH, WorkerFaults

from .asking import ask, parsed, pod_url
from .errors import GatewaySilent
from .facts import Json
from .plan.parts import COMPONENT_LABEL, MODE_LABEL
from .plan.quality import is_quality
from .plan.realtime import has_tls_port
from .plan.worker import PORT
from .pods import is_going, is_ready
from .work_queue import Key

logger = logging.getLogger(__name__)

PAUSE = 4.0
"""Seconds between two rounds of requests in one namespace."""

ANSWER_SECONDS = 2.0
MAX_ASKED = 10
"""Maximum number of pods of one deployment that are asked."""

MAX_AT_ONCE = 16
"""Maximum number of requests at a time, over all namespaces."""

MAX_SILENCE = 3
"""Number of consecutive missed answers after which the last answer no longer counts."""

NO_WORKERS: Mapping[str, str] = {}

AskWorker = Callable[[str], Awaitable[bytes]]
"""Requests the faults of the worker at a URL. Raises GatewaySilent."""

NOTHING_WRONG = WorkerFaults()


class WorkerFaultTracker:
    """The last answers of workers. Use it only in its event loop."""

    def __init__(
        self,
        ask: AskWorker,
        changed: Callable[[Key], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``changed`` is called with a deployment whose workers' faults changed."""
        self._ask = ask
        self._changed = changed
        self._sleep = sleep
        self._workers: dict[Key, Mapping[str, str]] = {}
        self._known: dict[Key, dict[str, WorkerFaults]] = {}
        """By deployment and pod; pods that have not answered yet are left out."""

        self._silent: dict[tuple[Key, str], int] = {}
        self._room = asyncio.Semaphore(MAX_AT_ONCE)
        self._asking: dict[str, asyncio.Task[None]] = {}

    def of(self, key: Key) -> dict[str, WorkerFaults]:
        """Return the faults of a deployment's workers that have answered, by pod."""
        return dict(self._known.get(key, {}))

    def note(self, key: Key, workers: Mapping[str, str]) -> None:
        """Ask these workers from now on: URLs by the pod's name."""
        for pod in self._known.get(key, {}).keys() - workers.keys():
            del self._known[key][pod]
        for pod in self._workers.get(key, {}).keys() - workers.keys():
            self._silent.pop((key, pod), None)
        if not workers:
            self._workers.pop(key, None)
            self._known.pop(key, None)
            return
        self._workers[key] = workers
        if key.namespace not in self._asking:
            task = asyncio.create_task(self._follow(key.namespace))
            self._asking[key.namespace] = task

    def forget_all_but(self, keys: Collection[Key]) -> None:
        """Forget deployments that were deleted without a watch event."""
        for key in self._workers.keys() - set(keys):
            self.note(key, NO_WORKERS)

    def stop(self) -> None:
        """Stop all requests."""
        for task in self._asking.values():
            task.cancel()

    async def _follow(self, namespace: str) -> None:
        while keys := [key for key in self._workers if key.namespace == namespace]:
            try:
                await asyncio.gather(*(self._round(key) for key in keys))
            except Exception:
                logger.exception("faults of workers in %s: unexpected, please report it", namespace)
            await self._sleep(PAUSE)
        del self._asking[namespace]

    async def _round(self, key: Key) -> None:
        before, workers = self.of(key), self._workers.get(key, NO_WORKERS)
        await asyncio.gather(*(self._one(key, pod, url) for pod, url in workers.items()))
        if self.of(key) != before:
            self._changed(key)

    async def _one(self, key: Key, pod: str, url: str) -> None:
        try:
            async with self._room:
                text = await self._ask(url)
            found = parsed(WorkerFaults, text, "a worker's answer about faults")
        except GatewaySilent as fault:
            logger.debug("%s", fault)
            missed = self._silent.get((key, pod), 0) + 1
            if pod in self._workers.get(key, NO_WORKERS):
                self._silent[key, pod] = missed
            if missed < MAX_SILENCE:
                return
            found = NOTHING_WRONG
        else:
            self._silent.pop((key, pod), None)
        if self._workers.get(key, NO_WORKERS).get(pod) != url:
            return  # the pod no longer exists
        self._known.setdefault(key, {})[pod] = found


def urls_of_workers(deployment: ModelDeployment | None, pods: Sequence[Json]) -> Mapping[str, str]:
    """Return where a deployment's running workers report their faults, by the pod's name. Pure.

    A ready model server without a feature database has nothing to report, so it is not asked unless
    its records are compared with a training profile, or it has a certificate.
    """
    if deployment is None:
        return NO_WORKERS
    mode, realtime = deployment.spec.choice().mode, deployment.spec.realtime
    compared = deployment.spec.monitoring is not None
    if mode == "edge" and compared:
        return _urls_of_gateways(deployment.metadata.name, pods)
    if mode not in ("realtime", "streaming"):
        return NO_WORKERS
    reports = bool(realtime and realtime.features) or compared
    silent = mode == "realtime" and not reports

    def is_asked(pod: Json) -> bool:
        if is_quality(pod):
            return True
        if pod["metadata"].get("labels", {}).get(MODE_LABEL) != mode:
            return False
        return not (silent and is_ready(pod) and not has_tls_port(pod.get("spec", {})))

    urls = {}
    # The quality worker first: it is one, and model servers may be more than are asked.
    for pod in sorted(pods, key=lambda pod: (not is_quality(pod), pod["metadata"]["name"])):
        url = pod_url(pod, PORT, FAULTS_PATH)
        if (
            url
            and is_asked(pod)
            and pod["status"].get("phase") == "Running"
            # On the node's network the port may be another program's.
            and not pod.get("spec", {}).get("hostNetwork")
            and not is_going(pod)
        ):
            urls[pod["metadata"]["name"]] = url
    return dict(list(urls.items())[:MAX_ASKED])


def _urls_of_gateways(deployment: str, pods: Sequence[Json]) -> Mapping[str, str]:
    """Return where gateways say how records of devices differ, by the pod's name."""
    urls = {}
    for pod in pods:
        url, meta = pod_url(pod, PORT, f"/deployments/{deployment}/drift"), pod["metadata"]
        if (
            url
            and (meta.get("labels") or {}).get(COMPONENT_LABEL) == "gateway"
            and is_ready(pod)
            and not is_going(pod)
        ):
            urls[meta["name"]] = url
    return dict(sorted(urls.items())[:MAX_ASKED])


async def ask_worker(url: str) -> bytes:
    """Query a worker, without credentials, or a gateway, with them. Raises GatewaySilent."""
    if url.endswith(FAULTS_PATH):
        return await ask(url, ANSWER_SECONDS, dict)
    return await ask(url, ANSWER_SECONDS)
