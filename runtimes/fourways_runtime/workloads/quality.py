"""The quality worker: compares what model servers answered with labels that come later.

It is a process of its own, so that a comparison takes neither processor time nor memory from the
requests, and goes on while the model servers of a deployment sleep. It loads no model and answers
no requests but those about itself. Started with ``python -m fourways_runtime quality``.
"""

from __future__ import annotations

import logging
import os
import socket
from typing import TYPE_CHECKING, Any

from fourways_api.runtime_config import QualityConfig
from fourways_api.worker_faults import FAULTS_PATH, WorkerFaults
from fourways_http import (
    HttpError,
    Limits,
    Response,
    Router,
    Server,
    json_response,
    run_until_signal,
)
from fourways_runtime.config import read_quality_config
from fourways_runtime.metrics import HttpMetrics, exposition
from fourways_runtime.process import listen, new_registry, run_server

if TYPE_CHECKING:
    from fourways_runtime.io.store.database import Database

_LIVE = json_response({"live": True})
_READY = json_response({"ready": True})

STORE_SECONDS = 90.0
"""How long the store may be away, as for a stream worker, before this worker is not ready."""

COMPARISON_SECONDS = 900.0
"""How long a comparison may take, or be overdue, before this worker is not ready."""

logger = logging.getLogger("fourways.quality")


def main() -> int:
    """Compare until a signal; exit with a code from ``fourways_runtime.errors``."""
    run_server(read_quality_config, serve, logger)


async def serve(config: QualityConfig) -> None:
    """Compare until SIGTERM or SIGINT. The status reports a store or table that does not answer.

    Raises:
        Unavailable: the port is taken.

    """
    from .quality_watch import QualityWatch
    from .report_writer import ReportWriter

    registry = new_registry()

    def open_store() -> Database:
        from fourways_runtime.io.store import open_database, read_uri

        return open_database(read_uri(config.paths.store_uri_file))

    watch = QualityWatch(config, open_store, registry, scores=False)

    def document() -> dict[str, Any]:
        return WorkerFaults(quality=watch.status).model_dump(mode="json", by_alias=True)

    def report() -> dict[str, Any]:
        return {"version": config.model.version, "quality": document()["quality"]}

    def faults(request: object) -> Response:
        return json_response(document())

    name = f"{socket.gethostname()}-{os.getpid()}"
    reports = ReportWriter(config, open_store, name, report)

    def ready(request: object) -> Response:
        return readiness(reports.silent_seconds, watch.late_seconds)

    router = Router()
    router.add("GET", "/metrics", lambda request: exposition(registry))
    router.add("GET", "/v2/health/live", lambda request: _LIVE)
    router.add("GET", "/v2/health/ready", ready)
    router.add("GET", FAULTS_PATH, faults)
    server = Server(router, Limits(), HttpMetrics(registry).observe)
    await listen(server, config.host, config.port)
    logger.info("listening", extra={"port": server.port, "namespace": config.namespace})
    watch.start()
    reports.start()
    await run_until_signal(server)
    logger.info("stopped")


def readiness(store_silent: float, comparison_late: float) -> Response:
    """Answer whether the worker does its work.

    Args:
        store_silent: Seconds since the store took a report; it is given one every few seconds.
        comparison_late: Seconds since the comparison in progress began, or since one was due.

    Raises:
        HttpError: 503 with the cause, if it does not.

    """
    if store_silent > STORE_SECONDS:
        reason = f"the prediction store has not answered for {store_silent:.0f} s"
    elif comparison_late > COMPARISON_SECONDS:
        reason = f"the comparison with labels has stood still for {comparison_late:.0f} s"
    else:
        return _READY
    raise HttpError(503, reason, (b"retry-after: 1",))
