"""A model in an OCI registry: one manifest, one blob, over the guarded HTTP client.

This module handles the reference, the choice of the blob and the token. A registry is not trusted:
the manifest must match the reference's digest and the blob the manifest's; the policy applies to a
token service as to any host; and credentials go to the registry and the token service that it
names, never to the target of a redirect.

Sources: OCI distribution specification 1.1, OCI image manifest 1.1, the token specification of
github.com/distribution/distribution (docs/content/spec/auth/token.md), CNCF ModelPack.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import httpcore
import httpx

from fourways_api.runtime_config import FetchPolicy
from fourways_runtime.errors import DigestMismatch, FetchRefused, SourceError

from .credentials import Credentials
from .http import RedirectedAway, authorization, body_of, check_status, content_range, get, header
from .location import Location, check_host
from .source import Body, Deadline

MAX_MANIFEST_BYTES = 4 << 20
MAX_TOKEN_BYTES = 1 << 20
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
# Accepted only for a clear error: a registry that must not send an index responds with 404.
_INDEX = "application/vnd.oci.image.index.v1+json"
_WEIGHT = "application/vnd.cncf.model.weight."
_WEIGHT_CONFIG = "application/vnd.cncf.model.weight.config."
WEIGHT_TYPE = "application/vnd.cncf.model.weight.v1.raw"
_PACKED = frozenset({"tar", "gz", "gzip", "zstd", "zip"})

_COMPONENT = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"/({_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::([A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?:@(sha256:[0-9a-f]{64}))?"
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PARAMETER = re.compile(r'([a-z]+)="([^"]*)"|([a-z]+)=([^\s",]+)', re.IGNORECASE)
_TOKEN = re.compile(r"[\x21-\x7e]{1,65536}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed ``oci://HOST[:PORT]/REPOSITORY[:TAG][@sha256:HEX]``; a digest overrides a tag."""

    registry: httpx.URL
    repository: str
    tag: str
    digest: str | None

    @classmethod
    def parse(cls, location: Location) -> Reference:
        """Parse the reference. Raises FetchRefused. Plain http is allowed for loopback only."""
        found = _REFERENCE.fullmatch(location.path)
        if found is None or "?" in location.uri or "#" in location.uri:
            raise FetchRefused(
                f"{location.shown}: write oci://HOST/REPOSITORY:TAG or"
                " oci://HOST/REPOSITORY@sha256:HEX, the repository in lower case"
            )
        scheme = "http" if is_loopback(location.authority) else "https"
        port = urlsplit(location.uri).port
        try:
            registry = httpx.URL(scheme=scheme, host=location.authority, port=port, path="/v2/")
        except (httpx.InvalidURL, ValueError):
            raise FetchRefused("the URI is not a valid URL") from None
        return cls(registry, found[1], found[2] or "latest", found[3])

    def manifest(self) -> httpx.URL:
        """Return the URL of the manifest."""
        return self.registry.join(f"/v2/{self.repository}/manifests/{self.digest or self.tag}")

    def blob(self, digest: str) -> httpx.URL:
        """Return the URL of a blob."""
        return self.registry.join(f"/v2/{self.repository}/blobs/{digest}")


@dataclass(frozen=True, slots=True)
class Layer:
    """A blob's descriptor: its media type, ``sha256:HEX`` and size in bytes."""

    media_type: str
    digest: str
    size: int


def is_loopback(host: str) -> bool:
    """Tell whether a host, as written, is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_manifest(raw: bytes, content_type: str | None, shown: str) -> dict[str, Any]:
    """Return an image manifest. Raises FetchRefused for an index, SourceError if it is invalid."""
    try:
        manifest = json.loads(raw)
    except (ValueError, RecursionError):
        manifest = None
    if not isinstance(manifest, dict):
        raise SourceError(f"{shown}: the manifest cannot be read")
    kind = manifest.get("mediaType") or (content_type or "").partition(";")[0].strip()
    # A document that is both could be read as either by different readers (CVE-2021-41190).
    if kind == _INDEX or "manifests" in manifest:
        raise FetchRefused(
            f"{shown}: is an index of several manifests; give the digest of one manifest:"
            " oci://HOST/REPOSITORY@sha256:HEX"
        )
    if kind != MANIFEST_TYPE:
        raise FetchRefused(f"{shown}: is not an OCI image manifest; push it as {MANIFEST_TYPE}")
    return manifest


def model_layer(manifest: dict[str, Any], shown: str) -> Layer:
    """Choose the model's blob: the single layer of weights, or else the only layer.

    Raises FetchRefused if there is no such single layer, or it is an archive; SourceError if it is
    unreadable.
    """
    listed = manifest.get("layers")
    layers = [_layer(entry, shown) for entry in (listed if isinstance(listed, list) else [])]
    weights = [
        layer
        for layer in layers
        if layer.media_type.startswith(_WEIGHT) and not layer.media_type.startswith(_WEIGHT_CONFIG)
    ]
    candidates = weights or layers
    if len(candidates) != 1:
        what = "layers that hold weights" if weights else "layers, none of which holds weights"
        raise FetchRefused(
            f"{shown}: the manifest has {len(candidates)} {what}; push one model per manifest,"
            f" as one layer of {WEIGHT_TYPE}"
        )
    if not _PACKED.isdisjoint(re.split(r"[./+-]", candidates[0].media_type.lower())):
        raise FetchRefused(
            f"{shown}: the model is an archive; push the raw weights as {WEIGHT_TYPE}"
        )
    return candidates[0]


def _layer(entry: Any, shown: str) -> Layer:
    if isinstance(entry, dict):
        kind, digest, size = (entry.get(key) for key in ("mediaType", "digest", "size"))
        if (
            isinstance(kind, str)
            and isinstance(digest, str)
            and _DIGEST.fullmatch(digest)
            and type(size) is int
            and size >= 0
        ):
            return Layer(kind, digest, size)
    raise SourceError(f"{shown}: a layer of the manifest lacks mediaType, sha256 digest or size")


class OciSource:
    """The model at an oci reference. ``wanted`` is the model's digest, if it is known.

    From the Secret, ``username`` and ``password`` are sent to the token service, or to a registry
    that requests them itself; ``token`` is sent to the registry unchanged. The first request is
    always anonymous.
    """

    def __init__(
        self,
        location: Location,
        credentials: Credentials,
        policy: FetchPolicy,
        wanted: str | None,
    ) -> None:
        self._shown = location.shown
        self._reference = Reference.parse(location)
        self._policy = policy
        self._wanted = wanted
        self._secret = credentials
        self._credentials = authorization(credentials, location.uri)
        self._authorization: dict[str, str] = {}
        self._layer: Layer | None = None

    @contextmanager
    def open(self, offset: int, validator: str | None, deadline: Deadline) -> Iterator[Body]:
        """Open the blob, at ``offset`` if ``validator`` is its digest (it identifies the bytes)."""
        if self._layer is None:
            self._layer = self._resolve(deadline)
        layer = self._layer
        resumable = validator == layer.digest and 0 < offset < layer.size
        for start in (offset, 0) if resumable else (0,):
            with self._blob(layer, start, deadline) as response:
                if start and not _continues(response, start):
                    continue
                body = body_of(response, self._at(self._reference.blob(layer.digest)), start)
                if body.total not in (None, layer.size):
                    raise DigestMismatch(
                        f"{self._shown}: the blob is {body.total} bytes, not the {layer.size}"
                        " of its manifest"
                    )
                yield replace(body, total=layer.size, validator=layer.digest, digest=layer.digest)
                return

    def _resolve(self, deadline: Deadline) -> Layer:
        url = self._reference.manifest()
        accept = {"Accept": f"{MANIFEST_TYPE}, {_INDEX}"}
        with self._authorized(url, accept, deadline) as response:
            check_status(response, self._at(url))
            raw = _read(response, MAX_MANIFEST_BYTES, f"{self._shown}: the manifest", deadline)
            content_type = header(response, "content-type")
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        if self._reference.digest not in (None, digest):
            raise DigestMismatch(f"{self._shown}: the manifest is {digest}")
        layer = model_layer(read_manifest(raw, content_type, self._shown), self._shown)
        if self._wanted not in (None, layer.digest):
            raise DigestMismatch(f"{self._shown}: the file is {layer.digest}, not {self._wanted}")
        return layer

    @contextmanager
    def _blob(self, layer: Layer, start: int, deadline: Deadline) -> Iterator[httpcore.Response]:
        headers = {"Range": f"bytes={start}-"} if start else {}
        with ExitStack() as stack:
            try:
                response = stack.enter_context(
                    self._authorized(self._reference.blob(layer.digest), headers, deadline)
                )
            except RedirectedAway as redirect:
                store = self._store(redirect.target)
                response = stack.enter_context(get(store, headers, self._policy, deadline))
            yield response

    def _store(self, url: httpx.URL) -> Location:
        """Return the location to which a registry redirects, if the policy allows that host."""
        if "*" in self._policy.hosts:
            raise FetchRefused(
                f"{self._shown}: the registry redirects to another host, {url.host}; no other host"
                " is followed unless the allowed hosts name it, and the registry"
            )
        try:
            check_host(url.host, self._policy)
        except FetchRefused:
            raise FetchRefused(
                f"{self._shown}: the registry redirects to another host, {url.host};"
                " add it to the allowed hosts"
            ) from None
        self._check_secure(url, "redirects to")
        return self._at(url)

    @contextmanager
    def _authorized(
        self, url: httpx.URL, headers: dict[str, str], deadline: Deadline
    ) -> Iterator[httpcore.Response]:
        """GET from the registry itself; a 401 is answered once, with the requested credentials."""
        for last in (False, True):
            sent = headers | self._authorization
            with get(self._at(url), sent, self._policy, deadline) as response:
                if response.status != 401 or last:
                    yield response
                    return
                asked = [
                    bytes(value).decode("latin-1")
                    for name, value in response.headers
                    if name.lower() == b"www-authenticate"
                ]
            self._authorization = self._answer(asked, deadline)

    def _answer(self, challenges: list[str], deadline: Deadline) -> dict[str, str]:
        if self._credentials.get("Authorization", "").startswith("Bearer "):
            return self._credentials
        for challenge in challenges:
            scheme, _, parameters = challenge.strip().partition(" ")
            if scheme.lower() == "bearer":
                return self._token(challenge_parameters(parameters), deadline)
        return self._credentials

    def _token(self, asked: dict[str, str], deadline: Deadline) -> dict[str, str]:
        try:
            url = httpx.URL(asked.get("realm", ""))
        except (httpx.InvalidURL, ValueError):
            url = httpx.URL("")
        if not url.host:
            raise SourceError(f"{self._shown}: the registry names no valid token service")
        self._check_secure(url, "gets tokens from")
        scope = asked.get("scope") or f"repository:{self._reference.repository}:pull"
        service = {"service": asked["service"]} if "service" in asked else {}
        url = url.copy_merge_params(service | {"scope": scope.split()})
        at = self._at(url, f"{self._shown}: the registry's token service")
        check_host(url.host, self._policy)
        login = authorization(self._secret, str(url)) if self._credentials else {}
        with get(at, login, self._policy, deadline) as response:
            check_status(response, at)
            raw = _read(response, MAX_TOKEN_BYTES, at.shown, deadline)
        try:
            answer = json.loads(raw)
            token = answer.get("token") or answer.get("access_token")
        except (ValueError, RecursionError, AttributeError):
            token = None
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise SourceError(f"{at.shown}: returned no valid token")
        return {"Authorization": f"Bearer {token}"}

    def _check_secure(self, url: httpx.URL, does: str) -> None:
        """Reject plain http, except for a registry on this machine without a redirect elsewhere."""
        on_this_machine = self._reference.registry.scheme == "http" and is_loopback(url.host)
        if url.scheme != "https" and not (url.scheme == "http" and on_this_machine):
            raise FetchRefused(
                f"{self._shown}: the registry {does} {url.host} without TLS; https is required"
            )

    def _at(self, url: httpx.URL, shown: str | None = None) -> Location:
        return Location(str(url), url.scheme, url.host, url.path, shown or self._shown)


def _continues(response: httpcore.Response, start: int) -> bool:
    """Tell whether a response to a range request is usable: the range, the whole, or an error."""
    if response.status == 206:
        found = content_range(response)
        return found is not None and found[0] == start
    return response.status != 416


def challenge_parameters(text: str) -> dict[str, str]:
    """Return the parameters of a challenge; the first one if several share a name."""
    found: dict[str, str] = {}
    for match in _PARAMETER.finditer(text):
        found.setdefault((match[1] or match[3]).lower(), match[2] or match[4] or "")
    return found


def _read(response: httpcore.Response, limit: int, what: str, deadline: Deadline) -> bytes:
    body = bytearray()
    for chunk in response.iter_stream():
        deadline.remaining()
        body += chunk
        if len(body) > limit:
            raise FetchRefused(f"{what}: larger than {limit} bytes")
    return bytes(body)
