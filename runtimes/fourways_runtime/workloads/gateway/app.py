"""The gateway's paths, and which mode answers each.

Owns the mapping from HTTP to modes: a deployment with a route is answered by its route's mode, any
other is a batch deployment. What a mode answers is the mode's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from prometheus_client import CollectorRegistry, Gauge

from fourways_api import GatewayConfig, Route
from fourways_http import HttpError, Request, Response, Router, json_response
from fourways_http.message import Answer
from fourways_runtime.errors import StoreUnavailable
from fourways_runtime.io.store.streams.stream import LiveLookup
from fourways_runtime.metrics import exposition

from .batch import BatchHandler
from .circuit_breaker import StoreCircuitBreaker
from .coalescer import LookupCoalescer
from .edge import EdgeHandlers
from .forward import RealtimeHandler
from .mode import RETRY, Mode
from .observed import GatewayMetrics, stream_counters
from .runs import OpenHistory, Runs
from .stream import OpenPublisher, StreamHandler

_SCRAPE_WAITS_SECONDS = 0.2


class Gateway:
    """Answers for every deployment of one namespace, on the running event loop."""

    def __init__(
        self,
        config: GatewayConfig,
        link: StoreCircuitBreaker,
        registry: CollectorRegistry,
        draining: Callable[[], bool],
        open_publisher: OpenPublisher,
        open_history: OpenHistory,
    ) -> None:
        self._config = config
        self._link = link
        self._registry = registry
        self._draining = draining
        self.metrics = GatewayMetrics(registry, self._mode_of)
        self._batch = BatchHandler(config, link, registry)
        self._live = LookupCoalescer[LiveLookup | None](link.live, link.timeout, config.namespace)
        self._routes = {route.deployment: route for route in config.routes}
        self._edge = EdgeHandlers(config)
        self._runs = Runs(config.namespace, open_history, registry)
        counters = stream_counters(registry)
        self._modes: dict[str, Mode] = {}
        for name, route in self._routes.items():
            match route.mode:
                case "realtime":
                    self._modes[name] = RealtimeHandler(route, self.metrics.upstream)
                case "streaming":
                    self._modes[name] = StreamHandler(
                        route, config, self._live, counters(name), open_publisher, draining
                    )
                case "edge":
                    self._modes[name] = self._edge.of(route)
        # What works without the store is answered without it.
        self._needs_store = not any(r.mode in ("realtime", "edge") for r in config.routes)
        Gauge(
            "fourways_requests_waiting",
            "Requests whose lookup in the store has not begun.",
            registry=registry,
        ).set_function(lambda: float(self._batch.lookups.waiting + self._live.waiting))

    def router(self) -> Router:
        """Return the routes."""
        router = Router()
        router.add("GET", "/", self._index)
        router.add("GET", "/metrics", self._metrics)
        router.add("GET", "/predictions/{deployment}/{key}", lambda r: self._of(r).prediction(r))
        router.add("GET", "/v2", self._server)
        router.add("GET", "/v2/health/live", lambda request: _LIVE)
        router.add("GET", "/v2/health/ready", self._ready)
        for model in ("/v2/models/{deployment}", "/v2/models/{deployment}/versions/{version}"):
            router.add("GET", model, lambda r: self._of(r).model(r))
            router.add("GET", f"{model}/ready", lambda r: self._of(r).model_ready(r))
            router.add("POST", f"{model}/infer", self._infer)
        self._edge.add_to(router)
        self._runs.add_to(router)
        return router

    async def connect(self) -> None:
        """Connect to the brokers that questions are sent to."""
        streams = [mode for mode in self._modes.values() if isinstance(mode, StreamHandler)]
        await asyncio.gather(*(stream.connect() for stream in streams))

    async def close(self) -> None:
        """Give up what is under way."""
        for mode in self._modes.values():
            await mode.close()
        await self._edge.close()
        await self._runs.close()
        await self._live.close()
        await self._batch.close()

    def _of(self, request: Request) -> Mode | BatchHandler:
        return self._modes.get(request.params["deployment"], self._batch)

    def _infer(self, request: Request) -> Answer:
        return self._modes.get(request.params["deployment"], self._batch).infer(request)

    def _mode_of(self, name: str) -> str | None:
        route = self._routes.get(name)
        if route is not None:
            return route.mode
        return "batch" if self._batch.knows(name) else None

    # ---- about the gateway

    async def _index(self, request: Request) -> Response:
        told: dict[str, Any] = {"namespace": self._config.namespace}
        listed = {name: self._about(route) for name, route in self._routes.items()}
        try:
            listed = dict(await self._batch.listing()) | listed
        except StoreUnavailable:
            if not self._routes:
                raise HttpError(503, "the prediction store is not available", RETRY) from None
            told["incomplete"] = "the prediction store is not available"
        told["deployments"] = [about for _, about in sorted(listed.items())]
        return json_response(told)

    def _about(self, route: Route) -> dict[str, Any]:
        name = route.deployment
        about = {"deployment": name, "mode": route.mode, "version": route.version}
        return {**about, **self._modes[name].about()}

    async def _metrics(self, request: Request) -> Response:
        self._runs.look()
        try:
            async with asyncio.timeout(_SCRAPE_WAITS_SECONDS):
                await self._batch.look()
        except (StoreUnavailable, TimeoutError):
            pass  # the metrics say so
        return exposition(self._registry)

    def _server(self, request: Request) -> Response:
        realtime = any(route.mode == "realtime" for route in self._config.routes)
        extensions = ["binary_tensor_data"] if realtime else []
        return json_response({"name": "fourways", "version": _version(), "extensions": extensions})

    async def _ready(self, request: Request) -> Response:
        if self._draining():
            return json_response({"ready": False, "reason": "draining"}, 503)
        if not await self._link.ready():
            reason = "the prediction store is not available"
            if self._needs_store:
                return json_response({"ready": False, "reason": reason}, 503, RETRY)
            return json_response({"ready": True, "degraded": reason})
        return _READY


_LIVE = json_response({"live": True})
_READY = json_response({"ready": True})


def _version() -> str:
    try:
        return version("fourways")
    except PackageNotFoundError:
        return "0"
