"""The access log: one line for each request, in the format of all logs, if it is switched on.

A line has the route's pattern, never the path: a path may contain an entity key, and a query
anything. Names of deployments are logged once they are known to be ones. Every response then
carries the request's id, also one that the server made up, and a request that is forwarded takes it
along, so the lines of gateway and model server can be joined.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from time import perf_counter

from fourways_http import Request, Response
from fourways_http.message import Handler, echo_of
from fourways_http.state import Observe

PROBES = frozenset({"/metrics", "/faults", "/v2/health/live", "/v2/health/ready"})
"""Routes that are asked every few seconds by kubelet, operator and Prometheus: not logged."""

logger = logging.getLogger("fourways.access")


def with_access_log(
    app: Handler, observe: Observe, is_deployment: Callable[[str], bool]
) -> tuple[Handler, Observe]:
    """Return an application and an observer that log requests besides."""
    return _Identified(app), _AccessLog(observe, is_deployment).observe


class _Identified:
    """Gives every request an id that its response and forwarded requests carry."""

    def __init__(self, app: Handler) -> None:
        self._app = app

    def __call__(self, request: Request) -> Response | Awaitable[Response]:
        if request.echo is None:
            identity = request.id.encode("ascii")
            request.echo = echo_of(identity)
            # Not in place: requests with the same head share the list, and what is known of it.
            kept = [header for header in request.headers if header[0].lower() != b"x-request-id"]
            request.headers = [*kept, (b"x-request-id", identity)]
            request.memo = None
        return self._app(request)


class _AccessLog:
    def __init__(self, observe: Observe, is_deployment: Callable[[str], bool]) -> None:
        self._observe = observe
        self._is_deployment = is_deployment

    def observe(self, request: Request, status: int, started: float) -> None:
        """Count one response, and log it."""
        self._observe(request, status, started)
        pattern = "none" if request.route is None else request.route.pattern
        if pattern in PROBES:
            return
        fields: dict[str, object] = {
            "method": request.method[:16].decode("latin-1"),
            "route": pattern,
            "status": status,
            "milliseconds": round((perf_counter() - started) * 1000, 3),
            "bytes": len(request.body),
            "request_id": request.id,
        }
        name = request.params.get("deployment")
        if name is not None and self._is_deployment(name):
            fields["deployment"] = name
        if request.caller:
            fields["caller"] = request.caller
        logger.info("request", extra=fields)
