"""The stream worker's process, from listening to the end of its drain.

The event loop serves health and metrics, and separate threads process the events, so that neither
waits for the other. The libraries are loaded after the server has started.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from fourways_api.runtime_config import StreamConfig
from fourways_api.values import seconds
from fourways_api.worker_faults import FAULTS_PATH, WorkerFaults
from fourways_http import HttpError, Limits, Request, Response, Router, Server, json_response
from fourways_runtime.config import read_stream_config
from fourways_runtime.io.brokers.source import SourceEnded, SourceReplaced
from fourways_runtime.metrics import HttpMetrics, exposition
from fourways_runtime.process import (
    in_thread,
    listen,
    new_registry,
    run_server,
)
from fourways_runtime.retry import START_SECONDS, await_available
from fourways_runtime.tracing import start_tracing, stop_tracing

if TYPE_CHECKING:
    from fourways_runtime.io.brokers.source import EventSource
    from fourways_runtime.io.store import StreamWriter
    from fourways_runtime.io.store.database import Database
    from fourways_runtime.io.store.past import Compared
    from fourways_runtime.scoring.live_profile import LiveProfile

    from ..prepare import Prepared
    from ..quality_watch import QualityWatch
    from .observed import StreamMetrics
    from .scoring import EventScorer
    from .worker import StreamWorker

CONNECT_SECONDS = 5.0
"""How long one attempt to reach the broker may take."""

_STOP_SECONDS = 25.0
"""A batch that takes longer to finish is aborted, and the next worker scores its events."""

_WATCH_SECONDS = 0.5

_LIVE = json_response({"live": True})

logger = logging.getLogger("fourways.streaming")


def main() -> int:
    """Work until stopped; exit with a code from ``fourways_runtime.errors``."""
    run_server(read_stream_config, serve, logger)


async def serve(config: StreamConfig) -> None:
    """Score events until SIGTERM or SIGINT.

    Raises:
        Unavailable: The port is in use, or the broker or store remains unavailable.
        WorkloadError: The model, the topic or the configuration is not usable.

    """
    registry = new_registry(config)
    start_tracing("fourways-stream-worker")
    shell = Shell(config, registry)
    server = Server(shell.router(), Limits(), HttpMetrics(registry).observe)
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await listen(server, config.host, config.port)
    logger.info("listening", extra={"port": server.port, "namespace": config.namespace})
    stopped = asyncio.ensure_future(stopping.wait())
    working = asyncio.ensure_future(shell.work())
    watching = asyncio.ensure_future(shell.watch())
    await asyncio.wait((stopped, working, watching), return_when=asyncio.FIRST_COMPLETED)
    if watching.done():
        watching.result()
    shell.stop()
    if not working.done() and not shell.running:
        working.cancel()  # Nothing has been scored yet.
    done, _ = await asyncio.wait((working,), timeout=_STOP_SECONDS)
    await server.drain(0, 0.2)
    if not done:
        logger.warning("stopped: a batch takes longer than the time left")
    await in_thread(stop_tracing, "tracing")
    if done and not working.cancelled():
        working.result()
    logger.info("stopped")


class Shell:
    """Starts a worker, runs it, and answers its health requests."""

    def __init__(self, config: StreamConfig, registry: CollectorRegistry) -> None:
        self._config = config
        self._registry = registry
        self._worker: StreamWorker | None = None
        self._live: LiveProfile | None = None
        self._quality: QualityWatch | None = None
        self._stopped = False
        self._stop = threading.Event()

    @property
    def running(self) -> bool:
        """Tell whether events are being scored."""
        return self._worker is not None

    def stop(self) -> None:
        """Let the worker finish what is in flight and end."""
        self._stopped = True
        self._stop.set()

    def router(self) -> Router:
        """Return the routes."""
        router = Router()
        router.add("GET", "/metrics", lambda request: exposition(self._registry))
        router.add("GET", "/v2/health/live", lambda request: _LIVE)
        router.add("GET", "/v2/health/ready", self._ready)
        router.add("GET", FAULTS_PATH, self._faults)
        return router

    async def work(self) -> None:
        """Start the worker and run it until stopped. Raises WorkloadError."""
        from .observed import StreamMetrics

        prepared = await in_thread(self._prepare, "load")
        scorer = self.scorer(prepared)
        metrics = StreamMetrics(self._registry)
        metrics.ready_when(lambda: self._worker is not None and not self._worker.problem())
        self._begin_reports(metrics)
        while not self._stopped:
            source, writer = await self._connect(prepared)
            self._watch_quality()
            if not self._stopped:
                self._stop = threading.Event()  # A worker sets it when it ends.
            self._worker = self._build(scorer, source, writer, metrics)
            logger.info("working", extra={"source": source.identity, "digest": prepared.digest})
            try:
                await in_thread(self._worker.run, "worker")
                return
            except SourceReplaced as error:
                logger.warning("%s: its events are read from the oldest", error)
                metrics.source_changed()
            except SourceEnded as error:
                logger.warning("%s: the worker opens the source again", error)
            self._worker = None

    async def watch(self) -> None:
        """Watch the store forever; the model has its own watchdog. Raises StoreUnavailable."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            if self._worker is not None:
                self._worker.watch()

    def _ready(self, request: Request) -> Response:
        if self._worker is None:
            raise HttpError(503, "the worker is starting", (b"retry-after: 1",))
        if problem := self._worker.problem():
            raise HttpError(503, problem, (b"retry-after: 1",))
        warnings = self._worker.warnings()
        return json_response({"ready": True, **({"warnings": warnings} if warnings else {})})

    def _faults(self, request: Request) -> Response:
        return json_response(self._faults_report().model_dump(mode="json", by_alias=True))

    def _faults_report(self) -> WorkerFaults:
        found = self._worker.faults() if self._worker else ()
        drift = self._live.status if self._live else None
        quality = self._quality.status if self._quality else None
        return WorkerFaults(faults=found, drift=drift, quality=quality)

    def _prepare(self) -> Prepared:
        from ..prepare import prepare

        return prepare(self._config)

    def scorer(self, prepared: Prepared) -> EventScorer:
        """Return the scorer of a model's events. Its contract has all labels."""
        from ..drift_watch import watch_drift
        from .scoring import EventScorer

        most = self._config.streaming.micro_batch.max_events
        pipeline = prepared.pipeline
        scorer = EventScorer(pipeline.contract, prepared.model, pipeline, most)
        config = self._config
        self._live = watch_drift(
            prepared.profile, config.monitoring, config.contract, self._registry
        )
        scorer.profile = self._live
        return scorer

    def _database(self) -> Database:
        from fourways_runtime.io.store import open_database, read_uri

        return open_database(read_uri(self._config.paths.store_uri_file))

    def _watch_quality(self) -> None:
        """Start to compare predictions with labels, once, if the spec says so."""
        if self._config.quality is None or self._quality is not None:
            return
        from ..quality_watch import QualityWatch

        self._quality = QualityWatch(self._config, self._database, self._registry)
        self._quality.start()

    def _begin_reports(self, metrics: StreamMetrics) -> None:
        """Start to tell the gateway's page, by the store, what only this worker knows."""
        from ..report_writer import ReportWriter

        def report() -> dict[str, Any]:
            current = self._faults_report()
            # Messages of faults may hold addresses: conditions have them, callers do not need them.
            shown = current.model_dump(mode="json", by_alias=True, include={"drift", "quality"})
            return {
                "version": self._config.model.version,
                "lag": {str(partition): lag for partition, lag in metrics.lags.items()},
                "oldest_event_seconds": round(metrics.oldest_seconds, 1),
                "faults": [fault.reason for fault in current.faults],
                **shown,
            }

        name = f"{socket.gethostname()}-{os.getpid()}"
        ReportWriter(self._config, self._database, name, report).start()

    async def _connect(self, prepared: Prepared) -> tuple[EventSource, StreamWriter]:
        """Connect to the broker and then the store; the worker needs both."""
        from fourways_runtime.io.brokers.registry import new_source
        from fourways_runtime.io.store import (
            StreamDeclaration,
            open_stream_writer,
            owners_of,
            read_uri,
        )

        config = self._config
        read_uri(config.paths.store_uri_file)  # If missing, fail before waiting for the broker.
        source = new_source(config)
        await await_available(
            lambda: in_thread(lambda: source.open(CONNECT_SECONDS), "open"), START_SECONDS
        )
        freshness = seconds(config.streaming.freshness)
        stream = StreamDeclaration(
            config.namespace,
            config.name,
            config.model.version,
            prepared.digest,
            config.contract,
            source.identity,
            freshness,
            _compared(config),
        )

        def uri() -> str:
            return read_uri(config.paths.store_uri_file)

        writer = await await_available(
            lambda: in_thread(lambda: open_stream_writer(uri, stream, owners_of(config)), "store"),
            START_SECONDS,
        )
        return source, writer

    def _build(
        self,
        scorer: EventScorer,
        source: EventSource,
        writer: StreamWriter,
        metrics: StreamMetrics,
    ) -> StreamWorker:
        from .ledger import StreamLedger
        from .worker import StreamWorker

        ledger = StreamLedger(writer, self._stop)
        return StreamWorker(self._config, scorer, source, ledger, metrics, self._stop)


def _compared(config: StreamConfig) -> Compared | None:
    """Return what is kept for labels that come later."""
    from fourways_runtime.io.store.past import Compared

    return Compared.of(config.quality, config.contract) if config.quality else None
