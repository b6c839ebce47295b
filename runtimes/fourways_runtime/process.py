"""Start and end of a workload's process: logs, event loop, SIGTERM, termination message, exit code.

All entry points share this, so that each ends the same way: its termination message names the
cause, its exit code is the error's, and no hanging thread keeps it from ending. Imports nothing
heavy: a server is live before its libraries are loaded.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

from fourways_api import Paths, RunReport, RuntimeConfig
from fourways_api.reasons import Reason

from . import sigterm
from .errors import ConfigError, ModelHangs, Unavailable, WorkloadError
from .extras import missing_library
from .logs import log_as_json
from .model_watch import WATCH
from .sigterm import Terminated
from .termination_message import write_report

if TYPE_CHECKING:
    from ssl import SSLContext

    from prometheus_client import CollectorRegistry

    from fourways_http import Server


class Configured(Protocol):
    """The part of a configuration that the end of a process needs."""

    @property
    def paths(self) -> Paths:
        """Where the termination message goes."""


C = TypeVar("C", bound=Configured)
T = TypeVar("T")

EXIT_TERMINATED = 143


# ---------------------------------------------------------------- servers


def run_server(
    read: Callable[[], C], serve: Callable[[C], Coroutine[Any, Any, object]], log: logging.Logger
) -> NoReturn:
    """Read the configuration, serve until a signal stops the process, report a failure, and end.

    ``serve`` raises WorkloadError if it cannot continue.
    """
    log_as_json()
    config: C | None = None
    code = 0
    try:
        config = read()
        _end_where_the_model_hangs(config, log)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(serve(config))
    except Exception as error:  # noqa: BLE001  (the last words must be said whatever happened)
        report, code = failure(error, config, log)
        write_report(report, (config.paths if config else Paths()).termination_log)
    leave(code)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return the factory of the fastest available event loop; None means asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None  # slower, but the only one on Windows
    return uvloop.new_event_loop


def new_registry(config: RuntimeConfig | None = None) -> CollectorRegistry:
    """Return a registry that already contains the metrics of the process.

    With the configuration of a worker, they name the model that it serves.
    """
    from prometheus_client import (
        GC_COLLECTOR,
        PLATFORM_COLLECTOR,
        PROCESS_COLLECTOR,
        CollectorRegistry,
        Gauge,
    )

    registry = CollectorRegistry()
    for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
        registry.register(collector)
    if config is not None:
        info = Gauge(
            "fourways_model_info",
            "1, with the deployment of a worker and version, format and digest of its model.",
            ("deployment", "version", "format", "digest"),
            registry=registry,
        )
        model = config.model
        digest = config.digest or model.digest or ""
        info.labels(config.name, model.version, model.format, digest).set(1)
    return registry


async def listen(server: Server, host: str, port: int, tls: SSLContext | None = None) -> None:
    """Start listening, with TLS if there is a context. Raises Unavailable if the port is taken."""
    try:
        await server.start(host, port, tls)
    except OSError as error:
        raise Unavailable(f"cannot listen on {host}:{port}: {error.strerror}") from None


async def in_thread(call: Callable[[], T], name: str) -> T:
    """Run a call on a thread that does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def tell(set_outcome: Callable[[Any], None], outcome: Any) -> None:
        if not future.done():
            set_outcome(outcome)

    def work() -> None:
        outcome: tuple[Callable[[Any], None], Any]
        try:
            outcome = future.set_result, call()
        except BaseException as error:  # noqa: BLE001  (whoever awaits it gets it)
            outcome = future.set_exception, error
        with suppress(RuntimeError):  # the loop is closed: nothing waits for the result any more
            loop.call_soon_threadsafe(tell, *outcome)

    threading.Thread(target=work, name=name, daemon=True).start()
    return await future


# ---------------------------------------------------------------- jobs


def run_job(
    read: Callable[[], C],
    work: Callable[[C], RunReport],
    log: logging.Logger,
    completed: Callable[[RunReport], RunReport] = lambda report: report,
) -> int:
    """Read the configuration, do the work, report; return the exit code.

    SIGTERM ends the work with :class:`.sigterm.Terminated`, wherever it is. ``completed`` adds the
    progress of the work to the report of a failure.
    """
    sigterm.raise_on_sigterm()
    log_as_json()
    config: C | None = None
    code = 0
    try:
        config = read()
        _end_where_the_model_hangs(config, log, completed)
        report = work(config)
    except (Exception, Terminated) as error:  # noqa: BLE001  (as for servers)
        # Libraries make another error of it where it interrupts them, such as an ImportError.
        ended = Terminated() if sigterm.arrived.is_set() else error
        report, code = failure(ended, config, log)
        report = completed(report)
    log.info(report.outcome.lower(), extra={"because": report.reason, "exit_code": code})
    write_report(report, (config.paths if config else Paths()).termination_log)
    if code:
        leave(code)
    return code


# ---------------------------------------------------------------- ends


def failure(error: BaseException, config: object, log: logging.Logger) -> tuple[RunReport, int]:
    """Log what ended a workload; return its termination message and its exit code."""
    if isinstance(error, WorkloadError):
        reason, message, code = error.reason, str(error), error.exit_code
        log.error("%s", error, extra={"reason": reason})
    elif isinstance(error, Terminated):
        message = "stopped before it finished; nothing was published"
        reason, code = Reason.Terminated, EXIT_TERMINATED
    elif (missing := missing_library(error)) is not None:
        reason, message, code = Reason.ConfigError, missing, ConfigError.exit_code
        log.error("%s", missing, extra={"reason": reason})
    else:
        reason, message, code = Reason.InternalError, "see the log", 1
        log.error("internal error", exc_info=error)
    known = config if isinstance(config, RuntimeConfig) else None
    report = RunReport(
        outcome="Failed",
        reason=reason,
        message=message,
        digest=known.digest if known else None,
        version=known.model.version if known else None,
    )
    return report, code


def _end_where_the_model_hangs(
    config: Configured,
    log: logging.Logger,
    completed: Callable[[RunReport], RunReport] = lambda report: report,
) -> None:
    """Start the watchdog for calls into the model: a call that does not return ends the process.

    The stack of a crash goes to the termination message, like that of a process that hangs in a
    library.
    """

    def hung(error: ModelHangs) -> None:
        end_with(error, config, log, completed)

    opened = _opened(config.paths.termination_log)
    if opened is not None and not faulthandler.is_enabled():
        # Where a library crashes, nothing else says so. One stack only: Kubernetes cuts off the
        # beginning of a long message.
        faulthandler.enable(opened, all_threads=False)
    WATCH.start(hung, opened)


def end_with(
    error: WorkloadError,
    config: Configured,
    log: logging.Logger,
    completed: Callable[[RunReport], RunReport] = lambda report: report,
) -> NoReturn:
    """Report a failure and end at once, from any thread: a call that does not return is left."""
    report, code = failure(error, config, log)
    write_report(completed(report), config.paths.termination_log)
    leave(code)


def _opened(file: str) -> int | None:
    """Open the termination message for the watchdog; None if it cannot be written."""
    try:
        return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except OSError:
        return None  # The report's writer says so at the end.


def leave(code: int) -> NoReturn:
    """End at once: the interpreter would wait for a thread that hangs in a download or a model."""
    sys.stderr.flush()
    os._exit(code)
