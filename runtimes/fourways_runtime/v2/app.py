"""The model server's paths and what each answers.

Owns the mapping from HTTP to the model, and what is said while there is none yet. Nothing heavy is
imported here: the server lives before numpy does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from time import monotonic
from typing import TYPE_CHECKING, cast

from prometheus_client import CollectorRegistry

from fourways_api import InputField, OutputField
from fourways_api.runtime_config import ServerConfig
from fourways_http import HttpError, Request, Response, Router, json_response
from fourways_runtime.metrics import exposition

from .observed import ServingMetrics
from .protocol import DATATYPES

if TYPE_CHECKING:
    from .batcher import Batcher
    from .enrichment import FeatureEnricher
    from .request import InferenceRequest
    from .templates import RequestTemplates

_RETRY = (b"retry-after: 1",)
_VERSION = "/versions/{version}"
_LOADING = "the model is loading"


class ModelServer:
    """Answers for one model, once :meth:`use` was called."""

    def __init__(
        self, config: ServerConfig, registry: CollectorRegistry, draining: Callable[[], bool]
    ) -> None:
        self._config = config
        self._registry = registry
        self._draining = draining
        self._reader: RequestTemplates | None = None
        self._batcher: Batcher | None = None
        self._completer: FeatureEnricher | None = None
        self.metrics = ServingMetrics(registry)

    def use(
        self, reader: RequestTemplates, batcher: Batcher, enricher: FeatureEnricher | None = None
    ) -> None:
        """Answer from now on, with these."""
        self._reader, self._batcher, self._completer = reader, batcher, enricher
        self.metrics.ready()

    async def close(self) -> None:
        """Let go of the worker thread and of the feature database."""
        if self._batcher is not None:
            self._batcher.close()
        if self._completer is not None:
            await self._completer.close()

    def router(self) -> Router:
        """Return the routes."""
        router = Router()
        router.add("GET", "/metrics", lambda request: exposition(self._registry))
        router.add("GET", "/v2", self._server)
        router.add("GET", "/v2/health/live", lambda request: _LIVE)
        router.add("GET", "/v2/health/ready", self._ready)
        asked = (
            ("GET", "", self._model),
            ("GET", "/ready", self._model_ready),
            ("POST", "/infer", self._infer),
        )
        # Under its own name, too: a path without a parameter is found at once.
        for name, versions in product(("{model}", self._config.name), ("", _VERSION)):
            for method, what, handler in asked:
                route = router.add(method, f"/v2/models/{name}{versions}{what}", handler)
                route.pattern = f"/v2/models/{{model}}{versions}{what}"
        return router

    def _infer(self, request: Request) -> Awaitable[Response]:
        if request.params:  # without, the path is the model's own
            self._hold(request)
        if self._reader is None or self._batcher is None:
            raise HttpError(503, _LOADING, _RETRY)
        inference = self._reader.take(request)
        if inference.missing and self._completer is not None:
            return _enriched(cast("InferenceRequest", inference), self._completer, self._batcher)
        return self._batcher.ask(inference)

    def _model(self, request: Request) -> Response:
        self._hold(request)
        contract, model = self._config.contract, self._config.model
        return json_response(
            {
                "name": self._config.name,
                "versions": [model.version],
                "platform": f"fourways_{model.format}",
                "inputs": [_described(field) for field in contract.inputs],
                "outputs": [_described(field) for field in contract.outputs],
            }
        )

    def _model_ready(self, request: Request) -> Response:
        self._hold(request)
        if self._batcher is None:
            answer = {"name": self._config.name, "ready": False, "reason": _LOADING}
            return json_response(answer, 503, _RETRY)
        return json_response({"name": self._config.name, "ready": True})

    def _ready(self, request: Request) -> Response:
        if self._draining():
            return json_response({"ready": False, "reason": "draining"}, 503)
        if self._batcher is None:
            return json_response({"ready": False, "reason": _LOADING}, 503, _RETRY)
        return _READY

    def _server(self, request: Request) -> Response:
        return json_response(
            {"name": "fourways", "version": _version(), "extensions": ["binary_tensor_data"]}
        )

    def _hold(self, request: Request) -> None:
        """Hold a request to the one model there is. Raises HttpError 404."""
        params, config = request.params, self._config
        name, asked = params.get("model", config.name), params.get("version")
        if name != config.name:
            raise HttpError(404, f"no model {name[:63]} here; {config.name} is served")
        if asked is not None and asked != config.model.version:
            text = f"version {asked[:63]} is not served; {config.model.version} is"
            raise HttpError(404, text)


async def _enriched(
    inference: InferenceRequest, enricher: FeatureEnricher, batcher: Batcher
) -> Response:
    since = monotonic()
    return await batcher.ask(await enricher.complete(inference), since)


_LIVE = json_response({"live": True})
_READY = json_response({"ready": True})


def _described(field: InputField | OutputField) -> dict[str, object]:
    """Describe a field as a tensor; -1 is the number of rows."""
    return {"name": field.name, "datatype": DATATYPES[field.type], "shape": [-1, *field.shape]}


def _version() -> str:
    try:
        return version("fourways")
    except PackageNotFoundError:
        return "0"
