"""Edge deployments: devices serve predictions; the gateway serves bundles and device features.

Owns the paths that devices use. Requests for predictions are rejected with an explanation.
"""

from __future__ import annotations

from typing import Any, NoReturn

from prometheus_client import CollectorRegistry, Counter

from fourways_api import GatewayConfig, Route
from fourways_http import HttpError, Request, Response, Router, json_response
from fourways_runtime.bundle_layout import INDEX_FILE

from .bundles import Bundles
from .device_features import ExtraData
from .device_reports import DeviceReports
from .fleet import Fleet
from .mode import deployment_of


class EdgeHandlers:
    """The parts that all edge deployments share."""

    def __init__(self, config: GatewayConfig, faults: Counter, registry: CollectorRegistry) -> None:
        self._routes = {r.deployment: r for r in config.routes if r.mode == "edge"}
        self._bundles = Bundles(config)
        self._extra_data = ExtraData(config, faults)
        self._fleet = Fleet(registry)
        self._reports = DeviceReports(config, self._bundles, registry)

    def add_to(self, router: Router) -> None:
        """Add the routes that devices use."""
        router.add("GET", "/bundles/{deployment}", self._listing)
        router.add("GET", "/bundles/{deployment}/", self._listing)
        router.add("GET", "/bundles/{deployment}/{target}/{file}", self._file)
        router.add("GET", "/bundles/{deployment}/{target}/blobs/sha256/{digest}", self._blob)
        router.add("POST", "/bundles/{deployment}/{target}/drift", self._reported)
        router.add("GET", "/features/{deployment}/{key}", self._features)
        router.add("GET", "/deployments/{deployment}/devices", self._devices)

    async def close(self) -> None:
        """Shut down the threads and close the connections."""
        self._bundles.close()
        await self._extra_data.close()

    def _route(self, request: Request) -> Route:
        name = deployment_of(request)
        route = self._routes.get(name)
        if route is None:
            raise HttpError(404, f"{name} is no edge deployment")
        return route

    async def _listing(self, request: Request) -> Response:
        return await self._bundles.listing(self._route(request))

    async def _file(self, request: Request) -> Response:
        params = request.params
        answer = await self._bundles.file(
            self._route(request), params["target"], params["file"], request
        )
        if params["file"] == INDEX_FILE:
            self._fleet.looked(request, answer.body)
        return answer

    async def _blob(self, request: Request) -> Response:
        params = request.params
        answer = await self._bundles.blob(
            self._route(request), params["target"], params["digest"], request
        )
        self._fleet.fetched(request)
        return answer

    def _devices(self, request: Request) -> Response:
        return self._fleet.answer(self._route(request).deployment)

    async def _reported(self, request: Request) -> Response:
        answer = await self._reports.take(self._route(request), request)
        self._fleet.reported(request)
        return answer

    async def drift(self, deployment: str) -> Response | None:
        """Tell how records of devices differ from the training; None if they are not compared."""
        if not self._reports.compares(deployment):
            return None
        found = await self._reports.finding(deployment)
        drift = found.status.to_json() if found.status else None
        return json_response({"deployment": deployment, "devices": found.devices, "drift": drift})

    async def look(self) -> None:
        """Bring the metrics of devices up to date."""
        await self._reports.look()

    async def _features(self, request: Request) -> Response:
        return await self._extra_data.answer(self._route(request), request)


class DeviceHandler:
    """Refers clients of one deployment to its devices, which serve the predictions."""

    def __init__(self, route: Route) -> None:
        self._route = route

    def about(self) -> dict[str, Any]:
        """Return the links."""
        name, key = self._route.deployment, self._route.entity_key
        links = {"bundles": f"/bundles/{name}/"}
        if self._route.features is not None and key is not None:
            links["features"] = f"/features/{name}/{{{key.name}}}"
        return {"links": links}

    async def close(self) -> None:
        """Do nothing: an edge deployment has no work in progress."""

    def infer(self, request: Request) -> NoReturn:
        """Reject the request with an explanation."""
        name = self._route.deployment
        raise HttpError(
            404, f"{name} is served by its devices; bundles for them are at /bundles/{name}/"
        )

    prediction = metadata = openapi = model_ready = infer
