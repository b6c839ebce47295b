"""Real-time deployments that a runtime of KServe serves: forwards the paths that it answers.

Owns the translation of names: callers use the deployment's name, the runtime has its own. V1 and V2
of the Open Inference Protocol are forwarded as they are, and so are OpenAI's paths, whose responses
are passed on while they arrive (server-sent events).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import quote

import httpx
import orjson
from prometheus_client import Counter

from fourways_api import Route
from fourways_http import ByteRoom, HttpError, Request, Response, SizedResponse, json_response
from fourways_http.exchange import HOP_BY_HOP

from .forward import PASSED, RealtimeHandler
from .mode import RETRY
from .observed import UpstreamGauges

logger = logging.getLogger("fourways.gateway.serving_runtime")

CONNECTIONS = 64
"""Maximum number of requests to OpenAI's paths of one deployment at a time."""

CONNECT_SECONDS = 2.0
_OWN = HOP_BY_HOP | {b"content-encoding", b"content-type", b"date", b"server"}


class ServingRuntimeHandler(RealtimeHandler):
    """Answers requests for one deployment through its runtime, on the running event loop."""

    def __init__(
        self,
        route: Route,
        upstream: UpstreamGauges,
        faults: Counter,
        room: ByteRoom | None = None,
    ) -> None:
        super().__init__(route, upstream, faults, room=room)
        self.model_name = route.model_name or route.deployment
        self._v1 = f"/v1/models/{quote(self.model_name, safe='')}".encode()
        limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=8)
        # Between two parts of a response as long as for its first.
        waits = httpx.Timeout(route.timeout_seconds, connect=CONNECT_SECONDS)
        self._client = httpx.AsyncClient(
            base_url=route.url or "", limits=limits, timeout=waits, trust_env=False
        )

    async def close(self) -> None:
        """Cancel everything in progress."""
        await super().close()
        await self._client.aclose()

    def about(self) -> dict[str, Any]:
        """Return the links."""
        base = f"/v2/models/{self._name}"
        return {"links": {"model": base, "infer": f"{base}/infer"}}

    def prediction(self, request: Request) -> asyncio.Future[Response]:
        """Refuse a request for one entity: the runtime has no entity keys."""
        raise HttpError(
            404,
            f"{self._name} is served by a runtime of KServe, which looks nothing up by key:"
            f" use /v2/models/{self._name}/infer, /v1/models/{self._name}:predict or /openai/v1/",
        )

    def openapi(self, request: Request) -> asyncio.Future[Response]:
        """Refuse a request for the OpenAPI document: the contract does not bind the runtime."""
        raise HttpError(
            404, f"{self._name} is served by a runtime of KServe, which has no document"
        )

    async def model_ready(self, request: Request) -> Response:
        """Forward a readiness request, in the version of the protocol in which it was made.

        A runtime without that path is ready if it answers: KServe probes what the runtime has.
        """
        if request.target.startswith(b"/v1/"):
            answer = await self._forward(b"GET", request, self._v1, b"")
        else:
            answer = await super().model_ready(request)
        if answer.status != 404:
            return answer
        return json_response({"name": self._name, "ready": True})

    def predict(self, request: Request) -> asyncio.Future[Response]:
        """Forward a request of version 1."""
        return self._forward(b"POST", request, self._v1 + b":predict", request.body)

    async def openai(self, request: Request, path: str, body: dict[str, Any]) -> Response:
        """Forward a request to one of OpenAI's paths; its ``model`` becomes the runtime's name.

        Raises HttpError 413, 503 or 504.
        """
        if self._route.url is None:
            raise HttpError(503, "the serving runtime has no address yet", RETRY)
        self._hold_body(request.body)
        headers = [h for h in request.headers if h[0].lower() in PASSED]
        content = orjson.dumps({**body, "model": self.model_name})
        opened = AsyncExitStack()
        try:
            answer = await opened.enter_async_context(
                self._client.stream("POST", path, headers=headers, content=content)
            )
        except httpx.TimeoutException:
            seconds = self._route.timeout_seconds
            raise HttpError(
                504, f"the serving runtime did not respond within {seconds:g} s"
            ) from None
        except httpx.HTTPError as error:
            details = {"deployment": self._name, "because": type(error).__name__}
            logger.warning("the serving runtime does not respond", extra=details)
            raise HttpError(503, "the serving runtime does not respond", RETRY) from None
        length = answer.headers.get("content-length")
        whole = length is not None and "content-encoding" not in answer.headers
        return SizedResponse(
            int(length) if whole else None,
            _Arriving(answer.aiter_bytes(), opened),
            answer.status_code,
            answer.headers.get("content-type", "application/octet-stream").encode("latin-1"),
            tuple(b"%b: %b" % h for h in answer.headers.raw if h[0].lower() not in _OWN),
        )


class _Arriving:
    """A response's body while it arrives."""

    def __init__(self, parts: AsyncIterator[bytes], opened: AsyncExitStack) -> None:
        self._parts = parts
        self._opened = opened

    async def read(self) -> bytes:
        return await anext(self._parts, b"")

    def close(self) -> None:
        """End the connection to the runtime, which stops working on a response nobody reads."""
        task = asyncio.ensure_future(self._opened.aclose())
        _closing.add(task)
        task.add_done_callback(_closing.discard)


_closing: set[asyncio.Future[None]] = set()
