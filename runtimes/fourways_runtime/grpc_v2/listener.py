"""The gRPC server: listens, passes each call to a handler of HTTP requests, and maps statuses.

Each call becomes a request on the path that HTTP clients use, so callers, limits, metrics,
time-outs and modes are the same. Owns the mapping of statuses and metadata, and the limits of the
transport.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import orjson
from google.protobuf.message import DecodeError
from grpc import aio

from fourways_http import HttpError, Request, Response
from fourways_runtime.callers.certificate import MountedCertificate
from fourways_runtime.errors import Unavailable
from fourways_runtime.v2.body import BINARY_HEADER, OFF_LOOP_BYTES
from fourways_runtime.v2.off_loop import off_loop
from fourways_runtime.v2.protocol import refuse

from .conversion import binary_request, infer_response
from .messages import SERVICE, message

logger = logging.getLogger("fourways.grpc")

MAX_MESSAGE_BYTES = 4 * 2**20
"""gRPC's own default. Messages count as buffered bytes once they have arrived, not before."""

MAX_CALLS = 256
"""Calls at a time; beyond: RESOURCE_EXHAUSTED. Bounds the messages that are still arriving."""

GRACE_SECONDS = 2.0
"""Time for calls in progress, after the requests over HTTP have been answered."""

MAX_PREFER_SECONDS = 30
_MARGIN_SECONDS, _MARGIN_SHARE = 0.05, 0.1
"""Time of a call that is left for its response: whichever is less."""

_MAX_SECONDS = 1e9

_PASSED = frozenset(
    {
        "authorization",
        "baggage",
        "idempotency-key",
        "prefer",
        "traceparent",
        "tracestate",
        "x-fourways-authorization",
        "x-request-id",
    }
)
_CODES = {
    202: grpc.StatusCode.DEADLINE_EXCEEDED,
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.ABORTED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_MAX_DETAILS = 2048

Answerer = Callable[[Request], Awaitable[Response]]
"""Answers a request as an HTTP server would; raises nothing."""


class GrpcListener:
    """A gRPC server of one application, on the running event loop."""

    def __init__(self, answer: Answerer) -> None:
        self._answer = answer
        self._server = aio.server(
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", 32 * 1024),
                ("grpc.so_reuseport", 0),  # a taken port is an error
            ],
            maximum_concurrent_rpcs=MAX_CALLS,
        )
        self._server.add_generic_rpc_handlers((self._handlers(),))

    async def start(self, host: str, port: int, tls_dir: Path | None = None) -> int:
        """Listen, with the certificate of a folder if there is one; return the port.

        Raises Unavailable if the port is taken, ConfigError if the certificate cannot be used.
        """
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if tls_dir is None:
                bound = self._server.add_insecure_port(address)
            else:
                bound = self._server.add_secure_port(address, _credentials(tls_dir))
        except RuntimeError:
            raise Unavailable(f"cannot listen on {host}:{port}: is the port taken?") from None
        await self._server.start()
        return int(bound)

    async def stop(self) -> None:
        """Stop accepting calls, and wait a moment for those in progress."""
        await self._server.stop(GRACE_SECONDS)

    def _handlers(self) -> grpc.GenericRpcHandler:
        calls = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._model_infer,
            "RepositoryIndex": self._repository_index,
        }
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                name: grpc.unary_unary_rpc_method_handler(
                    _reporting(call, message(f"{name}Request")),
                    response_serializer=message(f"{name}Response").SerializeToString,
                )
                for name, call in calls.items()
            },
        )

    # ---- calls

    async def _server_live(self, call_request: Any, context: Any) -> Any:
        answer = await self._get(context, "/v2/health/live")
        return message("ServerLiveResponse")(live=answer.status == 200)

    async def _server_ready(self, call_request: Any, context: Any) -> Any:
        answer = await self._get(context, "/v2/health/ready")
        return message("ServerReadyResponse")(ready=answer.status == 200)

    async def _model_ready(self, call_request: Any, context: Any) -> Any:
        answer = await self._get(context, _path(call_request.name, call_request.version) + "/ready")
        if answer.status not in (200, 503):
            raise _CallRefused(answer)
        return message("ModelReadyResponse")(ready=answer.status == 200)

    async def _server_metadata(self, call_request: Any, context: Any) -> Any:
        metadata = _json(await self._get(context, "/v2"))
        return message("ServerMetadataResponse")(**metadata)

    async def _model_metadata(self, call_request: Any, context: Any) -> Any:
        metadata = _json(await self._get(context, _path(call_request.name, call_request.version)))
        tensors = message("ModelMetadataResponse.TensorMetadata")

        def described(kind: str) -> list[Any]:
            return [
                tensors(**{k: v for k, v in one.items() if k in _TENSOR}) for one in metadata[kind]
            ]

        return message("ModelMetadataResponse")(
            name=metadata["name"],
            versions=metadata["versions"],
            platform=metadata["platform"],
            inputs=described("inputs"),
            outputs=described("outputs"),
        )

    async def _repository_index(self, call_request: Any, context: Any) -> Any:
        answer = await self._answer(_request(context, b"POST", "/v2/repository/index"))
        found = [one for one in _json(answer) if not call_request.ready or one["state"] == "READY"]
        return message("RepositoryIndexResponse")(models=found)

    async def _model_infer(self, call_request: Any, context: Any) -> Any:
        heavy = call_request.ByteSize() > OFF_LOOP_BYTES
        made = (
            await off_loop(binary_request, call_request) if heavy else binary_request(call_request)
        )
        length, body = made
        path = _path(call_request.model_name, call_request.model_version) + "/infer"
        request = _request(context, b"POST", path, body)
        request.headers.append((BINARY_HEADER, b"%d" % length))
        answer = await self._answer(request)
        if answer.status != 200:
            raise _CallRefused(answer)
        typed = not call_request.raw_input_contents
        if len(answer.body) > OFF_LOOP_BYTES:
            return await off_loop(infer_response, answer, typed)
        return infer_response(answer, typed)

    async def _get(self, context: Any, path: str) -> Response:
        return await self._answer(_request(context, b"GET", path))


class _CallRefused(Exception):
    """A response that is not a 200."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


_TENSOR = frozenset({"name", "datatype", "shape"})


def _reporting(
    call: Callable[[Any, Any], Awaitable[Any]], request_type: Any
) -> Callable[[bytes, Any], Awaitable[Any]]:
    """Return a call that reads its request, and ends with the status of what refused it.

    gRPC's own reading would answer bytes that are no message with UNKNOWN.
    """

    async def reported(sent: bytes, context: Any) -> Any:
        try:
            return await call(_read(request_type, sent), context)
        except (_CallRefused, HttpError) as refused:
            code, details = _status(refused.response)
        except asyncio.CancelledError:
            raise
        except Exception:
            logger.exception("call failed")
            code, details = grpc.StatusCode.INTERNAL, "internal error"
        return await context.abort(code, details)

    return reported


def _read(request_type: Any, sent: bytes) -> Any:
    """Return the message. Raises HttpError 400."""
    try:
        return request_type.FromString(sent)
    except DecodeError:
        name = request_type.DESCRIPTOR.name
        raise refuse("message", f"is no {name} of {SERVICE}: its bytes are damaged") from None


def _status(answer: Response) -> tuple[grpc.StatusCode, str]:
    try:
        body = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        body = {}
    details = body.get("error") if isinstance(body, dict) else None
    if answer.status == 202:
        details = "the event was accepted, and its prediction is not there yet"
    fallback = f"the response's status is {answer.status}"
    code = _CODES.get(answer.status, grpc.StatusCode.INTERNAL)
    return code, str(details or fallback)[:_MAX_DETAILS]


def _json(answer: Response) -> Any:
    if answer.status != 200:
        raise _CallRefused(answer)
    return orjson.loads(answer.body)


def _path(name: str, version: str) -> str:
    path = f"/v2/models/{quote(name, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


def _request(context: Any, method: bytes, path: str, body: bytes = b"") -> Request:
    headers = [
        (name.encode("ascii"), value.encode("latin-1") if isinstance(value, str) else value)
        for name, value in context.invocation_metadata() or ()
        if name in _PASSED
    ]
    left = context.time_remaining()
    if left is not None:
        left = max(0.0, left - min(_MARGIN_SECONDS, left * _MARGIN_SHARE))
        # At least 1: a time-out of 0 is no time-out.
        headers.append((b"grpc-timeout", b"%du" % max(1, min(left, _MAX_SECONDS) * 1_000_000)))
        if not any(name == b"prefer" for name, _ in headers):
            headers.append((b"prefer", b"wait=%d" % min(left, MAX_PREFER_SECONDS)))
    return Request(method, path.encode("ascii"), headers, body)


def _credentials(folder: Path) -> grpc.ServerCredentials:
    """Return credentials that follow the mounted certificate. Raises ConfigError."""
    mounted = MountedCertificate(folder)

    def configuration() -> Any:
        return grpc.ssl_server_certificate_configuration([(mounted.key, mounted.chain)])

    def renewed() -> Any:
        """Return the certificate for a new connection if it has changed, else None."""
        return configuration() if mounted.renewed() else None

    return grpc.dynamic_ssl_server_credentials(
        configuration(), renewed, require_client_authentication=False
    )
