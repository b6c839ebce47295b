"""The model server's process: configuration, event loop, signals, last words, exit code."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry

from fourways_api import Paths, RunReport
from fourways_api.runtime_config import ServerConfig

from ..config import read_server_config
from ..errors import Unavailable, WorkloadError
from ..http import Limits, Server, run_until_signal
from ..http.logs import log_as_json
from ..metrics import HttpMetrics
from .app import ModelServer

if TYPE_CHECKING:
    from .loading import Loaded

_T = TypeVar("_T")

_LIMITS = Limits()
_FAILED_LOAD_GRACE = 0.2

logger = logging.getLogger("fourways.serving")


def main() -> int:
    """Serve until told to stop; return the exit code of ``fourways_runtime.errors``."""
    log_as_json()
    config: ServerConfig | None = None
    try:
        config = read_server_config()
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(serve(config))
    except WorkloadError as error:
        logger.error("%s", error, extra={"reason": error.reason})
        _say(config, error.reason, str(error))
        _leave(error.exit_code)
    except Exception:
        logger.exception("internal error")
        _say(config, "InternalError", "see the server's log")
        _leave(1)
    _leave(0)


async def serve(config: ServerConfig) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        Unavailable: the port is taken.
        WorkloadError: the model could not be brought to answer.

    """
    registry = CollectorRegistry()
    for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
        registry.register(collector)
    server, app = build(config, registry)
    try:
        await server.start(config.host, config.port)
    except OSError as error:
        where = f"{config.host}:{config.port}"
        raise Unavailable(f"cannot listen on {where}: {error.strerror}") from None
    running = asyncio.ensure_future(run_until_signal(server))
    await asyncio.sleep(0)  # who reads that we listen may send a signal at once
    logger.info("listening", extra={"port": server.port, "namespace": config.namespace})
    loading = asyncio.ensure_future(_bring_up(config, app))
    await asyncio.wait((running, loading), return_when=asyncio.FIRST_COMPLETED)
    if loading.done() and loading.exception() is not None:
        running.cancel()
        await server.drain(0, _FAILED_LOAD_GRACE)
        await loading
    logger.info("stopped", extra={"all_answered": await running})


def build(
    config: ServerConfig, registry: CollectorRegistry, limits: Limits = _LIMITS
) -> tuple[Server, ModelServer]:
    """Return the server of a model, not yet listening, and what answers its requests."""
    app = ModelServer(config, registry, lambda: server.draining)
    limits = replace(limits, body_bytes=config.max_body_bytes)
    server = Server(app.router(), limits, HttpMetrics(registry).observe)
    return server, app


async def _bring_up(config: ServerConfig, app: ModelServer) -> None:
    """Load the model on a thread of its own, then let the application answer."""
    loaded = await _in_thread(lambda: _load(config))
    from .batcher import Batcher

    batcher = Batcher(
        loaded.scorer,
        loaded.renderer,
        app.metrics,
        max_rows=config.max_batch_rows,
        inline_rows=loaded.inline_rows,
    )
    app.use(loaded.reader, batcher)
    logger.info("serving", extra={"model": config.name, "digest": loaded.digest})


def _load(config: ServerConfig) -> Loaded:
    from .loading import load_model  # the libraries are loaded while the server lives already

    return load_model(config)


async def _in_thread(call: Callable[[], _T]) -> _T:
    """Run a call on a thread that does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def tell(set_outcome: Callable[[Any], None], outcome: Any) -> None:
        if not future.done():
            set_outcome(outcome)

    def work() -> None:
        outcome: tuple[Callable[[Any], None], Any]
        try:
            outcome = future.set_result, call()
        except Exception as error:  # noqa: BLE001  (whoever awaits it gets it)
            outcome = future.set_exception, error
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(tell, *outcome)

    threading.Thread(target=work, name="load", daemon=True).start()
    return await future


def _say(config: ServerConfig | None, reason: str, message: str) -> None:
    from ..last_words import write_report

    report = RunReport(
        outcome="Failed",
        reason=reason,
        message=message,
        digest=config.digest if config else None,
        version=config.model.version if config else None,
    )
    write_report(report, (config.paths if config else Paths()).termination_log)


def _leave(code: int) -> NoReturn:
    """End at once: the interpreter would wait for a thread that hangs in a download or a model."""
    sys.stderr.flush()
    os._exit(code)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None  # asyncio's own loop: slower, and all there is on Windows
    return uvloop.new_event_loop
