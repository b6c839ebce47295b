"""The gateway's paths, and the mode that handles each request.

Owns the mapping from HTTP to modes: a deployment with a route is handled by the route's mode, any
other is treated as a batch deployment. Each mode decides what it answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Gauge

from fourways_api import GatewayConfig, Route
from fourways_api.demand import DEMAND_PATH
from fourways_http import ByteRoom, HttpError, Request, Response, Router, json_response
from fourways_http.message import Answer
from fourways_runtime.callers.guard import CallerGuard
from fourways_runtime.callers.server_identity import Authority
from fourways_runtime.errors import StoreUnavailable
from fourways_runtime.io.store.streams.stream import LiveLookup
from fourways_runtime.memory import share_of_memory
from fourways_runtime.metrics import exposition
from fourways_runtime.v2 import v1
from fourways_runtime.v2.dataplane import READY, add_routes, listed

from .access import ACCESS
from .batch import BatchHandler
from .circuit_breaker import StoreCircuitBreaker
from .coalescer import LookupCoalescer
from .demand import DemandBoard
from .edge import EdgeHandlers
from .forward import NO_DRIFT, RealtimeHandler
from .mode import RETRY, Mode
from .modes import MODES, SharedParts
from .observed import GatewayMetrics, stream_counters
from .openai import OpenAiPaths
from .page import Pages
from .publishing import OpenPublisher
from .runs import OpenRunStore, Runs
from .serving_runtime import ServingRuntimeHandler
from .stream import StreamHandler

_SCRAPE_WAITS_SECONDS = 0.2

_HELD_SHARE, _MAX_HELD_BYTES = 0.125, 64 * 2**20
"""Room for requests that wait for a replica: a third of what all requests may take."""

_ARRIVING_SHARE, _MAX_ARRIVING_BYTES = 0.25, 256 * 2**20
"""Room for responses while they arrive. One takes twice its size for a moment, when it is whole."""


class Gateway:
    """The data plane of every deployment of one namespace, on the running event loop."""

    extensions = ("binary_tensor_data", "model_repository")

    def __init__(
        self,
        config: GatewayConfig,
        link: StoreCircuitBreaker,
        registry: CollectorRegistry,
        draining: Callable[[], bool],
        open_publisher: OpenPublisher,
        open_history: OpenRunStore,
    ) -> None:
        self._config = config
        self._link = link
        self._registry = registry
        self._draining = draining
        self.metrics = GatewayMetrics(registry, self._mode_of)
        self._batch = BatchHandler(config, link, registry)
        self._live = LookupCoalescer[LiveLookup | None](link.live, link.timeout, config.namespace)
        self._routes = {route.deployment: route for route in config.routes}
        self._guard = CallerGuard(config.callers, registry) if config.callers else None
        self._edge = EdgeHandlers(config, self.metrics.faults, registry)
        self._runs = Runs(config.namespace, open_history, registry, self._mode_of)
        self._demand = DemandBoard(registry, draining)
        parts = SharedParts(
            config,
            self.metrics.upstream,
            self.metrics.faults,
            self._live,
            stream_counters(registry),
            open_publisher,
            draining,
            self._demand,
            ByteRoom(share_of_memory(_HELD_SHARE, _MAX_HELD_BYTES)),
            self._batch,
            Authority(config.servers_ca).context if config.servers_ca else None,
            ByteRoom(share_of_memory(_ARRIVING_SHARE, _MAX_ARRIVING_BYTES)),
        )
        self._modes: dict[str, Mode] = {
            name: MODES[route.mode].handler(route, parts) for name, route in self._routes.items()
        }
        # If any route works without the store, the gateway stays ready while the store is down.
        self._needs_store = all(MODES[route.mode].needs_store for route in config.routes)
        Gauge(
            "fourways_requests_waiting",
            "Requests whose lookup in the store has not begun.",
            registry=registry,
        ).set_function(lambda: float(self._batch.lookups.waiting + self._live.waiting))

    def router(self) -> Router:
        """Return the router with all paths."""
        router = Router()
        router.add("GET", "/deployments", self._index)
        router.add("GET", "/deployments/{deployment}/drift", self._drift)
        router.add("GET", "/metrics", self._metrics)
        router.add("GET", "/predictions/{deployment}/{key}", lambda r: self._of(r).prediction(r))
        add_routes(router, self, "deployment", predict=self._predict)
        OpenAiPaths(self._modes, self._guard).add_to(router)
        router.add("GET", DEMAND_PATH, self._demand.report)
        self._edge.add_to(router)
        self._runs.add_to(router)
        Pages(self._config.namespace, router).add_to(router)
        if self._guard is not None:
            self._guard.protect(router, ACCESS)
            self._guard.start()
        return router

    async def connect(self) -> None:
        """Connect to the brokers that events are published to."""
        streams = [mode for mode in self._modes.values() if isinstance(mode, StreamHandler)]
        await asyncio.gather(*(stream.connect() for stream in streams))

    async def close(self) -> None:
        """Cancel everything in progress."""
        if self._guard is not None:
            await self._guard.close()
        for mode in self._modes.values():
            await mode.close()
        await self._edge.close()
        await self._runs.close()
        await self._live.close()
        await self._batch.close()

    def _of(self, request: Request) -> Mode | BatchHandler:
        return self._modes.get(request.params["deployment"], self._batch)

    # ---- the protocol's paths

    def infer(self, request: Request) -> Answer:
        """Answer an inference request according to the deployment's mode."""
        return self._modes.get(request.params["deployment"], self._batch).infer(request)

    async def _drift(self, request: Request) -> Response:
        """Tell how records that are scored now differ from those of the training."""
        mode = self._of(request)
        # Not of one that sleeps: the question would start a replica.
        if type(mode) is RealtimeHandler:
            return await mode.drift()
        if (drift := await self._edge.drift(request.params["deployment"])) is not None:
            return drift
        raise HttpError(404, NO_DRIFT)

    def _predict(self, request: Request) -> Answer:
        """Answer a request of version 1: by the runtime's own reading, or by conversion."""
        mode = self._of(request)
        if isinstance(mode, ServingRuntimeHandler):
            return mode.predict(request)
        most = self._config.max_body_bytes
        if isinstance(mode, RealtimeHandler):
            most = mode.max_body_bytes
        return v1.predict(mode.metadata, self.infer, request, most)

    def metadata(self, request: Request) -> Answer:
        """Describe a deployment as a model."""
        return self._of(request).metadata(request)

    def openapi(self, request: Request) -> Answer:
        """Describe a deployment's paths and types as an OpenAPI document."""
        return self._of(request).openapi(request)

    def model_ready(self, request: Request) -> Answer:
        """Return whether a deployment is ready."""
        return self._of(request).model_ready(request)

    async def models(self, request: Request) -> Response:
        """List the deployments that serve predictions here."""
        return json_response({"models": [one["name"] for one in await self._listed(request)]})

    async def index(self, request: Request) -> Response:
        """List these deployments with their versions."""
        return json_response(await self._listed(request))

    async def _listed(self, request: Request) -> list[dict[str, Any]]:
        found = {
            name: route.version for name, route in self._routes.items() if route.mode != "edge"
        }
        try:
            published = {name: run.version for name, run in await self._batch.deployments()}
        except StoreUnavailable:
            published = {}  # deployments with a route are known without the store
        known = {name: v for name, v in published.items() if name not in self._routes} | found
        return [listed(name, v) for name, v in sorted(known.items()) if request.sees(name)]

    async def ready(self, request: Request) -> Response:
        """Return whether the gateway is ready."""
        if self._draining():
            return json_response({"ready": False, "reason": "draining"}, 503)
        if not await self._link.ready():
            reason = "the prediction store is not available"
            if self._needs_store:
                return json_response({"ready": False, "reason": reason}, 503, RETRY)
            return json_response({"ready": True, "degraded": reason})
        return READY

    def knows(self, name: str) -> bool:
        """Return whether a deployment of this name is answered for."""
        return self._mode_of(name) is not None

    def _mode_of(self, name: str) -> str | None:
        route = self._routes.get(name)
        if route is not None:
            return route.mode
        return "batch" if self._batch.knows(name) else None

    # ---- about the gateway

    async def _index(self, request: Request) -> Response:
        document: dict[str, Any] = {"namespace": self._config.namespace}
        listed = {name: self._about(route) for name, route in self._routes.items()}
        try:
            listed = dict(await self._batch.listing()) | listed
        except StoreUnavailable:
            if not self._routes:
                raise HttpError(503, "the prediction store is not available", RETRY) from None
            document["incomplete"] = "the prediction store is not available"
        document["deployments"] = [
            about for name, about in sorted(listed.items()) if request.sees(name)
        ]
        return json_response(document)

    def _about(self, route: Route) -> dict[str, Any]:
        name = route.deployment
        about = {"deployment": name, "mode": route.mode, "version": route.version}
        return {**about, **self._modes[name].about()}

    async def _metrics(self, request: Request) -> Response:
        self._runs.look()
        await self._edge.look()
        try:
            async with asyncio.timeout(_SCRAPE_WAITS_SECONDS):
                await self._batch.look()
        except (StoreUnavailable, TimeoutError):
            pass  # the metrics of the store show this
        return exposition(self._registry)
