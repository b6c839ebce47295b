"""The protocol's paths, and the interfaces of the servers behind them.

Owns the meaning of each path. These interfaces are implemented by the model server (also that of
the device agent), by the gateway, and by each of the gateway's modes for its own deployments. HTTP
requests reach them only through :func:`add_routes`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from typing import Any, Protocol

from fourways_http import Request, Response, Router, json_response
from fourways_http.message import Answer, Handler

from . import v1
from .body import MAX_BODY_BYTES

LIVE = json_response({"live": True})
READY = json_response({"ready": True})
_VERSION = "/versions/{version}"


class ModelPlane(Protocol):
    """Handles requests about models. Every error it raises is an HttpError."""

    def infer(self, request: Request) -> Answer:
        """Answer an inference request."""
        ...

    def metadata(self, request: Request) -> Answer:
        """Describe the model: its inputs, outputs and entity key."""
        ...

    def openapi(self, request: Request) -> Answer:
        """Describe the deployment's paths and types as an OpenAPI document."""
        ...

    def model_ready(self, request: Request) -> Answer:
        """Return whether the model is ready."""
        ...


class DataPlane(ModelPlane, Protocol):
    """Handles all requests to a server."""

    @property
    def extensions(self) -> Sequence[str]:
        """The protocol's extensions that every model here supports."""
        ...

    def ready(self, request: Request) -> Answer:
        """Return whether the server is ready."""
        ...

    def models(self, request: Request) -> Answer:
        """List the models."""
        ...

    def index(self, request: Request) -> Answer:
        """List the models with their versions and states."""
        ...


def add_routes(
    router: Router,
    plane: DataPlane,
    parameter: str,
    *names: str,
    live: Callable[[Request], Response] = lambda request: LIVE,
    predict: Handler | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
) -> None:
    """Add the paths of both versions of the protocol.

    ``parameter`` is the path parameter for the model's name. The models in ``names`` also get paths
    without a parameter, which are faster to match.
    ``live`` answers the liveness probe, and ``predict`` requests of version 1; without it, they are
    converted to those of version 2, if their body has at most ``max_body_bytes``.
    """
    router.add("GET", "/v2", lambda request: server_metadata(plane.extensions))
    router.add("GET", "/v2/health/live", live)
    router.add("GET", "/v2/health/ready", plane.ready)
    router.add("GET", "/v2/models", plane.models)
    router.add("POST", "/v2/repository/index", plane.index)
    asked = (
        ("GET", "", plane.metadata),
        ("GET", "/ready", plane.model_ready),
        ("GET", "/openapi.json", plane.openapi),
        ("POST", "/infer", plane.infer),
    )
    router.add("GET", "/v1/models", plane.models)
    router.add("GET", f"/v1/models/{{{parameter}}}", plane.model_ready)
    router.add(
        "POST",
        f"/v1/models/{{{parameter}}}:predict",
        predict
        or (lambda request: v1.predict(plane.metadata, plane.infer, request, max_body_bytes)),
    )
    for name, versions in product((f"{{{parameter}}}", *names), ("", _VERSION)):
        for method, what, handler in asked:
            route = router.add(method, f"/v2/models/{name}{versions}{what}", handler)
            route.pattern = f"/v2/models/{{{parameter}}}{versions}{what}"


def server_metadata(extensions: Sequence[str]) -> Response:
    """Describe the server."""
    metadata = {"name": "fourways", "version": _version(), "extensions": list(extensions)}
    return json_response(metadata)


def listed(name: str, version: str, state: str = "READY", reason: str = "") -> dict[str, Any]:
    """Describe a model in the list of models, as the model repository extension does."""
    return {"name": name, "version": version, "state": state, "reason": reason}


def _version() -> str:
    try:
        return version("fourways")
    except PackageNotFoundError:
        return "0"
