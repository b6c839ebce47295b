"""Refuses requests that a web page sends to a server on this machine.

A server on loopback is reached by every program here, and so by every page that a browser shows. A
page cannot choose the ``Host`` that its browser sends, nor hide its ``Origin``: a name that a
stranger's DNS points at 127.0.0.1 (DNS rebinding) and a form or script of another site are
recognised by these two. An image, a script or a frame is asked for without an ``Origin``; the page
cannot read it, but sees whether it loads, and so which deployments and keys there are. Browsers say
in ``Sec-Fetch-Site`` whose page asks.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from urllib.parse import urlsplit

from .message import Answer, Handler, HttpError, Request

_MAX_KNOWN = 256
_OTHERS = "requests of other sites' pages are refused here"


def is_loopback(host: str) -> bool:
    """Return whether an address to listen on is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class LoopbackOnly:
    """A handler that lets only requests of this machine's own programs through.

    ``welcome`` says which requests of pages are let through nevertheless.
    """

    def __init__(
        self, app: Handler, welcome: Callable[[Request], object] = lambda request: None
    ) -> None:
        self._app = app
        self._welcome = welcome
        self._known: dict[bytes, bool] = {}

    def __call__(self, request: Request) -> Answer:
        """Answer the request. Raises HttpError 403 for a foreign Host, Origin or page."""
        memo = request.memo
        if memo is None or not memo.admitted:
            self._check(request)
            if memo is not None:
                memo.admitted = True
        return self._app(request)

    def _check(self, request: Request) -> None:
        foreign = own = False
        for name, value in request.headers:
            size = len(name)
            if size == 4 and name.lower() == b"host":
                if not self._is_own(value, b"//" + value):
                    raise HttpError(
                        403, "on this address only localhost and loopback addresses are valid hosts"
                    )
            elif size == 6 and name.lower() == b"origin":
                if not self._is_own(value, value) and not self._welcome(request):
                    raise HttpError(403, _OTHERS)
                own = True
            elif size == 14 and name.lower() == b"sec-fetch-site":
                foreign = value == b"cross-site"
        # To a browser, localhost and 127.0.0.1 are two sites: an Origin of this machine decides.
        if foreign and not own:
            raise HttpError(403, _OTHERS)

    def _is_own(self, text: bytes, url: bytes) -> bool:
        known = self._known.get(text)
        if known is None:
            known = _names_this_machine(url)
            if len(text) <= 256 and len(self._known) < _MAX_KNOWN:
                self._known[text] = known
        return known


def _names_this_machine(url: bytes) -> bool:
    try:
        parts = urlsplit(url.decode("ascii"))
        parts.port  # noqa: B018  (raises ValueError if it is not a port)
        host = parts.hostname
    except ValueError:
        return False
    return host is not None and is_loopback(host)
