"""Real-time deployments: forwards requests to the model server.

Owns the choice of what is forwarded, and the response if the model server does not respond. Bodies
are forwarded byte for byte; only the client and the model server interpret them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from math import inf
from ssl import SSLContext
from time import monotonic
from typing import Any, ClassVar
from urllib.parse import quote

import orjson
from prometheus_client import Counter

from fourways_api import EntityKey, Route
from fourways_api.worker_faults import FAULTS_PATH, WorkerFaults
from fourways_http import (
    ByteRoom,
    ClientError,
    HttpError,
    NoRoom,
    Origin,
    OriginAnswer,
    Pool,
    Request,
    Response,
    TimedOut,
    TooLarge,
    TooManyWaiting,
    json_response,
)
from fourways_http.client import HOLD_SECONDS
from fourways_runtime.v2.deadline import timeout_of
from fourways_runtime.v2.faults import FAULT_HEADER, FEATURES, MODEL
from fourways_runtime.v2.protocol import DATATYPES, KEY_ALIAS, read_key, rows_of

from .mode import RETRY, links
from .observed import UpstreamGauges
from .views import rfc3339_now

logger = logging.getLogger("fourways.gateway.forward")

QUIET_SECONDS = 10.0
"""At most one failure of a model server is logged per this period; the metrics count them all."""

MARGIN_SECONDS = 0.25
"""Additional wait after the route's time-out, so that the model server can still report its own."""

PASSED = frozenset(
    {
        b"accept",
        b"baggage",
        b"content-encoding",
        b"content-type",
        b"inference-header-content-length",
        b"traceparent",
        b"tracestate",
        b"x-request-id",
    }
)
"""Request headers that are forwarded. The body's length is written anew, and the model server needs
nothing else about the caller."""

_LENGTHS = frozenset(map(len, PASSED))
_OWN = frozenset({b"date", b"server"})
_STATUSES = frozenset(status.value for status in HTTPStatus if status >= 200)


NO_DRIFT = "no records are compared with a training profile here, or too few so far"


class RealtimeHandler:
    """Answers requests for one deployment through its model server, on the running event loop."""

    hold_seconds: ClassVar[float] = HOLD_SECONDS
    """How long the pool holds requests for a model server that was never reached."""

    def __init__(
        self,
        route: Route,
        upstream: UpstreamGauges,
        faults: Counter,
        tls: Callable[[], SSLContext] | None = None,
        room: ByteRoom | None = None,
    ) -> None:
        """``tls`` returns the context of a connection to an https address.

        ``room`` is for the responses of all deployments while they arrive.
        """
        self._route = route
        self._faults = faults
        name = self._name = route.deployment
        self._base = f"/v2/models/{quote(route.model_name or name, safe='')}".encode()
        self._pool: Pool | None = None
        self._quiet_until = 0.0
        if route.url is not None:
            self._pool = Pool(
                Origin.parse(route.url),
                route.timeout_seconds + MARGIN_SECONDS,
                self._explain,
                slack_seconds=MARGIN_SECONDS,
                max_answer_bytes=route.max_answer_bytes,
                hold_seconds=self.hold_seconds,
                tls=tls,
                room=room,
            )
            upstream.follow(name, self._connections, self._in_flight)

    @property
    def max_body_bytes(self) -> int:
        """Maximum size of a request's body."""
        return self._route.max_body_bytes

    def _connections(self) -> int:
        return self._pool.connections if self._pool is not None else 0

    def _in_flight(self) -> int:
        return self._pool.busy if self._pool is not None else 0

    async def close(self) -> None:
        """Cancel everything in progress."""
        if self._pool is not None:
            await self._pool.close()

    def about(self) -> dict[str, Any]:
        """Return the links."""
        key = self._route.entity_key
        return {"links": links(self._name, key.name if key else KEY_ALIAS)}

    # ---- requests

    def infer(self, request: Request) -> asyncio.Future[Response]:
        """Forward an inference request."""
        return self._pass(b"POST", request, b"/infer", request.body)

    def metadata(self, request: Request) -> asyncio.Future[Response]:
        """Forward a request for the model's metadata."""
        return self._pass(b"GET", request, b"")

    def openapi(self, request: Request) -> asyncio.Future[Response]:
        """Forward a request for the OpenAPI document."""
        return self._pass(b"GET", request, b"/openapi.json")

    def model_ready(self, request: Request) -> Awaitable[Response]:
        """Forward a readiness request."""
        return self._pass(b"GET", request, b"/ready")

    def drift(self) -> asyncio.Future[Response]:
        """Ask one of the model servers how its records differ from those of the training."""
        return self._send(b"GET", FAULTS_PATH.encode(), (), b"", self._drift)

    def _drift(self, answer: OriginAnswer) -> Response:
        try:
            found = WorkerFaults.model_validate_json(answer.body).drift
        except ValueError:
            raise _unusable() from None
        if found is None:
            raise HttpError(404, NO_DRIFT)
        return json_response({"deployment": self._name, "drift": found.to_json()})

    def _pass(
        self, method: bytes, request: Request, suffix: bytes, body: bytes = b""
    ) -> asyncio.Future[Response]:
        target = self._base
        if "version" in request.params:
            version = quote(request.params["version"], safe="")
            target = b"%b/versions/%b" % (target, version.encode())
        return self._forward(method, request, target + suffix, body)

    def _forward(
        self, method: bytes, request: Request, target: bytes, body: bytes
    ) -> asyncio.Future[Response]:
        self._hold_body(body)
        headers = [
            b"%b: %b" % header
            for header in request.headers
            if len(header[0]) in _LENGTHS and header[0].lower() in PASSED
        ]
        then = self._passed if request.echo is None else self._passed_without_id
        return self._send(method, target, headers, body, then, self._within(request))

    def _hold_body(self, body: bytes) -> None:
        """Hold a body to the deployment's limit. Raises HttpError 413."""
        if len(body) > self._route.max_body_bytes:
            raise HttpError(413, "the request's body is too large")

    def _within(self, request: Request) -> float | None:
        """Return the client's own time-out (s), if it has one."""
        within = timeout_of(request)
        if request.waited:
            # The time it waited before it was read is already spent, so the model server gets less.
            within = min(within or inf, self._route.timeout_seconds) - request.waited
        return within

    def _send(
        self,
        method: bytes,
        target: bytes,
        headers: Sequence[bytes],
        body: bytes,
        then: Callable[[OriginAnswer], Response],
        within: float | None = None,
    ) -> asyncio.Future[Response]:
        """Ask the model server; ``within`` (s) is the client's time-out."""
        return self._reached().ask(method, target, headers, body, then, within)

    def prediction(self, request: Request) -> asyncio.Future[Response]:
        """Request a prediction for one entity, whose features the model server looks up."""
        entity_key = self._route.entity_key or EntityKey(name=KEY_ALIAS, type="string")
        key = read_key(request.params["key"], entity_key)
        tensor = {
            "name": entity_key.name,
            "datatype": DATATYPES[entity_key.type],
            "shape": [1],
            "data": [key],
        }

        def then(answer: OriginAnswer) -> Response:
            if answer.status != 200:
                return self._passed(answer)
            return self._prediction(key, answer)

        return self._send(
            b"POST",
            self._base + b"/infer",
            (b"content-type: application/json",),
            orjson.dumps({"inputs": [tensor]}),
            then,
        )

    def _prediction(self, key: str | int, answer: OriginAnswer) -> Response:
        try:
            document = orjson.loads(answer.body)
            outputs = {output["name"]: rows_of(output)[0] for output in document["outputs"]}
            version = document["model_version"]
        except (ValueError, TypeError, LookupError):
            raise _unusable() from None
        return json_response(
            {
                "deployment": self._name,
                "key": key,
                "version": version,
                "computed_at": rfc3339_now(),
                "age_seconds": 0.0,
                "outputs": outputs,
            }
        )

    def _passed_without_id(self, answer: OriginAnswer) -> Response:
        """Forward a response without its request id, because the connection adds the id itself."""
        answer.headers = [header for header in answer.headers if header[0] != b"x-request-id"]
        return self._passed(answer)

    def _passed(self, answer: OriginAnswer) -> Response:
        if answer.status not in _STATUSES:
            raise _unusable()
        if answer.status >= 500:
            for name, party in answer.headers:
                if name == FAULT_HEADER and party in (MODEL, FEATURES):
                    self._faults.labels(self._name, party.decode()).inc()
        headers = tuple(b"%b: %b" % header for header in answer.headers if header[0] not in _OWN)
        kind = answer.content_type or b"application/octet-stream"
        return Response(answer.body, answer.status, kind, headers)

    def _reached(self) -> Pool:
        if self._pool is None:
            raise HttpError(503, "the model server has no address yet", RETRY)
        return self._pool

    def _explain(self, error: ClientError) -> Exception:
        if monotonic() >= self._quiet_until:
            self._quiet_until = monotonic() + QUIET_SECONDS
            details = {
                "deployment": self._name,
                "because": f"{type(error).__name__} {error}".strip(),
            }
            logger.warning("the model server does not respond", extra=details)
        match error:
            case TimedOut():
                seconds = self._route.timeout_seconds
                return HttpError(504, f"the model server did not respond within {seconds:g} s")
            case TooManyWaiting():
                return HttpError(503, "too many requests wait for the model server", RETRY)
            case TooLarge():
                return HttpError(502, "the model server's response is too large")
            case NoRoom():
                return HttpError(503, "too many large responses arrive at the same time", RETRY)
            case _:
                return HttpError(503, "the model server does not respond", RETRY)


def _unusable() -> HttpError:
    return HttpError(502, "the model server's response is invalid")
