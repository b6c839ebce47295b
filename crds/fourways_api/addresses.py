"""Addresses in a manifest: URIs of files, tables and folders, and lists of brokers.

One grammar for all readers of addresses. The field types below carry its rules, which the API
server and Python evaluate identically. :meth:`Address.parse` and :func:`brokers` parse everything
that the rules accept without raising. Code that needs the host, port or claim of an address calls
them instead of splitting the text again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from .base import Rule, Ruled

# ---------------------------------------------------------------- the grammar

_LABEL = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
# A name that ends in a number would be read as an IPv4 address, so the last label must not be one.
_LAST_LABEL = (
    "[0-9]{0,61}([A-Za-z_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?|[0-9]-[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])"
)
_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = f"({_OCTET}[.]){{3}}{_OCTET}"
_H16 = "[0-9A-Fa-f]{1,4}"
_LS32 = f"({_H16}:{_H16}|{_IPV4})"
# RFC 3986, section 3.2.2, without zones: link-local addresses are refused anyway.
_IPV6 = "|".join(
    [
        f"({_H16}:){{6}}{_LS32}",
        f"::({_H16}:){{5}}{_LS32}",
        *(f"(({_H16}:){{0,{n}}}{_H16})?::({_H16}:){{{4 - n}}}{_LS32}" for n in range(5)),
        f"(({_H16}:){{0,5}}{_H16})?::{_H16}",
        f"(({_H16}:){{0,6}}{_H16})?::",
    ]
)
HOST = rf"(({_LABEL}[.])*{_LAST_LABEL}[.]?|{_IPV4}|\[({_IPV6})\])"
"""A DNS name, an IPv4 address, or an IPv6 address in brackets."""

PORT = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
"""A number from 1 to 65535."""

SUBDOMAIN = "[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*"
"""The name of most Kubernetes objects: a DNS subdomain (RFC 1123)."""

_BUCKET = "[A-Za-z0-9$][A-Za-z0-9._:$-]*"
_COMPONENT = "[a-z0-9]+(([.]|__?|-+)[a-z0-9]+)*"
_REFERENCE = (
    f"{_COMPONENT}(/{_COMPONENT})*(:[A-Za-z0-9_][A-Za-z0-9._-]{{0,127}})?(@sha256:[0-9a-f]{{64}})?"
)
_SLASH, _DOT = "(/|%2[fF])", "([.]|%2[eE])"

_SCHEMES = "file|pvc|https?|s3|gs|az|oci"
_ON_HOSTS = "^(https?|oci)://"
_ANY_HOST = r"([^/?#@:\[]*|\[[^/?#@]*\])"
_END = "([/?#]|$)"

URI_PATTERN = rf"^({_SCHEMES})://[^\x00-\x20\x7f]+$"
_KAFKA = r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}"
KAFKA_PATTERN = rf"^{_KAFKA}(,{_KAFKA})*$"
_NATS = r"(nats|tls|ws|wss)://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?"
NATS_PATTERN = rf"^{_NATS}(,{_NATS})*$"


def _matches(pattern: str) -> str:
    """Return the CEL for "the text matches this pattern", as a raw string to keep backslashes."""
    return f"self.matches(r'{pattern}')"


def _not_matches(pattern: str) -> str:
    return f"!{_matches(pattern)}"


# ---------------------------------------------------------------- rules

_HOST_FAULT = "the host is neither a DNS name nor an IP address"
_HOST_FIX = "write the host in ASCII; an IPv6 address goes in brackets"
_PORT_FAULT = "the port is not a number from 1 to 65535"
_PORT_FIX = "write the port the server listens on"


def _on_hosts(pattern: str) -> str:
    return _matches(f"{_ON_HOSTS}{pattern}")


_HAS_CREDENTIALS = _on_hosts("[^/?#]*@")

_HOST_RULES = (
    Rule(
        f"!{_HAS_CREDENTIALS}",
        "the URI contains credentials",
        "put them into a Secret and name it in credentials",
    ),
    Rule(
        f"!{_matches(_ON_HOSTS)} || {_HAS_CREDENTIALS} || {_on_hosts(f'{HOST}(:[^/?#]*)?{_END}')}",
        _HOST_FAULT,
        _HOST_FIX,
    ),
    Rule(
        f"!{_on_hosts(f'{_ANY_HOST}:[^/?#@]*{_END}')} || {_on_hosts(f'{_ANY_HOST}:{PORT}{_END}')}",
        _PORT_FAULT,
        _PORT_FIX,
    ),
    Rule(
        f"!{_matches('^https?://[^/?#]')} || {_matches('^https?://[^/?#]+/.+')}",
        "the URI does not name a file",
        "write https://HOST/PATH",
    ),
)

_OCI_RULE = Rule(
    f"!{_matches('^oci://')} || {_matches(f'^oci://[^/?#]+/{_REFERENCE}$')}",
    "the URI is not an image reference",
    "write oci://HOST/REPOSITORY:TAG or oci://HOST/REPOSITORY@sha256:HEX, the repository in lower"
    " case",
)

_LOCAL_RULES = (
    Rule(
        f"!{_matches('^file://')} || {_matches('^file://(localhost)?/+[^/]')}",
        "file:// is not followed by an absolute path",
        "write three slashes, such as file:///models/model.onnx; the text after two is a host",
    ),
    Rule(
        f"!{_matches('^(file|pvc|s3|gs|az)://.*%00')}",
        "the path contains a NUL character",
        "remove %00",
    ),
    Rule(
        f"!{_matches(f'{_SLASH}{_DOT}{_DOT}({_SLASH}|$)')}",
        "the URI contains ..",
        "write the path without ..",
    ),
)


def _claim(path: bool) -> Rule:
    rest, written = ("/+[^/]", "pvc://CLAIM/PATH") if path else ("(/|$)", "pvc://CLAIM/FOLDER")
    return Rule(
        f"!{_matches('^pvc://')} || {_matches(f'^pvc://{SUBDOMAIN}{rest}')}",
        "the URI does not name a claim and a path" if path else "the URI does not name a claim",
        f"write {written}, with the claim's name in lower case",
    )


def _bucket(path: bool) -> Rule:
    rest, written = ("/.+", "s3://BUCKET/PATH") if path else ("(/|$)", "s3://BUCKET/FOLDER")
    return Rule(
        f"!{_matches('^(s3|gs|az)://')} || {_matches(f'^(s3|gs|az)://{_BUCKET}{rest}')}",
        "the URI does not name a bucket and an object"
        if path
        else "the URI does not name a bucket",
        f"write {written}; credentials go into a Secret",
    )


FileUri = Annotated[
    str,
    Field(pattern=URI_PATTERN, max_length=2048),
    Ruled(*_LOCAL_RULES, _claim(True), _bucket(True), *_HOST_RULES, _OCI_RULE),
]
"""Where a file is: ``file``, ``pvc`` (``pvc://CLAIM/PATH``), ``http(s)``, ``s3``, ``gs``, ``az``
or ``oci``."""

TableUri = Annotated[
    str,
    Field(pattern=URI_PATTERN, max_length=2048),
    Ruled(
        Rule(
            _matches("^(file|pvc|https?|s3|gs|az)://"),
            "tables cannot be read by this scheme",
            "use file, pvc, http(s), s3, gs or az",
        ),
        *_LOCAL_RULES,
        _claim(False),
        _bucket(False),
        *_HOST_RULES,
    ),
]
"""Where a table is: a file, a folder or a glob."""

FolderUri = Annotated[
    str,
    Field(pattern=URI_PATTERN, max_length=2048),
    Ruled(
        Rule(
            _matches("^(file|pvc|s3|gs|az)://"),
            "files cannot be written by this scheme",
            "use pvc, s3, gs or az (file only with fourways up)",
        ),
        *_LOCAL_RULES,
        _claim(False),
        _bucket(False),
    ),
]
"""A folder that is written to."""

_NATS_ITEM = rf"(nats|tls|ws|wss)://([^,:]*|\[[^,]*\])(:{PORT})?"
_NATS_HOSTS = f"(nats|tls|ws|wss)://{HOST}(:[0-9]+)?"

KafkaServers = Annotated[
    str,
    Field(pattern=KAFKA_PATTERN, max_length=1024),
    Ruled(
        Rule(_matches(f"^{HOST}:[0-9]+(,{HOST}:[0-9]+)*$"), _HOST_FAULT, _HOST_FIX),
        Rule(_matches(f"^[^,]*:{PORT}(,[^,]*:{PORT})*$"), _PORT_FAULT, _PORT_FIX),
    ),
]
"""Kafka brokers: ``HOST:PORT``, separated by commas."""

NatsServers = Annotated[
    str,
    Field(pattern=NATS_PATTERN, max_length=1024),
    Ruled(
        Rule(_matches(f"^{_NATS_HOSTS}(,{_NATS_HOSTS})*$"), _HOST_FAULT, _HOST_FIX),
        Rule(_matches(f"^{_NATS_ITEM}(,{_NATS_ITEM})*$"), _PORT_FAULT, _PORT_FIX),
    ),
]
"""NATS servers: ``nats://HOST`` or ``nats://HOST:PORT``, separated by commas."""


_DOMAIN_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
_REGISTRY = rf"({_DOMAIN_LABEL}([.]{_DOMAIN_LABEL})*|\[[0-9A-Fa-f:]+\])(:{PORT})?"
_IMAGE_DIGEST = "(sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})"

Image = Annotated[
    str,
    Field(
        pattern=f"^({_REGISTRY}/)?{_COMPONENT}(/{_COMPONENT})*"
        f"(:[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(@{_IMAGE_DIGEST})?$",
        max_length=512,
    ),
    Ruled(
        Rule(
            _not_matches("^[0-9a-f]{64}$"),
            "64 hexadecimal digits are read as the id of an image, not as its name",
            "write the name, such as registry.example.com/team/churn:1.0",
        ),
    ),
]
"""A reference to an image, as the kubelet parses it (github.com/distribution/reference)."""


# ---------------------------------------------------------------- parsing addresses

_HOST_AND_PORT = rf"(?:\[(?P<ipv6>[^\]/?#@]+)\]|(?P<host>[^/?#@:\[\]]+))(?::(?P<port>{PORT}))?"
_WITH_HOST = re.compile(
    rf"(?P<scheme>https?|oci)://{_HOST_AND_PORT}(?P<path>(?:[/?#].*)?)", re.DOTALL
)
_WITHOUT_HOST = re.compile(
    r"(?P<scheme>file|pvc|s3|gs|az)://(?P<host>[^/]*)(?P<path>.*)", re.DOTALL
)
_BROKER = re.compile(rf"(?:(?P<scheme>nats|tls|wss?)://)?{_HOST_AND_PORT}")


class InvalidAddress(ValueError):
    """A text that the rules of this module do not accept."""


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed address."""

    scheme: str
    """``https``, ``pvc``, ``nats`` …; empty for a Kafka broker."""

    authority: str
    """Host (an IPv6 address without its brackets), claim, bucket or container."""

    port: int | None
    """Port, or None if the address has none."""

    path: str
    """Everything after the authority, as written: path and query."""

    @classmethod
    def parse(cls, uri: str) -> Address:
        """Parse a URI.

        Raises:
            InvalidAddress: the field types of this module would not accept it.

        """
        return cls._of(_WITHOUT_HOST.fullmatch(uri) or _WITH_HOST.fullmatch(uri), uri)

    @classmethod
    def _of(cls, found: re.Match[str] | None, text: str) -> Address:
        if found is None:
            raise InvalidAddress(f"{text[:80]!r} is not an address")
        parts = found.groupdict()
        port = parts.get("port")
        authority = parts.get("ipv6") or parts["host"]
        return cls(
            parts["scheme"] or "", authority, int(port) if port else None, parts.get("path") or ""
        )


def brokers(servers: str) -> tuple[Address, ...]:
    """Parse a list of brokers: Kafka's ``HOST:PORT`` or NATS's ``nats://HOST:PORT``.

    Raises:
        InvalidAddress: the field types of this module would not accept an item.

    """
    return tuple(Address._of(_BROKER.fullmatch(item), item) for item in servers.split(","))


def claims(uris: Iterable[str]) -> set[str]:
    """Return the claims that ``pvc://CLAIM/PATH`` URIs name."""
    return {a.authority for a in map(Address.parse, uris) if a.scheme == "pvc"}
