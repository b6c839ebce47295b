"""The gateway's process: configuration, event loop, signals, exit code."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from fourways_api import GatewayConfig, Route
from fourways_http import Limits, Server, run_until_signal
from fourways_http.message import Handler
from fourways_http.state import Observe
from fourways_runtime.access_log import with_access_log
from fourways_runtime.callers.certificate import Certificate
from fourways_runtime.config import read_gateway_config
from fourways_runtime.grpc_v2 import listen_grpc
from fourways_runtime.memory import share_of_memory
from fourways_runtime.process import in_thread, listen, new_registry, run_server
from fourways_runtime.tracing import start_tracing, stop_tracing, with_tracing

from .app import Gateway
from .circuit_breaker import OpenReader, StoreCircuitBreaker
from .publishing import OpenPublisher
from .runs import OpenRunStore

if TYPE_CHECKING:
    from fourways_runtime.io.store.runs.store import RunStore

    from ..streaming import Publisher

_LIMITS = Limits(buffered_bytes=share_of_memory(0.25, 128 * 2**20))
"""A body takes twice its size: as the pieces that arrived, whose memory the allocator keeps for the
next ones, and as the whole that is made of them. The other half of the memory is for the process.
"""

_CERTIFICATE_SECONDS = 5.0
"""Time between two looks at the mounted certificate."""

logger = logging.getLogger("fourways.gateway")


def main() -> int:
    """Serve until a signal; exit with a code from ``fourways_runtime.errors``."""
    run_server(read_gateway_config, lambda config: serve(config, _open_reader(config)), logger)


async def serve(config: GatewayConfig, open_reader: OpenReader) -> None:
    """Serve until SIGTERM or SIGINT. Raises Unavailable if the port is taken."""
    registry = new_registry()
    start_tracing("fourways-gateway")
    link = StoreCircuitBreaker(
        config.paths.store_uri_file, open_reader, config.store_timeout_seconds, registry
    )
    await link.start()
    certificate = Certificate(Path(config.tls_dir)) if config.tls_dir else None
    server, gateway = build(config, link, registry)
    following = asyncio.ensure_future(_follow(certificate)) if certificate else None
    try:
        await listen(server, config.host, config.port)
        if certificate is not None:
            await listen(server, config.host, config.tls_port, certificate.context)
        grpc = await listen_grpc(server, config.host, config.grpc_port, config.tls_dir)
        running = asyncio.ensure_future(run_until_signal(server))
        await asyncio.sleep(0)  # a signal may follow the log line below: install handlers first
        logger.info("serving", extra={"port": server.port, "namespace": config.namespace})
        connecting = asyncio.ensure_future(gateway.connect())
        answered = await running
        connecting.cancel()
        await grpc.stop()
    finally:
        if following is not None:
            following.cancel()
        await gateway.close()
        await link.close()
        await in_thread(stop_tracing, "tracing")
    logger.info("stopped", extra={"all_answered": answered})


async def _follow(certificate: Certificate) -> None:
    while True:
        await asyncio.sleep(_CERTIFICATE_SECONDS)
        await in_thread(certificate.reread, "certificate")


def build(
    config: GatewayConfig,
    link: StoreCircuitBreaker,
    registry: CollectorRegistry,
    limits: Limits = _LIMITS,
    open_publisher: OpenPublisher | None = None,
    open_run_store: OpenRunStore | None = None,
) -> tuple[Server, Gateway]:
    """Return a gateway and its server, which does not listen yet."""
    gateway = Gateway(
        config,
        link,
        registry,
        lambda: server.draining,
        open_publisher or _publisher_of(config),
        open_run_store or _history_of(config),
    )
    # The handlers hold each deployment to its own limit.
    most = max([config.max_body_bytes, *(route.max_body_bytes for route in config.routes)])
    limits = replace(limits, body_bytes=most)
    app: Handler = gateway.router()
    observe: Observe = gateway.metrics.observe
    if config.access_log:
        app, observe = with_access_log(app, observe, gateway.knows)
    app, observe = with_tracing(app, observe)
    server = Server(app, limits, observe, origins=config.allowed_origins)
    return server, gateway


def _publisher_of(config: GatewayConfig) -> OpenPublisher:
    def opened(route: Route) -> Publisher:
        from ..streaming import open_publisher  # broker clients are loaded only where needed

        assert route.source is not None, "streaming routes have a source"  # noqa: S101
        return open_publisher(route.source, config.paths.of(route.deployment), config.fetch)

    return opened


def _history_of(config: GatewayConfig) -> OpenRunStore:
    def opened() -> RunStore:
        # Drivers are loaded only where needed. Secrets are rotated, so the address is re-read.
        from fourways_runtime.io.store import open_run_store, owners_of_all, read_uri

        return open_run_store(
            read_uri(config.paths.store_uri_file), owners_of_all(config), read_only=True
        )

    return opened


def _open_reader(config: GatewayConfig) -> OpenReader:
    # Drivers are loaded only where needed.
    from fourways_runtime.io.store import open_reader, owners_of_all

    return lambda address, timeout: open_reader(address, timeout, owners_of_all(config))
