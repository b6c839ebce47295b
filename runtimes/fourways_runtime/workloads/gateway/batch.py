"""Batch deployments: predictions from the runs published in the store.

No response depends on state kept here: each lookup returns the published run and its contract. The
run seen last is only used to read the next request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from time import monotonic
from typing import Any

from prometheus_client import CollectorRegistry

from fourways_api import GatewayConfig
from fourways_http import HttpError, Request, Response, json_response
from fourways_runtime.errors import StoreUnavailable
from fourways_runtime.io.store.base import Lookup, PublishedRun
from fourways_runtime.scoring.columns import Key
from fourways_runtime.v2.body import is_heavy
from fourways_runtime.v2.off_loop import off_loop
from fourways_runtime.v2.openapi import document
from fourways_runtime.v2.protocol import read_key
from fourways_runtime.v2.request import InferenceRequest, RequestReader

from . import v2
from .circuit_breaker import StoreCircuitBreaker
from .coalescer import LookupCoalescer
from .mode import RETRY, deployment_of, links, no_such
from .views import PublishedView, PublishedViews

_LISTING_SECONDS = 1.0
UNKNOWN_SECONDS = 1.0
_MAX_UNKNOWN = 1024


class BatchHandler:
    """Handles requests for every deployment that has no route."""

    def __init__(
        self, config: GatewayConfig, link: StoreCircuitBreaker, registry: CollectorRegistry
    ) -> None:
        self._config = config
        self._link = link
        # A run has no events, and so no positions.
        self.lookups = LookupCoalescer[Lookup | None](
            lambda who, name, keys, _, seconds: link.lookup(who, name, keys, seconds),
            link.timeout,
            config.namespace,
        )
        self._views = PublishedViews(
            registry,
            lambda contract: RequestReader(
                contract,
                [],
                config.max_keys,
                keyed="only",
                max_body_bytes=config.max_body_bytes,
            ),
        )
        self._unknown: dict[str, float] = {}
        self._listed_at = float("-inf")
        self._listing: asyncio.Task[list[tuple[str, PublishedRun]]] | None = None

    async def close(self) -> None:
        """Cancel everything in progress."""
        await self.lookups.close()

    def knows(self, deployment: str) -> bool:
        """Return whether this deployment had a published run when it was last looked up."""
        return self._views.get(deployment) is not None

    def age_seconds(self, deployment: str) -> float | None:
        """Return the age of the predictions that were last looked up, if there are any."""
        view = self._views.get(deployment)
        return view.age_seconds() if view is not None else None

    # ---- predictions

    def infer(self, request: Request) -> Awaitable[Response]:
        """Answer an inference request by entity key."""
        deployment = deployment_of(request)
        view = self._views.get(deployment)
        if view is None or is_heavy(request):
            return self._infer_patiently(request, deployment, view)
        inference = view.reader.read(request)

        def then(lookup: Lookup | None) -> Response:
            now = self._replaced_by(request, view, deployment, lookup)
            return _infer_answer(deployment, now, inference, lookup)

        return self.lookups.ask(deployment, inference.keys or [], then)

    async def _infer_patiently(
        self, request: Request, deployment: str, view: PublishedView | None
    ) -> Response:
        """Answer a request that is large, or for a deployment this gateway has not seen yet."""
        known = view or await self._describe(deployment)
        read = known.reader.read
        inference = await off_loop(read, request) if is_heavy(request) else read(request)

        def then(lookup: Lookup | None) -> tuple[PublishedView, Lookup | None]:
            return self._replaced_by(request, known, deployment, lookup), lookup

        now, found = await self.lookups.ask(deployment, inference.keys or [], then)
        if inference.rows * len(now.run.contract.outputs) <= v2.LARGE_ANSWER:
            return _infer_answer(deployment, now, inference, found)
        return await off_loop(_infer_answer, deployment, now, inference, found)

    def _replaced_by(
        self, request: Request, view: PublishedView, deployment: str, lookup: Lookup | None
    ) -> PublishedView:
        """Return what is published now, which must have the key the request was read with.

        Raises HttpError 503 if its key differs, or 404 if nothing or another version is published.
        """
        now = self._published(deployment, lookup)
        if now.run.contract.entity_key != view.run.contract.entity_key:
            raise HttpError(503, "the deployment was replaced just now: try again", RETRY)
        _hold_version(request, now)
        return now

    def prediction(self, request: Request) -> Awaitable[Response]:
        """Answer a request for one key."""
        deployment = deployment_of(request)
        view = self._views.get(deployment)
        if view is None:
            return self._prediction_first(request, deployment)
        return self._prediction_known(request, deployment, view)

    async def _prediction_first(self, request: Request, deployment: str) -> Response:
        view = await self._describe(deployment)
        return await self._prediction_known(request, deployment, view)

    def _prediction_known(
        self, request: Request, deployment: str, view: PublishedView
    ) -> asyncio.Future[Response]:
        key = read_key(request.params["key"], view.run.contract.entity_key)

        def then(lookup: Lookup | None) -> Response:
            now = self._published(deployment, lookup)
            now.counters.keys.inc()
            outputs = lookup.rows.get(key) if lookup is not None else None
            if outputs is None:
                now.counters.misses.inc()
                raise HttpError(404, "no prediction for that key", **_who(deployment, key, now))
            ordered = now.outputs.ordered(outputs)
            return json_response({**_who(deployment, key, now), "outputs": ordered})

        return self.lookups.ask(deployment, [key], then)

    def _published(self, deployment: str, lookup: Lookup | None) -> PublishedView:
        """Return the view of what is published now. Raises HttpError 404 if nothing is."""
        if lookup is not None:
            return self._views.see(deployment, lookup.run)
        self._views.forget(deployment)
        if len(self._unknown) >= _MAX_UNKNOWN:
            self._unknown.clear()
        self._unknown[deployment] = monotonic() + UNKNOWN_SECONDS
        raise no_such(deployment)

    async def _describe(self, deployment: str) -> PublishedView:
        """Look up what is published. Raises HttpError 404 or 503."""
        if self._unknown.get(deployment, 0.0) > monotonic():
            raise no_such(deployment)
        self._unknown.pop(deployment, None)
        return await self.lookups.ask(
            deployment, [], lambda lookup: self._published(deployment, lookup)
        )

    # ---- about deployments

    async def metadata(self, request: Request) -> Response:
        """Describe the published run as a model."""
        run = (await self._of_version(request)).run
        name = request.params["deployment"]
        return json_response(v2.metadata(name, run.version, "fourways_batch", run.contract))

    async def openapi(self, request: Request) -> Response:
        """Describe the deployment's paths and types as an OpenAPI document."""
        run = (await self._of_version(request)).run
        return document(request.params["deployment"], run.version, run.contract, "key")

    async def model_ready(self, request: Request) -> Response:
        """Answer 200 if a run is published."""
        await self._of_version(request)
        return json_response({"name": request.params["deployment"], "ready": True})

    async def _of_version(self, request: Request) -> PublishedView:
        view = await self._describe(deployment_of(request))
        _hold_version(request, view)
        return view

    async def listing(self) -> list[tuple[str, dict[str, Any]]]:
        """Return what is published, for the index. Raises StoreUnavailable."""
        documents = []
        for name, run in await self.deployments():
            view = self._views.see(name, run)
            about = {
                "deployment": name,
                "mode": "batch",
                "version": run.version,
                "rows": run.rows,
                **view.provenance(),
                "links": links(name, run.contract.entity_key.name),
            }
            documents.append((name, about))
        return documents

    async def deployments(self) -> list[tuple[str, PublishedRun]]:
        """Return what is published, at most a second old; concurrent callers share one query."""
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

    async def look(self) -> None:
        """Update the metrics from what is published. Raises StoreUnavailable."""
        for name, run in await self.deployments():
            self._views.see(name, run)


def _hold_version(request: Request, view: PublishedView) -> None:
    asked = request.params.get("version")
    if asked is not None and asked != view.run.version:
        raise HttpError(404, f"version {asked[:63]} is not published; {view.run.version} is")


def _who(deployment: str, key: Key, view: PublishedView) -> dict[str, Any]:
    return {
        "deployment": deployment,
        "key": key,
        "version": view.run.version,
        **view.provenance(),
    }


def _infer_answer(
    deployment: str, view: PublishedView, inference: InferenceRequest, lookup: Lookup | None
) -> Response:
    outputs = view.outputs.selected(inference)
    found = lookup.rows if lookup is not None else {}
    keys = inference.keys or []
    view.counters.keys.inc(len(keys))
    missing = sum(key not in found for key in keys)
    if missing:
        view.counters.misses.inc(missing)
        if not inference.allow_missing:
            raise v2.no_prediction(inference, found)
    return v2.answer(deployment, view.run.version, outputs, inference, found, view.provenance())
