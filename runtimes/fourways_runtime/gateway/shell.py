"""The gateway's process: configuration, event loop, signals, exit code."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry

from fourways_api import GatewayConfig

from ..config import read_gateway_config
from ..errors import Unavailable, WorkloadError
from ..http import Limits, Server, run_until_signal
from ..http.logs import log_as_json
from ..metrics import HttpMetrics
from .app import Gateway
from .link import OpenReader, StoreLink

_LIMITS = Limits()

logger = logging.getLogger("fourways.gateway")


def main() -> int:
    """Serve until told to stop; return the exit code of ``fourways_runtime.errors``."""
    log_as_json()
    try:
        config = read_gateway_config()
        runner = asyncio.Runner(loop_factory=_loop_factory())
        with runner:
            runner.run(serve(config, _open_reader()))
    except WorkloadError as error:
        logger.error("%s", error, extra={"reason": error.reason})
        return error.exit_code
    return 0


async def serve(config: GatewayConfig, open_reader: OpenReader) -> None:
    """Serve until SIGTERM or SIGINT. Raises Unavailable where the port is taken."""
    registry = CollectorRegistry()
    for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
        registry.register(collector)
    link = StoreLink(
        config.paths.store_uri_file, open_reader, config.store_timeout_seconds, registry
    )
    await link.start()
    server, gateway = build(config, link, registry)
    try:
        await server.start(config.host, config.port)
    except OSError as error:
        await link.close()
        raise Unavailable(
            f"cannot listen on {config.host}:{config.port}: {error.strerror}"
        ) from None
    logger.info("serving", extra={"port": server.port, "namespace": config.namespace})
    answered = await run_until_signal(server)
    await gateway.close()
    await link.close()
    logger.info("stopped", extra={"all_answered": answered})


def build(
    config: GatewayConfig, link: StoreLink, registry: CollectorRegistry, limits: Limits = _LIMITS
) -> tuple[Server, Gateway]:
    """Return the server of a gateway, not yet listening, and the gateway."""
    gateway = Gateway(config, link, registry, lambda: server.draining)
    limits = replace(limits, body_bytes=config.max_body_bytes)
    server = Server(gateway.router(), limits, HttpMetrics(registry).observe)
    return server, gateway


def _open_reader() -> OpenReader:
    from ..store import open_reader  # the drivers are loaded by who needs them

    return open_reader


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None  # asyncio's own loop: slower, and all there is on Windows
    return uvloop.new_event_loop
