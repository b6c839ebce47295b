"""OpenAI's paths, for deployments that a runtime of KServe serves.

Owns the choice of the deployment, which these requests name in their body (``model``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fourways_http import HttpError, Request, Response, Router, json_response
from fourways_runtime.callers.guard import CallerGuard
from fourways_runtime.v2.body import is_heavy
from fourways_runtime.v2.off_loop import off_loop

from .mode import Mode
from .serving_runtime import ServingRuntimeHandler

PATHS = ("chat/completions", "completions", "embeddings", "rerank", "responses")
_ROOT = "/openai/v1"


class OpenAiPaths:
    """The paths under ``/openai/v1`` of one gateway."""

    def __init__(self, modes: Mapping[str, Mode], guard: CallerGuard | None) -> None:
        """``guard`` decides which deployments a caller may ask, once the body is read."""
        self._guard = guard
        self._handlers = {
            name: mode for name, mode in modes.items() if isinstance(mode, ServingRuntimeHandler)
        }

    def add_to(self, router: Router) -> None:
        """Add the paths."""
        router.add("GET", f"{_ROOT}/models", self._models)
        for path in PATHS:
            router.add("POST", f"{_ROOT}/{path}", self._ask)

    def _models(self, request: Request) -> Response:
        listed = [
            {"id": name, "object": "model", "created": 0, "owned_by": "fourways"}
            for name in sorted(self._handlers)
            if request.sees(name)
        ]
        return json_response({"object": "list", "data": listed})

    async def _ask(self, request: Request) -> Response:
        body: Any = await off_loop(request.json) if is_heavy(request) else request.json()
        name = body.get("model") if isinstance(body, dict) else None
        if not isinstance(name, str):
            raise HttpError(400, "model: must be the name of a deployment: see /openai/v1/models")
        if self._guard is not None:
            self._guard.hold("predict", name, request)
        handler = self._handlers.get(name)
        if handler is None:
            raise HttpError(
                404,
                f"{name[:63]} is not a deployment with realtime.runtime: see /openai/v1/models",
            )
        return await handler.openai(request, request.target.decode("latin-1"), body)
