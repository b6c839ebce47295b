"""Uploads one file to an OCI registry, as the one raw layer of weights that the runtime reads.

The bytes of manifest and configuration depend on the model only, so that the same file pushed again
has the same digest. Credentials are sent to the registry and to the token service that it names,
never to the target of a redirect.

Sources: OCI distribution specification 1.1 (push), OCI image manifest 1.1, the token specification
of github.com/distribution/distribution, CNCF ModelPack.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from fourways_runtime.errors import FetchRefused
from fourways_runtime.io.fetch.location import Location
from fourways_runtime.io.fetch.oci import (
    MANIFEST_TYPE,
    WEIGHT_TYPE,
    Reference,
    challenge_parameters,
    is_loopback,
)

from .errors import PushFailed

ARTIFACT_TYPE = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_TYPE = "application/vnd.cncf.model.config.v1+json"
FILE_ANNOTATION = "org.cncf.model.filepath"
PART_BYTES = 1 << 20
CONNECT_SECONDS, ANSWER_SECONDS = 10.0, 300.0


@dataclass(frozen=True, slots=True)
class PushedModel:
    """Where a model is now. ``digest`` is that of the file, ``manifest`` that of its manifest."""

    uri: str
    digest: str
    manifest: str
    size: int


@dataclass(frozen=True, slots=True)
class _PushedBlob:
    kind: str
    digest: str
    size: int

    def descriptor(self) -> dict[str, Any]:
        return {"mediaType": self.kind, "digest": self.digest, "size": self.size}


def push_model(
    file: Path,
    uri: str,
    login: tuple[str, str] | None = None,
    transport: httpx.BaseTransport | None = None,
) -> PushedModel:
    """Upload a model's file to ``oci://HOST/REPOSITORY:TAG``. ``login`` is user and password.

    The returned URI names the manifest by its digest, so that it means these bytes for ever.

    Raises:
        PushFailed: the reference is wrong, or the registry cannot be reached or refuses.

    """
    try:
        reference = Reference.parse(Location.parse(uri))
    except FetchRefused as error:
        raise PushFailed(str(error)) from None
    if reference.digest is not None:
        raise PushFailed(f"{uri}: a digest is made by the push; give a tag")
    layer = _PushedBlob(WEIGHT_TYPE, *_digest_of(file))
    config = _config(layer)
    settings = _PushedBlob(CONFIG_TYPE, _sha256(config), len(config))
    manifest = _manifest(settings, layer, file.name)
    digest = _sha256(manifest)
    try:
        with _Upload(reference, login, transport) as upload:
            upload.blob(settings, lambda: iter((config,)))
            upload.blob(layer, lambda: _parts(file))
            upload.manifest(manifest)
    except httpx.HTTPError as error:
        raise PushFailed(_no_answer(reference, error)) from None
    named = uri.removesuffix("/")
    tagged = named if named.endswith(f":{reference.tag}") else f"{named}:{reference.tag}"
    return PushedModel(f"{tagged}@{digest}", layer.digest, digest, layer.size)


def _no_answer(reference: Reference, error: httpx.HTTPError) -> str:
    """Return why a registry could not be used, and what to look at."""
    at = reference.registry.netloc.decode()
    why = str(error) or type(error).__name__
    # What httpx quotes of the operating system begins with a number that tells people nothing.
    why = why.partition("] ")[2] if why.startswith("[") and "] " in why else why
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        scheme = reference.registry.scheme
        return f"no registry answers at {at} ({scheme}): {why}; check host and port of the URI"
    return f"registry {at}: {why}"


class _Upload:
    """One push: requests to a registry, with a token once it asks for one."""

    def __init__(
        self,
        reference: Reference,
        login: tuple[str, str] | None,
        transport: httpx.BaseTransport | None,
    ) -> None:
        self._reference = reference
        self._login = login
        self._headers: dict[str, str] = {}
        timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        self._client = httpx.Client(timeout=timeout, transport=transport)

    def __enter__(self) -> _Upload:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def blob(self, blob: _PushedBlob, parts: Any) -> None:
        """Upload a blob, unless the registry has it."""
        if self._send("HEAD", self._reference.blob(blob.digest)).status_code == 200:
            return
        repository = self._reference.repository
        start = self._reference.registry.join(f"/v2/{repository}/blobs/uploads/")
        begun = self._expect(self._send("POST", start), 202, "an upload")
        place = start.join(begun.headers.get("location", ""))
        self._check_secure(place)
        put = place.copy_merge_params({"digest": blob.digest})
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)}
        self._expect(self._send("PUT", put, headers, parts), 201, "the file")

    def manifest(self, raw: bytes) -> None:
        """Upload the manifest under its tag."""
        headers = {"Content-Type": MANIFEST_TYPE}
        put = self._send("PUT", self._reference.manifest(), headers, lambda: raw)
        self._expect(put, 201, "the manifest")

    def _send(
        self,
        method: str,
        url: httpx.URL,
        headers: dict[str, str] | None = None,
        content: Any = None,
    ) -> httpx.Response:
        """Send a request; a 401 is answered once, with what the registry asks for."""
        ours = _origin(url) == _origin(self._reference.registry)
        for last in (False, True):
            sent = (headers or {}) | (self._headers if ours else {})
            body = content() if content else None
            response = self._client.request(method, url, headers=sent, content=body)
            if response.status_code != 401 or last or not ours:
                break
            self._headers = self._answer(response.headers.get_list("www-authenticate"))
        return response

    def _answer(self, challenges: list[str]) -> dict[str, str]:
        for challenge in challenges:
            scheme, _, parameters = challenge.strip().partition(" ")
            if scheme.lower() == "bearer":
                return self._token(challenge_parameters(parameters))
        if self._login is None:
            raise PushFailed(f"registry {self._reference.registry.host} asks for a login: {_HINT}")
        encoded = base64.b64encode(":".join(self._login).encode()).decode()
        return {"Authorization": f"Basic {encoded}"}

    def _token(self, asked: dict[str, str]) -> dict[str, str]:
        try:
            realm = httpx.URL(asked.get("realm", ""))
        except httpx.InvalidURL:
            realm = httpx.URL("")
        if not realm.host:
            raise PushFailed("the registry names no valid token service")
        self._check_secure(realm)
        service = {"service": asked["service"]} if "service" in asked else {}
        scope = f"repository:{self._reference.repository}:pull,push"
        url = realm.copy_merge_params({**service, "scope": scope})
        found = self._client.get(url, auth=httpx.BasicAuth(*self._login) if self._login else None)
        self._expect(found, 200, "a token")
        try:
            answer = found.json()
            token = answer.get("token") or answer.get("access_token")
        except (ValueError, AttributeError):
            token = None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise PushFailed(f"the token service {realm.host} returned no valid token")
        return {"Authorization": f"Bearer {token}"}

    def _check_secure(self, url: httpx.URL) -> None:
        here = self._reference.registry.scheme == "http" and is_loopback(url.host)
        if url.scheme != "https" and not here:
            raise PushFailed(f"the registry names {url.host} without TLS; https is required")

    def _expect(self, response: httpx.Response, status: int, what: str) -> httpx.Response:
        if response.status_code == status:
            return response
        host = response.url.host
        if response.status_code in (401, 403):
            raise PushFailed(f"{host} refuses {what} ({response.status_code}): {_HINT}")
        raise PushFailed(f"{host} refuses {what}: HTTP {response.status_code} {_why(response)}")


_HINT = "log in with `docker login`, as a user who may push to this repository"


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _why(response: httpx.Response) -> str:
    """Return the registry's own words for an error."""
    try:
        errors = response.json()["errors"]
        return "; ".join(str(each.get("message") or each.get("code")) for each in errors)
    except (ValueError, LookupError, TypeError, AttributeError):
        return ""


def _config(layer: _PushedBlob) -> bytes:
    model = {"type": "layers", "diffIds": [layer.digest]}
    return _json({"descriptor": {}, "config": {}, "modelfs": model})


def _manifest(config: _PushedBlob, layer: _PushedBlob, name: str) -> bytes:
    return _json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": ARTIFACT_TYPE,
            "config": config.descriptor(),
            "layers": [{**layer.descriptor(), "annotations": {FILE_ANNOTATION: name}}],
        }
    )


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def _sha256(raw: bytes) -> str:
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def _digest_of(file: Path) -> tuple[str, int]:
    """Return digest and size of a file. Raises PushFailed."""
    digest, size = hashlib.sha256(), 0
    try:
        for part in _parts(file):
            digest.update(part)
            size += len(part)
    except OSError as error:
        raise PushFailed(f"{file} cannot be read: {error.strerror}") from None
    return f"sha256:{digest.hexdigest()}", size


def _parts(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while part := opened.read(PART_BYTES):
            yield part
