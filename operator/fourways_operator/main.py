"""Puts the operator together and runs it: settings, login, queue, watches, relist, health.

It owns the process: logging, signals, the periodic relist. It decides nothing about deployments.
The relist guarantees that every change is seen; watches only make it faster. So the relist has a
task of its own, and its age decides health.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from fourways_api.log_text import log_as_text

from .cluster import MODEL_DEPLOYMENT, Cluster
from .cluster_issuer import ClusterIssuerWatch, read_cluster_issuer
from .demand import NO_GATEWAYS, AskDemand, DemandTracker, ask_demand
from .errors import NEEDS_ACTION, ApiFault
from .facts import Kind, OperatorSettings
from .gateway_answers import AskReady, GatewayAnswerTracker, ask_ready_of
from .health import Health, serve
from .kinds import JOB
from .kubernetes_cluster import KubernetesCluster, connect
from .metrics import Metrics
from .options import options_of, settings_of
from .ownership import Ownership
from .plan.parts import DEPLOYMENT_LABEL
from .progress import Ask, RunProgressTracker, ask_gateway
from .published import AskRuns, PublishedRunTracker, ask_runs_of
from .purges import PURGES
from .reconcile import ReconcileResult, Reported, reconcile
from .watches import Watches
from .work_queue import Key, WorkQueue
from .worker_faults import NO_WORKERS, AskWorker, WorkerFaultTracker, ask_worker

logger = logging.getLogger(__name__)

SOON = 5.0
"""Seconds to the next relist after a failed one, or while the CRD does not exist."""

DRAIN_SECONDS = 20.0


class Operator:
    """The queue, its work, and the relist that fills it."""

    def __init__(
        self,
        cluster: Cluster,
        settings: OperatorSettings,
        metrics: Metrics | None = None,
        *,
        resync_interval: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        watch: Callable[[frozenset[Kind]], None] = lambda kinds: None,
        ask: Ask = ask_gateway,
        ask_runs: AskRuns | None = None,
        ask_worker: AskWorker | None = None,
        ask_ready: AskReady | None = None,
        ask_demand: AskDemand | None = None,
        **queue: Any,
    ) -> None:
        """Create the parts; nothing runs yet.

        ``queue`` is passed to the WorkQueue; ``watch`` is called with the kinds to watch; ``ask``
        queries gateways for the progress of runs, and ``ask_runs`` for the runs of a deployment
        (None: no gateway is queried for the run that serves predictions). ``ask_worker`` queries a
        worker for its faults (None: no worker is queried), ``ask_ready`` a gateway for a
        deployment's readiness (None: no gateway is queried for it), and ``ask_demand`` a gateway's
        pod for the demand (None: deployments neither wake nor sleep).
        """
        self._cluster = cluster
        self._settings = settings
        self._metrics = metrics or Metrics()
        self._interval = resync_interval
        self._clock = clock
        self._now = now
        self._sleep = sleep
        self._watch = watch
        self._relisted: float | None = None
        self._kinds: frozenset[Kind] = frozenset()
        self._lacking: set[Key] = set()
        self._managed: set[Key] = set()
        self._gateway_faults: dict[str, str] = {}
        self._something_lacks = asyncio.Event()
        self._relist_now = asyncio.Event()
        self.queue = WorkQueue(
            self._work, clock=clock, sleep=sleep, on_result=self._metrics.reconciled, **queue
        )
        self._progress = RunProgressTracker(ask, self.queue.add, now, sleep)
        self._ownership = Ownership(cluster, settings.identity, now, max(resync_interval, 300.0))
        self._published = (
            PublishedRunTracker(ask_runs, self.queue.add, now, sleep) if ask_runs else None
        )
        self._worker_faults = (
            WorkerFaultTracker(ask_worker, self.queue.add, sleep) if ask_worker else None
        )
        self._gateway_answers = (
            GatewayAnswerTracker(ask_ready, self.queue.add, sleep) if ask_ready else None
        )
        self._demand = DemandTracker(ask_demand, self.queue.add, sleep) if ask_demand else None
        every = (
            self._progress,
            self._published,
            self._worker_faults,
            self._gateway_answers,
            self._demand,
        )
        self._trackers = [tracker for tracker in every if tracker]
        self._metrics.measure(
            lambda: self.queue.depth, lambda: self.queue.delayed, lambda: self.relist_age() or 0.0
        )

    async def _work(self, key: Key) -> None:
        if await self._ownership.holder_of(key.namespace) is not None:
            self._keep(key, None)
            return
        reported = Reported(
            self._progress.of(key),
            self._published.of(key) if self._published else None,
            self._gateway_faults.get(key.namespace),
            self._worker_faults.of(key) if self._worker_faults else {},
            self._worker_faults is not None,
            self._gateway_answers.of(key) if self._gateway_answers else None,
            self._gateway_answers is not None,
            self._demand.of(key) if self._demand else None,
        )
        try:
            result = await reconcile(key, self._cluster, self._settings, self._now, reported)
        except NEEDS_ACTION as fault:
            if not key.name:
                self._note_gateway(key.namespace, str(fault))
            raise
        if not key.name:
            self._note_gateway(key.namespace, None)
        self._keep(key, result)
        if result and result.wrote:
            # The gateway depends on the written objects, and a watch event may be lost.
            self.queue.add(Key(key.namespace))
        if result and result.requeue_after is not None:
            self.queue.add_after(key, result.requeue_after)
        self._note_lack(key, bool(result and result.lacks))

    def _keep(self, key: Key, result: ReconcileResult | None) -> None:
        """Pass on what was found of a deployment; None if this operator does not manage it."""
        status = result.status if result else None
        (self._managed.discard if status is None else self._managed.add)(key)
        self._metrics.seen(key, status)
        self._progress.note(key, status)
        if self._published:
            self._published.note(key, status)
        if self._worker_faults:
            self._worker_faults.note(key, result.workers if result else NO_WORKERS)
        if self._gateway_answers:
            self._gateway_answers.note(key, result is not None and result.serves)
        if self._demand:
            self._demand.note(key, result.gateways if result else NO_GATEWAYS)

    def _note_gateway(self, namespace: str, fault: str | None) -> None:
        """Let a namespace's deployments report why its gateway is refused; None if it is not."""
        if self._gateway_faults.get(namespace) == fault:
            return
        if fault is None:
            del self._gateway_faults[namespace]
        else:
            self._gateway_faults[namespace] = fault
        for key in self._managed:
            if key.namespace == namespace:
                self.queue.add(key)

    def _note_lack(self, key: Key, lacks: bool) -> None:
        (self._lacking.add if lacks else self._lacking.discard)(key)
        (self._something_lacks.set if self._lacking else self._something_lacks.clear)()

    def relist_age(self) -> float | None:
        """Return how many seconds ago the last relist ended; None before the first."""
        return None if self._relisted is None else self._clock() - self._relisted

    async def relist(self) -> frozenset[Kind]:
        """Queue every deployment and gateway; return the kinds that exist."""
        kinds = self._kinds = await self._cluster.discover()
        self._watch(kinds)
        found = await self._cluster.everywhere(MODEL_DEPLOYMENT, {})
        names = [(d["metadata"]["namespace"], d["metadata"]["name"]) for d in found]
        keys = frozenset(Key(namespace, name) for namespace, name in names)
        for key in sorted(keys | {Key(namespace) for namespace, _ in names}):
            self.queue.add(key)
        for job in await self._cluster.everywhere(JOB, PURGES):
            meta = job["metadata"]
            self.queue.add(Key(meta["namespace"], meta["labels"][DEPLOYMENT_LABEL]))
        self._metrics.forget_all_but(keys)
        for tracker in self._trackers:
            tracker.forget_all_but(keys)
        self._lacking &= keys
        self._managed &= keys
        self._relisted = self._clock()
        return kinds

    def use(self, settings: OperatorSettings) -> None:
        """Plan with other settings from now on, beginning with a relist."""
        self._settings = settings
        self._relist_now.set()

    async def run(self) -> None:
        """Run until stopped."""
        tasks = [asyncio.create_task(self._resync()), asyncio.create_task(self._look_for_kinds())]
        try:
            await self.queue.run()
        finally:
            for tracker in self._trackers:
                tracker.stop()
            for task in tasks:
                task.cancel()

    def stop(self) -> None:
        """Finish the reconciles in progress, then end."""
        self.queue.stop()

    async def _resync(self) -> None:
        while True:
            pause = self._interval
            try:
                if MODEL_DEPLOYMENT not in await self.relist():
                    logger.warning("the cluster has no ModelDeployments: is the CRD installed?")
                    pause = min(pause, SOON)
            except ApiFault as fault:
                logger.warning("relist: %s", fault)
                pause = min(pause, SOON)
            except Exception:
                logger.exception("relist: unexpected, please report it")
                pause = min(pause, SOON)
            await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        """Wait, or until another relist is asked for."""
        waits = [
            asyncio.ensure_future(self._sleep(seconds)),
            asyncio.ensure_future(self._relist_now.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        self._relist_now.clear()

    async def _look_for_kinds(self) -> None:
        """Relist soon after a kind that a deployment lacked is installed."""
        while True:
            await self._something_lacks.wait()
            await self._sleep(SOON)
            try:
                if await self._cluster.discover() != self._kinds:
                    await self.relist()
            except ApiFault as fault:
                logger.warning("discovering kinds: %s", fault)
            except Exception:
                logger.exception("discovering kinds: unexpected, please report it")


async def run(options: argparse.Namespace) -> None:
    """Run the operator until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    metrics = Metrics()
    namespaces: tuple[str, ...] = options.namespaces
    cluster = KubernetesCluster(connect(), namespaces, counted=metrics.wrote)
    watches = Watches(namespaces, lambda key: operator.queue.add(key), loop)
    settings = settings_of(options)
    if settings.access is not None:
        settings = replace(settings, cluster_issuer=await read_cluster_issuer(cluster.read))
    operator = Operator(
        cluster,
        settings,
        metrics,
        resync_interval=options.resync_interval,
        watch=watches.watch,
        ask_runs=ask_runs_of,
        ask_worker=ask_worker,
        ask_ready=ask_ready_of,
        ask_demand=ask_demand,
        workers=options.workers,
    )
    started = time.monotonic()
    health = Health(
        relist_age=operator.relist_age,
        started_ago=lambda: time.monotonic() - started,
        queue_stuck_for=operator.queue.stuck_for,
        resync_interval=options.resync_interval,
    )
    server = serve(options.port, health, metrics.registry)
    task = asyncio.create_task(operator.run())
    issuers = ClusterIssuerWatch(
        cluster.read,
        lambda found: operator.use(replace(settings, cluster_issuer=found)),
        asyncio.sleep,
        settings.cluster_issuer,
    )
    following = asyncio.create_task(issuers.run()) if settings.access is not None else None

    def stop() -> None:
        logger.info("stopping")
        operator.stop()
        loop.call_later(DRAIN_SECONDS, task.cancel)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    logger.info(
        "watching %s; health and metrics on :%d", namespaces or "all namespaces", server.server_port
    )
    try:
        await task
    finally:
        if following is not None:
            following.cancel()
        watches.stop()
        server.shutdown()
        cluster.close()


def main() -> None:
    """Run the operator as a program."""
    options = options_of(sys.argv[1:])
    log_as_text(options.log_level, "%(asctime)s %(levelname)s %(name)s: %(message)s")
    # kopf logs each failed watch many times with tracebacks; ``watches`` logs it once.
    logging.getLogger("kopf").setLevel(logging.CRITICAL)
    asyncio.run(run(options))
