"""The model server's process, from listening to the end of its drain."""

from __future__ import annotations

import asyncio
import gc
import logging
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from fourways_api.runtime_config import ServerConfig
from fourways_api.worker_faults import WorkerFault, worker_fault
from fourways_http import Limits, Server, run_until_signal
from fourways_http.message import Handler
from fourways_http.state import Observe
from fourways_runtime.access_log import with_access_log
from fourways_runtime.callers.server_identity import ServedCertificate
from fourways_runtime.config import read_server_config
from fourways_runtime.grpc_v2 import listen_grpc
from fourways_runtime.memory import share_of_memory
from fourways_runtime.metrics import HttpMetrics
from fourways_runtime.process import in_thread, listen, new_registry, run_server
from fourways_runtime.retry import START_SECONDS, await_available
from fourways_runtime.tracing import start_tracing, stop_tracing, with_tracing
from fourways_runtime.v2.app import ModelServer
from fourways_runtime.v2.simd import prefer_narrow_loops

if TYPE_CHECKING:
    from fourways_runtime.io.feature_store import FeatureMonitor
    from fourways_runtime.v2.enrichment import FeatureEnricher

    from .loading import Loaded
    from .recording import AnswerRecorder

_LIMITS = Limits(buffered_bytes=share_of_memory(0.25, 256 * 2**20))
"""The model takes most of the memory, and parsed values take about as much as their body."""
_FAILED_LOAD_GRACE = 0.2

logger = logging.getLogger("fourways.serving")


def main() -> int:
    """Serve until a signal; exit with a code from ``fourways_runtime.errors``."""
    run_server(read_server_config, serve, logger)


async def serve(config: ServerConfig) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        Unavailable: the port is taken.
        WorkloadError: the model could not be loaded, checked and warmed up.

    """
    if config.model.format == "onnx":
        prefer_narrow_loops()
    registry = new_registry(config)
    start_tracing("fourways-model-server")
    server, app = build(config, registry)
    beside = await _listen(config, server, app)
    grpc = await listen_grpc(server, config.host, config.grpc_port)
    running = asyncio.ensure_future(run_until_signal(server))
    await asyncio.sleep(0)  # a signal may follow the log line below: install handlers first
    logger.info("listening", extra={"port": server.port, "namespace": config.namespace})
    loading = asyncio.ensure_future(_bring_up(config, app, registry))
    await asyncio.wait((running, loading), return_when=asyncio.FIRST_COMPLETED)
    if loading.done() and loading.exception() is not None:
        running.cancel()
        await server.drain(0, _FAILED_LOAD_GRACE)
        await loading
    all_answered = await running
    loading.cancel()
    await beside.aclose()
    await grpc.stop()
    await app.close()
    await in_thread(stop_tracing, "tracing")
    logger.info("stopped", extra={"all_answered": all_answered})


async def _listen(config: ServerConfig, server: Server, app: ModelServer) -> AsyncExitStack:
    """Listen where the configuration says; return what ends after the server.

    Raises:
        Unavailable: the port is taken, or there is no certificate.

    """
    beside = AsyncExitStack()
    if config.tls is None:
        await listen(server, config.host, config.port)
        return beside
    certificate = await in_thread(partial(ServedCertificate, config.tls), "certificate")
    app.report_fault(partial(_certificate_fault, certificate))
    await listen(server, config.host, config.tls.port, certificate.context)
    # Probes and metrics say nothing of records, and the kubelet does not verify certificates.
    state = Server(app.state_router())
    await listen(state, config.host, config.port)
    beside.push_async_callback(state.drain, 0, _FAILED_LOAD_GRACE)
    beside.callback(asyncio.ensure_future(certificate.follow()).cancel)
    return beside


def _certificate_fault(certificate: ServedCertificate) -> WorkerFault | None:
    fault = certificate.fault
    return worker_fault(fault.reason, fault) if fault else None


def build(
    config: ServerConfig, registry: CollectorRegistry, limits: Limits = _LIMITS
) -> tuple[Server, ModelServer]:
    """Return the server of a model, which does not listen yet, and its application."""
    app = ModelServer(config, registry, lambda: server.draining)
    limits = replace(limits, body_bytes=config.max_body_bytes)
    handler: Handler = app.router()
    observe: Observe = HttpMetrics(registry).observe
    if config.access_log:
        handler, observe = with_access_log(handler, observe, lambda name: False)
    handler, observe = with_tracing(handler, observe)
    server = Server(handler, limits, observe)
    return server, app


async def _bring_up(config: ServerConfig, app: ModelServer, registry: CollectorRegistry) -> None:
    """Load the model on a thread of its own, serve it, and watch the feature database."""
    loaded, features = await asyncio.gather(
        in_thread(lambda: _load(config), "load"), _features(config, registry)
    )
    from fourways_runtime.v2.batcher import Batcher

    from ..drift_watch import watch_drift

    live = watch_drift(loaded.profile, config.monitoring, config.contract, registry)
    loaded.scorer.profile = live
    recorder = _recorder(config, registry)
    batcher = Batcher(
        loaded.scorer,
        recorder.recording(loaded.renderer) if recorder else loaded.renderer,
        app.metrics,
        max_rows=config.max_batch_rows,
        warm_up=loaded.warm_up,
        row_values=loaded.renderer.row_values,
        timeout=config.timeout_seconds,
    )
    enricher, monitor = features or (None, None)
    if recorder is not None:
        recorder.start()
        app.close_after(recorder.close)
    app.use(loaded.reader, batcher, enricher, loaded.known)
    if live is not None:
        app.report_drift(lambda: live.status)
    gc.collect()
    gc.freeze()  # these objects stay, so the collector need not scan them again and again
    logger.info("serving", extra={"model": config.name, "digest": loaded.digest})
    if monitor is not None:
        app.report_fault(partial(_feature_fault, monitor))
        await monitor.run()


def _recorder(config: ServerConfig, registry: CollectorRegistry) -> AnswerRecorder | None:
    """Return what keeps answers, if they are compared with labels later."""
    if config.stored is None:
        return None
    from fourways_runtime.io.store import open_database, read_uri

    from .recording import AnswerRecorder

    file = config.paths.store_uri_file
    return AnswerRecorder(config, lambda: open_database(read_uri(file)), registry)


def _feature_fault(monitor: FeatureMonitor) -> WorkerFault | None:
    fault = monitor.fault
    return worker_fault(fault.reason, fault) if fault else None


async def _features(
    config: ServerConfig, registry: CollectorRegistry
) -> tuple[FeatureEnricher, FeatureMonitor] | None:
    """Connect to the feature database, if there is one. Raises WorkloadError."""
    if config.features is None:
        return None
    from fourways_runtime.io.feature_store import FeatureMonitor, open_features
    from fourways_runtime.v2.enrichment import FeatureEnricher, covered

    inputs = covered(config.features, config.contract)
    reader = open_features(
        config.features,
        config.contract.entity_key,
        inputs,
        config.paths,
        registry,
        config.contract.inputs,
        config.fetch,
    )
    enricher = FeatureEnricher(config.contract, config.features, reader)
    await await_available(reader.check, START_SECONDS)
    # The pool connects in the background, and no request should wait for its first connection.
    await await_available(reader.ping, START_SECONDS)
    logger.info("features checked", extra={"inputs": len(inputs)})
    return enricher, FeatureMonitor(reader, config.features.database.secret_name)


def _load(config: ServerConfig) -> Loaded:
    from .loading import load_model  # the libraries load while the server is already live

    return load_model(config)
