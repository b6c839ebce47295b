"""The model server's responses on the protocol's paths, also while its model loads.

Nothing heavy is imported here, so that the server is live before numpy is imported.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, cast

from prometheus_client import CollectorRegistry

from fourways_api import DriftStatus, InputField, OutputField
from fourways_api.reasons import Reason
from fourways_api.runtime_config import ServerConfig
from fourways_api.worker_faults import FAULTS_PATH, WorkerFault, WorkerFaults, worker_fault
from fourways_http import HttpError, Request, Response, Router, json_response
from fourways_runtime.metrics import exposition
from fourways_runtime.model_watch import WATCH
from fourways_runtime.tracing import stage

from .body import OFF_LOOP_BYTES, is_compressed
from .dataplane import LIVE, READY, add_routes, listed
from .deadline import timeout_of
from .faults import FeatureFault
from .observed import ServingMetrics
from .off_loop import off_loop
from .protocol import DATATYPES

if TYPE_CHECKING:
    from .batcher import Batcher
    from .enrichment import FeatureEnricher
    from .request import InferenceRequest
    from .templates import RequestTemplates

_RETRY = (b"retry-after: 1",)
_LOADING = "the model is loading"

STUCK_SECONDS = 5.0
"""Minimum time without a return from the model, or twice the request time-out if that is longer,
after which the model is not ready."""


class ModelServer:
    """The :class:`.dataplane.DataPlane` of one model, which serves once :meth:`use` was called."""

    extensions = ("binary_tensor_data", "model_repository")

    def __init__(
        self, config: ServerConfig, registry: CollectorRegistry, draining: Callable[[], bool]
    ) -> None:
        self._config = config
        self._registry = registry
        self._draining = draining
        self._reader: RequestTemplates | None = None
        self._batcher: Batcher | None = None
        self._enricher: FeatureEnricher | None = None
        self.metrics = ServingMetrics(registry)
        self._faults_of: list[Callable[[], WorkerFault | None]] = []
        self._drift: Callable[[], DriftStatus | None] = lambda: None
        self._afterwards: list[Callable[[], Awaitable[None]]] = []
        self._known: Mapping[str, Any] = {}

    def use(
        self,
        reader: RequestTemplates,
        batcher: Batcher,
        enricher: FeatureEnricher | None = None,
        known: Mapping[str, Any] | None = None,
    ) -> None:
        """Start serving with these parts; ``known`` are a record's inputs, for the examples."""
        self._reader, self._batcher, self._enricher = reader, batcher, enricher
        self._known = known or {}
        self.metrics.ready()

    def report_fault(self, fault: Callable[[], WorkerFault | None]) -> None:
        """List what ``fault`` returns among the server's faults."""
        self._faults_of.append(fault)

    def report_drift(self, drift: Callable[[], DriftStatus | None]) -> None:
        """Tell what ``drift`` returns beside the server's faults."""
        self._drift = drift

    def close_after(self, close: Callable[[], Awaitable[None]]) -> None:
        """Call ``close`` once all requests are answered and the rest is closed."""
        self._afterwards.append(close)

    async def close(self) -> None:
        """Shut down the worker thread, close the feature database, and what was given."""
        if self._batcher is not None:
            self._batcher.close()
        if self._enricher is not None:
            await self._enricher.close()
        for close in self._afterwards:
            await close()

    def router(self) -> Router:
        """Return the router with all paths."""
        router = Router()
        self._add_state(router)
        # Also under the model's own name, because a path without a parameter is matched faster.
        most = self._config.max_body_bytes
        add_routes(router, self, "model", self._config.name, live=_live, max_body_bytes=most)
        return router

    def state_router(self) -> Router:
        """Return the router of a port without encryption beside one with it: no predictions."""
        router = Router()
        self._add_state(router)
        router.add("GET", "/v2/health/live", _live)
        router.add("GET", "/v2/health/ready", self.ready)
        return router

    def _add_state(self, router: Router) -> None:
        router.add("GET", "/metrics", lambda request: exposition(self._registry))
        router.add("GET", FAULTS_PATH, lambda request: self._faults())

    def infer(self, request: Request) -> Awaitable[Response]:
        """Answer an inference request."""
        if request.params:  # without parameters, the path is the model's own
            self._require_model(request)
        if self._reader is None or self._batcher is None:
            raise HttpError(503, _LOADING, _RETRY)
        memo = request.memo
        known = None if memo is None else memo.facts
        timeout, compressed = known or self._header_facts(request)
        if compressed or len(request.body) > OFF_LOOP_BYTES:
            return self._infer_heavy(request, self._reader, self._batcher, timeout)
        inference = self._reader.take(request)
        if inference.missing and self._enricher is not None:
            given = cast("InferenceRequest", inference)
            return self._infer_enriched(given, self._enricher, self._batcher, timeout)
        since = monotonic() - request.waited if request.waited else None
        return self._batcher.ask(inference, since, timeout)

    def _header_facts(self, request: Request) -> tuple[float | None, bool]:
        """Return the client's time-out, and whether the body is compressed."""
        memo = request.memo
        if memo is None:
            return timeout_of(request), is_compressed(request)
        facts: tuple[float | None, bool] | None = memo.facts
        if facts is None:
            facts = memo.facts = timeout_of(request), is_compressed(request)
        return facts

    async def _infer_heavy(
        self,
        request: Request,
        reader: RequestTemplates,
        batcher: Batcher,
        within: float | None,
    ) -> Response:
        since = monotonic() - request.waited
        inference = await off_loop(reader.read, request)
        if inference.missing and self._enricher is not None:
            inference = await self._complete(inference, self._enricher)
        return await batcher.ask(inference, since, within)

    async def _infer_enriched(
        self,
        inference: InferenceRequest,
        enricher: FeatureEnricher,
        batcher: Batcher,
        within: float | None,
    ) -> Response:
        since = monotonic()
        return await batcher.ask(await self._complete(inference, enricher), since, within)

    async def _complete(
        self, inference: InferenceRequest, enricher: FeatureEnricher
    ) -> InferenceRequest:
        try:
            with stage("features"):
                return await enricher.complete(inference)
        except FeatureFault:
            self.metrics.feature_faults()
            raise

    def metadata(self, request: Request) -> Response:
        """Describe the model."""
        self._require_model(request)
        contract, model, features = self._config.contract, self._config.model, self._config.features
        looked_up = self._looked_up()
        inputs: list[dict[str, Any]] = []
        if features is not None:
            key = contract.entity_key
            tensor = {"name": key.name, "datatype": DATATYPES[key.type], "shape": [-1]}
            inputs.append({**tensor, "parameters": {"entity_key": True}})
        for field in contract.inputs:
            parameters = {"looked_up": True} if field.name in looked_up else None
            tensor = _described(field, field.value_shape)
            inputs.append(tensor | ({"parameters": parameters} if parameters else {}))
        return json_response(
            {
                "name": self._config.name,
                "versions": [model.version],
                "platform": f"fourways_{model.format}",
                "inputs": inputs,
                "outputs": [_described(field, field.shape) for field in contract.outputs],
            }
        )

    def _looked_up(self) -> tuple[str, ...]:
        """Return the names of the inputs that the feature database fills in."""
        features = self._config.features
        if features is None:
            return ()
        return features.inputs or tuple(field.name for field in self._config.contract.inputs)

    def openapi(self, request: Request) -> Response:
        """Describe the model's paths and types as an OpenAPI document."""
        from .openapi import document

        self._require_model(request)
        config = self._config
        looked_up = self._looked_up()
        asked: Literal["both", "inputs"] = "both" if looked_up else "inputs"
        about = config.name, config.model.version, config.contract
        return document(*about, asked, looked_up, self._known)

    def model_ready(self, request: Request) -> Response:
        """Return whether the model is ready."""
        self._require_model(request)
        if self._batcher is None:
            answer = {"name": self._config.name, "ready": False, "reason": _LOADING}
            return json_response(answer, 503, _RETRY)
        if stuck := self._stuck():
            answer = {"name": self._config.name, "ready": False, "reason": stuck}
            return json_response(answer, 503, _RETRY)
        return json_response({"name": self._config.name, "ready": True})

    def ready(self, request: Request) -> Response:
        """Return whether the server is ready."""
        if self._draining():
            return json_response({"ready": False, "reason": "draining"}, 503)
        if self._batcher is None:
            return json_response({"ready": False, "reason": _LOADING}, 503, _RETRY)
        if stuck := self._stuck():
            return json_response({"ready": False, "reason": stuck}, 503, _RETRY)
        return READY

    def _faults(self) -> Response:
        stuck = self._stuck()
        hang = worker_fault(Reason.ModelHangs, stuck) if stuck else None
        found = tuple(fault for fault in (hang, *(of() for of in self._faults_of)) if fault)
        report = WorkerFaults(faults=found, drift=self._drift())
        return json_response(report.model_dump(mode="json", by_alias=True))

    def _stuck(self) -> str:
        """Return why the model does not return at present; an empty string if it does.

        While the model loads, only the limit of that stage counts.
        """
        if self._batcher is None and WATCH.overdue() is None:
            return ""
        seconds = WATCH.longest()
        if seconds <= max(STUCK_SECONDS, 2 * self._config.timeout_seconds):
            return ""
        return f"the model has not returned for {seconds:.0f} s"

    def models(self, request: Request) -> Response:
        """List the model."""
        return json_response({"models": [self._config.name]})

    def index(self, request: Request) -> Response:
        """List the model with its version and state."""
        state = ("READY", "") if self._batcher is not None else ("UNAVAILABLE", _LOADING)
        return json_response([listed(self._config.name, self._config.model.version, *state)])

    def _require_model(self, request: Request) -> None:
        """Check that a request is for the only model and its version. Raises HttpError 404."""
        params, config = request.params, self._config
        name, asked = params.get("model", config.name), params.get("version")
        if name != config.name:
            raise HttpError(404, f"no model {name[:63]} here; {config.name} is served")
        if asked is not None and asked != config.model.version:
            text = f"version {asked[:63]} is not served; {config.model.version} is"
            raise HttpError(404, text)


def _live(request: Request) -> Response:
    # The process then ends by itself; if it cannot, the kubelet ends it.
    if WATCH.overdue() is not None:
        return json_response({"live": False, "reason": "the model hangs"}, 503)
    return LIVE


def _described(field: InputField | OutputField, shape: tuple[int, ...]) -> dict[str, Any]:
    """Describe a field as a tensor; -1 stands for the number of rows."""
    return {"name": field.name, "datatype": DATATYPES[field.type], "shape": [-1, *shape]}
