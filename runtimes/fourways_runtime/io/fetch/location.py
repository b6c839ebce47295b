"""Parsed URIs, and the policy they must satisfy. No I/O here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from glob import escape
from urllib.parse import unquote, urlsplit

from fourways_api.audience import host_is_listed
from fourways_api.runtime_config import MODEL_IMAGE_SCHEME, FetchPolicy
from fourways_runtime.errors import FetchRefused

_MARKS = re.compile(r"[*?\[]")
_ENCODED = re.compile(r"(%[0-9A-Fa-f]{2})+")

LOCAL_SCHEMES = ("file", "pvc", MODEL_IMAGE_SCHEME)
SCHEMES = ("file", "pvc", "http", "https", "s3", "gs", "az", "oci")


@dataclass(frozen=True, slots=True)
class Location:
    """A parsed URI.

    ``authority`` is the host, bucket, container or claim; ``path`` is percent-decoded (once), but
    unchanged for http, https and oci; ``shown`` is safe for messages: it has neither credentials
    nor a query, which may contain a signature.
    """

    uri: str
    scheme: str
    authority: str
    path: str
    shown: str
    pattern: str | None = None
    """The whole path within a filesystem as a glob, if it is one; a glob character that was
    percent-encoded (``%5B`` for ``[``) stands for itself."""

    @classmethod
    def parse(cls, uri: str) -> Location:
        """Parse a URI. Raises FetchRefused for an invalid one."""
        scheme, separator, rest = uri.partition("://")
        scheme = scheme.lower()
        if not separator or scheme not in (*SCHEMES, MODEL_IMAGE_SCHEME):
            raise FetchRefused(
                f"{scheme[:16]!r} is not a supported scheme; use one of {', '.join(SCHEMES)}"
            )
        if any(ord(character) < 0x21 or character == "\x7f" for character in uri):
            raise FetchRefused("the URI holds a space or a control character; percent-encode it")
        if scheme in ("http", "https", "oci"):
            return cls._of_host(uri, scheme)
        authority, _, written = rest.partition("/")
        path = unquote(written)
        if "\0" in path:
            raise FetchRefused("the path holds a NUL")
        if scheme not in LOCAL_SCHEMES and "@" in authority:
            raise FetchRefused(f"the {scheme} URI holds credentials; put them into a Secret")
        pattern = None
        if _MARKS.search(written):
            pattern = _ENCODED.sub(lambda found: escape(unquote(found[0])), written)
            pattern = pattern if scheme in LOCAL_SCHEMES else f"{authority}/{pattern}"
        shown = f"{scheme}://{authority}/{path.partition('?')[0]}"
        return cls(uri, scheme, authority, path, shown, pattern)

    @classmethod
    def _of_host(cls, uri: str, scheme: str) -> Location:
        try:
            parts = urlsplit(uri)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise FetchRefused(f"the {scheme} URI has no readable host and port") from None
        if not host:
            raise FetchRefused(f"the {scheme} URI names no host")
        if parts.username is not None or parts.password is not None:
            raise FetchRefused("the URI holds credentials; put them into a Secret")
        bracketed = f"[{host}]" if ":" in host else host
        address = bracketed if port is None else f"{bracketed}:{port}"
        shown = f"{scheme}://{address}{parts.path}"
        return cls(uri, scheme, host, parts.path, shown)


def check_scheme(location: Location, policy: FetchPolicy) -> None:
    """Reject a scheme that the policy does not list."""
    if location.scheme not in policy.schemes:
        raise FetchRefused(
            f"{location.shown}: the policy allows {', '.join(policy.schemes) or 'no scheme'},"
            f" not {location.scheme}"
        )


def check_host(host: str, policy: FetchPolicy) -> None:
    """Reject a host that the policy does not list. ``*.example.com`` means its subdomains only."""
    if "*" in policy.hosts or host_is_listed(host, None, policy.hosts):
        return
    raise FetchRefused(f"the policy does not allow the host {host}")
