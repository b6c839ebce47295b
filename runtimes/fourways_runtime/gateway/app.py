"""The gateway's paths and what each answers.

Owns the mapping from HTTP to questions and from the store's rows to answers. It keeps no state that
an answer depends on: which run is published, and what its contract is, the store says each time.
What was seen last only serves to read the next request.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version
from time import monotonic
from typing import Any

from prometheus_client import CollectorRegistry, Gauge

from fourways_api import GatewayConfig

from ..errors import StoreUnavailable
from ..http import HttpError, Request, Response, Router, json_response
from ..metrics import exposition
from ..store.base import Key, Lookup, PublishedRun
from . import v2
from .link import StoreLink
from .lookups import RETRY, Lookups
from .views import View, Views

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

_MAX_MISSING_NAMED = 100
_LISTING_SECONDS = 1.0
_UNKNOWN_SECONDS = 1.0
_SCRAPE_WAITS_SECONDS = 0.2
_MAX_UNKNOWN = 1024


class Gateway:
    """Answers for every deployment of one namespace."""

    def __init__(
        self,
        config: GatewayConfig,
        link: StoreLink,
        registry: CollectorRegistry,
        draining: Callable[[], bool],
    ) -> None:
        self._config = config
        self._link = link
        self._registry = registry
        self._draining = draining
        self._lookups = Lookups(link, config.namespace)
        self._views = Views(registry)
        Gauge(
            "fourways_requests_waiting",
            "Requests whose lookup in the store has not begun.",
            registry=registry,
        ).set_function(lambda: float(self._lookups.waiting))
        self._unknown: dict[str, float] = {}
        self._listed_at = float("-inf")
        self._listing: asyncio.Task[list[tuple[str, PublishedRun]]] | None = None

    def router(self) -> Router:
        """Return the routes."""
        router = Router()
        router.add("GET", "/", self._index)
        router.add("GET", "/metrics", self._metrics)
        router.add("GET", "/predictions/{deployment}/{key}", self._prediction)
        router.add("GET", "/v2", self._server)
        router.add("GET", "/v2/health/live", self._live)
        router.add("GET", "/v2/health/ready", self._ready)
        for model in ("/v2/models/{deployment}", "/v2/models/{deployment}/versions/{version}"):
            router.add("GET", model, self._model)
            router.add("GET", f"{model}/ready", self._model_ready)
            router.add("POST", f"{model}/infer", self._infer)
        return router

    async def close(self) -> None:
        """Give up what is under way."""
        await self._lookups.close()

    # ---- predictions

    def _infer(self, request: Request) -> Awaitable[Response]:
        deployment = _deployment(request)
        view = self._views.get(deployment)
        if view is None:
            return self._infer_first(request, deployment)
        return self._infer_known(request, deployment, view)

    async def _infer_first(self, request: Request, deployment: str) -> Response:
        view = await self._describe(deployment)
        return await self._infer_known(request, deployment, view)

    def _infer_known(
        self, request: Request, deployment: str, view: View
    ) -> asyncio.Future[Response]:
        entity_key = view.run.contract.entity_key
        question = v2.read_question(request, entity_key, self._config.max_keys)

        def then(lookup: Lookup | None) -> Response:
            now = self._published(deployment, lookup)
            if now.run.contract.entity_key != entity_key:
                raise HttpError(503, "the deployment was replaced just now: try again", RETRY)
            _hold_version(request, now)
            rows = lookup.rows if lookup is not None else {}
            return _infer_answer(deployment, now, question, rows)

        return self._lookups.ask(deployment, question.keys, then)

    def _prediction(self, request: Request) -> Awaitable[Response]:
        deployment = _deployment(request)
        view = self._views.get(deployment)
        if view is None:
            return self._prediction_first(request, deployment)
        return self._prediction_known(request, deployment, view)

    async def _prediction_first(self, request: Request, deployment: str) -> Response:
        view = await self._describe(deployment)
        return await self._prediction_known(request, deployment, view)

    def _prediction_known(
        self, request: Request, deployment: str, view: View
    ) -> asyncio.Future[Response]:
        key = v2.read_key(request.params["key"], view.run.contract.entity_key)

        def then(lookup: Lookup | None) -> Response:
            now = self._published(deployment, lookup)
            now.counters.keys.inc()
            outputs = lookup.rows.get(key) if lookup is not None else None
            if outputs is None:
                now.counters.misses.inc()
                raise HttpError(404, "no prediction for that key", **_who(deployment, key, now))
            ordered = {tensor.name: outputs[tensor.name] for tensor in now.tensors}
            return json_response({**_who(deployment, key, now), "outputs": ordered})

        return self._lookups.ask(deployment, [key], then)

    def _published(self, deployment: str, lookup: Lookup | None) -> View:
        """Return the view of what is published now. Raises HttpError 404 where nothing is."""
        if lookup is not None:
            return self._views.see(deployment, lookup.run)
        self._views.forget(deployment)
        if len(self._unknown) >= _MAX_UNKNOWN:
            self._unknown.clear()
        self._unknown[deployment] = monotonic() + _UNKNOWN_SECONDS
        raise _no_such(deployment)

    async def _describe(self, deployment: str) -> View:
        """Ask the store what is published. Raises HttpError 404 or 503."""
        if self._unknown.get(deployment, 0.0) > monotonic():
            raise _no_such(deployment)
        self._unknown.pop(deployment, None)
        views: list[View] = []

        def then(lookup: Lookup | None) -> Response:
            views.append(self._published(deployment, lookup))
            return _NOTHING

        await self._lookups.ask(deployment, [], then)
        return views[0]

    # ---- about deployments

    async def _model(self, request: Request) -> Response:
        view = await self._of_version(request)
        name = request.params["deployment"]
        return json_response(v2.metadata(name, view.run.version, view.run.contract))

    async def _model_ready(self, request: Request) -> Response:
        await self._of_version(request)
        return json_response({"name": request.params["deployment"], "ready": True})

    async def _of_version(self, request: Request) -> View:
        view = await self._describe(_deployment(request))
        _hold_version(request, view)
        return view

    async def _index(self, request: Request) -> Response:
        try:
            listing = await self._deployments()
        except StoreUnavailable:
            raise HttpError(503, "the prediction store is not available", RETRY) from None
        deployments = []
        for name, run in listing:
            view = self._views.see(name, run)
            deployments.append(
                {
                    "deployment": name,
                    "version": run.version,
                    "rows": run.rows,
                    **view.provenance(),
                    "links": {
                        "model": f"/v2/models/{name}",
                        "infer": f"/v2/models/{name}/infer",
                        "prediction": f"/predictions/{name}/{{{run.contract.entity_key.name}}}",
                    },
                }
            )
        return json_response({"namespace": self._config.namespace, "deployments": deployments})

    async def _deployments(self) -> list[tuple[str, PublishedRun]]:
        """Return what is published, at most a second old; all who ask share one question."""
        if self._listing is None or monotonic() - self._listed_at > _LISTING_SECONDS:
            self._listed_at = monotonic()
            self._listing = asyncio.ensure_future(self._link.deployments(self._config.namespace))
        try:
            listing = await asyncio.shield(self._listing)
        except StoreUnavailable:
            self._listed_at = float("-inf")
            raise
        for gone in set(self._views.names()) - {name for name, _ in listing}:
            self._views.forget(gone)
        return listing

    # ---- about the gateway

    async def _metrics(self, request: Request) -> Response:
        try:
            async with asyncio.timeout(_SCRAPE_WAITS_SECONDS):
                for name, run in await self._deployments():
                    self._views.see(name, run)
        except (StoreUnavailable, TimeoutError):
            pass  # the metrics say so
        return exposition(self._registry)

    def _server(self, request: Request) -> Response:
        return json_response({"name": "fourways", "version": _version(), "extensions": []})

    def _live(self, request: Request) -> Response:
        return _LIVE

    async def _ready(self, request: Request) -> Response:
        if self._draining():
            return json_response({"ready": False, "reason": "draining"}, 503)
        if not await self._link.ready():
            reason = "the prediction store is not available"
            return json_response({"ready": False, "reason": reason}, 503, RETRY)
        return _READY


_NOTHING = Response()
_LIVE = json_response({"live": True})
_READY = json_response({"ready": True})


def _version() -> str:
    try:
        return version("fourways")
    except PackageNotFoundError:
        return "0"


def _deployment(request: Request) -> str:
    name = request.params["deployment"]
    if not _NAME.fullmatch(name):
        raise _no_such(name[:63])
    return name


def _no_such(deployment: str) -> HttpError:
    # The store knows what was published, not what was declared, so it cannot tell the two apart.
    return HttpError(
        404, f"nothing is published for {deployment}: no such deployment, or no run finished yet"
    )


def _hold_version(request: Request, view: View) -> None:
    asked = request.params.get("version")
    if asked is not None and asked != view.run.version:
        raise HttpError(404, f"version {asked[:63]} is not published; {view.run.version} is")


def _who(deployment: str, key: Key, view: View) -> dict[str, Any]:
    return {
        "deployment": deployment,
        "key": key,
        "version": view.run.version,
        **view.provenance(),
    }


def _infer_answer(
    deployment: str, view: View, question: v2.Question, found: dict[Key, dict[str, Any]]
) -> Response:
    tensors = _selected(view, question)
    keys = question.keys
    rows = [found[key] for key in keys if key in found]
    view.counters.keys.inc(len(keys))
    missing = len(keys) - len(rows)
    if missing:
        view.counters.misses.inc(missing)
        if not question.allow_missing:
            named = [key for key in keys if key not in found][:_MAX_MISSING_NAMED]
            text = f"no prediction for {missing} of {len(keys)} keys"
            raise HttpError(404, text, missing=named)
    outputs = [tensor.render(rows) for tensor in tensors]
    if question.allow_missing:
        mask = [key in found for key in keys]
        outputs.append({"name": v2.FOUND, "datatype": "BOOL", "shape": [len(keys)], "data": mask})
    answer: dict[str, Any] = {
        "model_name": deployment,
        "model_version": view.run.version,
        "outputs": outputs,
        "parameters": view.provenance(),
    }
    if question.id is not None:
        answer["id"] = question.id
    return json_response(answer)


def _selected(view: View, question: v2.Question) -> tuple[v2.OutputTensor, ...]:
    """Return the tensors asked for, in the contract's order. Raises HttpError 400."""
    if question.allow_missing and v2.FOUND in view.by_name:
        raise v2.refuse(
            "parameters.allow_missing", f"this deployment has an output named {v2.FOUND}"
        )
    if question.outputs is None:
        return view.tensors
    for index, name in enumerate(question.outputs):
        if name not in view.by_name:
            known = ", ".join(view.by_name)[:256]
            raise v2.refuse(f"outputs[{index}].name", f"is not an output; there are: {known}")
    return tuple(tensor for tensor in view.tensors if tensor.name in question.outputs)
