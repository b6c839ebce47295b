"""Files over HTTP(S): redirects within one origin, ranges with a strong tag, nothing decompressed.

It uses httpcore, the transport of httpx, and not httpx itself: the features that httpx adds
(proxies and netrc from the environment, cookies, redirects, decoding) are those that a fetcher of
untrusted URLs must avoid.
"""

from __future__ import annotations

import base64
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from urllib.parse import urlsplit

import httpcore
import httpx

from fourways_api.runtime_config import FetchPolicy
from fourways_runtime.errors import FetchFailed, FetchRefused, SourceError

from .credentials import Credentials
from .location import Location, check_host
from .network import GuardedBackend
from .source import Body, Deadline, Interrupted

MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PASSING = frozenset({408, 425, 429})
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class RedirectedAway(FetchRefused):
    """A redirect to another origin, which was not followed."""

    def __init__(self, message: str, target: httpx.URL) -> None:
        super().__init__(message)
        self.target = target


@cache
def _tls() -> ssl.SSLContext:
    # From the environment, this reads only SSL_CERT_FILE and SSL_CERT_DIR.
    return httpx.create_ssl_context()


def authorization(credentials: Credentials, url: str) -> dict[str, str]:
    """Return the authorization header: ``token``, or ``username`` and ``password``.

    Raises:
        SecretRefused: the Secret does not list the host of ``url``, which gets the header.

    """
    _check_listed(credentials, url)
    credentials.require_any("token", "username", "password")
    if token := credentials.get("token"):
        return {"Authorization": f"Bearer {token}"}
    if pair := credentials.pair("username", "password"):
        encoded = base64.b64encode(":".join(pair).encode()).decode()
        return {"Authorization": f"Basic {encoded}"}
    return {}


def _check_listed(credentials: Credentials, url: str) -> None:
    parts = urlsplit(url)
    default = 80 if parts.scheme == "http" else 443
    credentials.check_host(parts.hostname or "", parts.port or default)


@contextmanager
def get(
    location: Location, headers: dict[str, str], policy: FetchPolicy, deadline: Deadline
) -> Iterator[httpcore.Response]:
    """GET a URL, following redirects within its origin. The body is not read yet.

    Raises RedirectedAway for a redirect elsewhere, FetchRefused for a forbidden host or address,
    Interrupted if the connection breaks, FetchFailed when the time is up.
    """
    url = _url(location.uri)
    origin = (url.scheme, url.host, url.port)
    check_host(location.authority, policy)
    wanted = {"Accept-Encoding": "identity", "User-Agent": "fourways", "Accept": "*/*"} | headers
    sent = [(name.encode(), value.encode("latin-1")) for name, value in wanted.items()]
    with _translated(location), _pool(url, deadline) as pool:
        for _ in range(MAX_REDIRECTS + 1):
            with pool.stream("GET", _raw(url), headers=sent) as response:
                if response.status not in _REDIRECTS:
                    yield response
                    return
                url = _target(url, response, location)
            if (url.scheme, url.host, url.port) != origin:
                raise RedirectedAway(
                    f"{location.shown}: redirects to another host are not followed", url
                )
    raise FetchRefused(f"{location.shown}: redirects more than {MAX_REDIRECTS} times")


def _pool(url: httpx.URL, deadline: Deadline) -> httpcore.ConnectionPool:
    tls = _tls() if url.scheme == "https" else None
    return httpcore.ConnectionPool(
        ssl_context=tls, network_backend=GuardedBackend(deadline), max_connections=1
    )


def _url(text: str) -> httpx.URL:
    try:
        return httpx.URL(text).copy_with(fragment=None)
    except (httpx.InvalidURL, ValueError):
        raise FetchRefused("the URI is not a valid URL") from None


def _raw(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(
        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
    )


def _target(url: httpx.URL, response: httpcore.Response, location: Location) -> httpx.URL:
    to = header(response, "location")
    if to is None:
        raise Interrupted(f"{location.shown}: a redirect without a target")
    try:
        return url.join(to).copy_with(fragment=None)
    except (httpx.InvalidURL, ValueError):
        raise FetchRefused(f"{location.shown}: a redirect to an invalid URL") from None


def header(response: httpcore.Response, name: str) -> str | None:
    """Return a response header by its lower-case name."""
    for key, value in response.headers:
        if key.lower() == name.encode():
            return bytes(value).decode("latin-1")
    return None


@contextmanager
def _translated(location: Location) -> Iterator[None]:
    try:
        yield
    except httpcore.TimeoutException:
        raise Interrupted(f"{location.shown}: no response in time") from None
    except httpcore.UnsupportedProtocol:
        raise FetchRefused(f"{location.shown}: is not a valid URL") from None
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        # Errors of connections have our text or the transport's; protocol errors have the peer's.
        said = str(error) if isinstance(error, httpcore.ConnectError) else "the connection was lost"
        raise Interrupted(f"{location.shown}: {said}") from None


def check_status(response: httpcore.Response, location: Location, secret: str = "") -> None:
    """Accept 200 and 206; distinguish transient errors from permanent ones.

    ``secret`` is the name of the Secret whose credentials were sent. A refused login may be that of
    a Secret that was rotated and is read again by a retry.
    """
    status = response.status
    if status in (200, 206):
        return
    if status >= 500 or status in _PASSING:
        raise Interrupted(f"{location.shown}: the server answered {status}")
    if status == 401 and secret:
        raise FetchFailed(f"{location.shown}: the server refuses the login in the Secret {secret}")
    hints = {401: "; give credentials", 403: "; check the credentials", 404: "; check the path"}
    raise SourceError(f"{location.shown}: the server answered {status}{hints.get(status, '')}")


def content_range(response: httpcore.Response) -> tuple[int, int | None] | None:
    """Return the start of a 206 and the whole file's size (None: unknown); None if unreadable."""
    found = _CONTENT_RANGE.fullmatch(header(response, "content-range") or "")
    if found is None:
        return None
    return int(found[1]), None if found[3] == "*" else int(found[3])


def strong_tag(response: httpcore.Response) -> str | None:
    """Return the ETag if it is a strong one."""
    tag = header(response, "etag")
    return tag if tag and tag.startswith('"') and len(tag) <= 1024 else None


def body_of(response: httpcore.Response, location: Location, offset: int, secret: str = "") -> Body:
    """Return the body of a response: the file from ``offset`` on for a 206, else the whole file.

    Raises the errors of :func:`check_status`, FetchRefused for a compressed body and SourceError
    for a range that was not requested.
    """
    check_status(response, location, secret)
    if (header(response, "content-encoding") or "identity").lower() != "identity":
        raise FetchRefused(
            f"{location.shown}: the server compressed the response although it was asked not to"
        )
    start = 0
    if response.status == 206:
        found = content_range(response)
        if found is None or found[0] != offset:
            raise SourceError(f"{location.shown}: the server sent a range that was not requested")
        start, total = found
    else:
        length = header(response, "content-length")
        total = int(length) if length is not None and length.isdecimal() else None
    return Body(start, total, strong_tag(response), response.iter_stream())


class HttpSource:
    """A file at an http or https URL."""

    def __init__(self, location: Location, credentials: Credentials, policy: FetchPolicy) -> None:
        self._location = location
        self._policy = policy
        self._headers = authorization(credentials, location.uri)
        self._secret = credentials.secret_name

    @contextmanager
    def open(self, offset: int, validator: str | None, deadline: Deadline) -> Iterator[Body]:
        """Open the file, at ``offset`` if the server still has the version of ``validator``."""
        headers = dict(self._headers)
        resuming = offset > 0 and validator is not None
        if resuming and validator is not None:
            headers |= {"Range": f"bytes={offset}-", "If-Range": validator}
        with get(self._location, headers, self._policy, deadline) as response:
            if resuming and not self._continues(response, offset, validator):
                with self.open(0, None, deadline) as whole:
                    yield whole
                return
            yield body_of(response, self._location, offset, self._secret)

    def _continues(self, response: httpcore.Response, offset: int, validator: str | None) -> bool:
        """Tell whether a response is usable: the rest of the same version, or all of another."""
        if response.status == 416:
            return False
        if response.status != 206:
            return True
        found = content_range(response)
        return found is not None and found[0] == offset and strong_tag(response) == validator
