"""Finds the handler of a request: exact paths, and paths with named segments.

Percent-encoding is decoded once, segment by segment, after the path is split: an encoded slash is
part of a name and never a separator, and a decoded name is never decoded again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

import httptools

from .message import Answer, Handler, HttpError, HttpRoute, Request

_MAX_KNOWN = 1024
_MAX_KNOWN_BYTES = 256


class _Node:
    __slots__ = ("actions", "children", "param", "route")

    def __init__(self) -> None:
        self.children: dict[bytes, _Node] = {}
        self.param: _Node | None = None
        self.actions: dict[bytes, _Node] = {}
        """Parameters followed by a colon and a word, as in ``{model}:predict``, by that word."""

        self.route: HttpRoute | None = None


class Router:
    """Routes such as ``/v2/models/{deployment}/infer``. A route with GET also serves HEAD."""

    def __init__(self) -> None:
        self.routes: list[HttpRoute] = []
        self._exact: dict[bytes, HttpRoute] = {}
        # A cache of recent targets: most clients request the same few again and again.
        self._known: dict[bytes, tuple[HttpRoute, Mapping[str, str]]] = {}
        self._root = _Node()

    def add(self, method: str, pattern: str, handler: Handler) -> HttpRoute:
        """Route ``method`` on ``pattern`` to ``handler``; return the pattern's route."""
        route = self._route(pattern)
        route.handlers[method.encode("ascii")] = handler
        if method == "GET":
            route.handlers[b"HEAD"] = handler
        return route

    def _route(self, pattern: str) -> HttpRoute:
        node = self._root
        for part in pattern.encode("ascii").split(b"/")[1:]:
            if part.startswith(b"{") and b"}:" in part:
                node = node.actions.setdefault(part.partition(b"}:")[2], _Node())
            elif part.startswith(b"{"):
                node.param = node.param or _Node()
                node = node.param
            else:
                node = node.children.setdefault(part, _Node())
        if node.route is None:
            node.route = HttpRoute(pattern)
            self.routes.append(node.route)
            if not node.route.names:
                self._exact[pattern.encode("ascii")] = node.route
        return node.route

    def __call__(self, request: Request) -> Answer:
        """Answer a request. Raises HttpError 400, 404 or 405 if there is no handler."""
        route = self._exact.get(request.target) or self._find(request)
        request.route = route
        handler = route.handlers.get(request.method)
        if handler is None:
            allow = b"allow: " + b", ".join(sorted(route.handlers))
            raise HttpError(405, "this path does not support that method", (allow,))
        return handler(request)

    def _find(self, request: Request) -> HttpRoute:
        path = request.target
        known = self._known.get(path)
        if known is not None:
            route, request.params = known
            return route
        if not path.startswith(b"/") or b"?" in path or b"#" in path:
            path = _split_url(request)
        route = self._walk(request, path)
        if path is request.target and len(path) <= _MAX_KNOWN_BYTES:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[path] = route, request.params
        return route

    def _walk(self, request: Request, path: bytes) -> HttpRoute:
        node = self._root
        values: list[bytes] = []
        for part in path.split(b"/")[1:]:
            below = node.children.get(part)
            if below is None and node.actions and b":" in part:
                named, _, action = part.rpartition(b":")
                below = node.actions.get(action)
                if below is not None:
                    values.append(named)
            if below is None:
                below = node.param
                if below is None:
                    raise _no_such_path()
                values.append(part)
            node = below
        route = node.route
        if route is None:
            raise _no_such_path()
        if values:
            request.params = {
                name: _decode(value) for name, value in zip(route.names, values, strict=True)
            }
        return route


def _no_such_path() -> HttpError:
    return HttpError(404, "no such path")


def _split_url(request: Request) -> bytes:
    try:
        # The type stub says that there is always a path; "http:" has none.
        url: Any = httptools.parse_url(request.target)
    except httptools.HttpParserInvalidURLError:
        raise HttpError(400, "the request target is not a URL") from None
    request.query_string = url.query
    return url.path or b"/"


def _decode(segment: bytes) -> str:
    try:
        text = (unquote_to_bytes(segment) if b"%" in segment else segment).decode("utf-8")
    except UnicodeDecodeError:
        raise HttpError(400, "the path is not UTF-8") from None
    if not text:
        raise _no_such_path()
    return text
