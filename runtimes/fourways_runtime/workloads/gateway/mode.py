"""Shared parts of the gateway's modes: names, versions, common responses.

Each mode handles the same requests about a deployment in its own way. The gateway picks the mode
and knows nothing else.
"""

from __future__ import annotations

import re
from typing import Any, Protocol

from fourways_api import Route
from fourways_http import HttpError, Request
from fourways_http.message import Answer
from fourways_runtime.v2.dataplane import ModelPlane

RETRY = (b"retry-after: 1",)

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class Mode(ModelPlane, Protocol):
    """Handles requests for deployments of one mode. Every error it raises is an HttpError."""

    def prediction(self, request: Request) -> Answer:
        """Answer ``/predictions/NAME/KEY``."""
        ...

    def about(self) -> dict[str, Any]:
        """Return a route's entries in the index besides its name, mode and version."""
        ...

    async def close(self) -> None:
        """Cancel everything in progress."""
        ...


def deployment_of(request: Request) -> str:
    """Return the deployment a request is about. Raises HttpError 404 for an invalid name."""
    name = request.params["deployment"]
    if not NAME.fullmatch(name):
        raise no_such(name[:63])
    return name


def no_such(deployment: str) -> HttpError:
    """Return the 404 for an unknown deployment."""
    # The store knows what was published, not what was declared, so it cannot tell the cases apart.
    return HttpError(
        404, f"nothing is published for {deployment}: no such deployment, or no run finished yet"
    )


def hold_version(request: Request, route: Route) -> None:
    """Check that a request's version is the one served. Raises HttpError 404."""
    asked = request.params.get("version")
    if asked is not None and asked != route.version:
        raise HttpError(404, f"version {asked[:63]} is not served; {route.version} is")


def links(name: str, key: str) -> dict[str, str]:
    """Return the paths of a deployment; ``key`` is the entity key's name."""
    return {
        "model": f"/v2/models/{name}",
        "infer": f"/v2/models/{name}/infer",
        "prediction": f"/predictions/{name}/{{{key}}}",
    }
