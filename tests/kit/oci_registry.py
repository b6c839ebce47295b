"""A registry of container images that holds a model, and asks for tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fourways_api.runtime_config import FetchPolicy, Paths
from fourways_runtime.io import fetch as fetching
from fourways_runtime.io.fetch import Fetched
from tests.kit.fetch_servers import (
    Answer,
    Server,
    ranged,
    serving,
    status,
    whole,
)
from tests.kit.secret_files import secret_folder

BODY = bytes(range(256)) * 2000


MANIFEST = "application/vnd.oci.image.manifest.v1+json"


INDEX = "application/vnd.oci.image.index.v1+json"


WEIGHT = "application/vnd.cncf.model.weight.v1.raw"


REPOSITORY = "team/churn"


TOKEN = "granted-to-us"


def sha256(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


DIGEST = sha256(BODY)


def layer(media_type: str = WEIGHT, **changes: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": DIGEST, "size": len(BODY)} | changes


def manifest(*layers: Any, **changes: Any) -> bytes:
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "layers": list(layers)} | changes
    return json.dumps(document).encode()


@dataclass
class Registry:
    """One manifest under the tag 1 and under its digest; a blob; a token service, if wanted."""

    manifest: bytes = manifest(layer())
    blob: list[Answer] = field(default_factory=lambda: [ranged(BODY)])
    """Answers in turn; the last one again and again."""

    challenge: str | None = None
    """What a request without the token is told; ``{url}`` is the registry's own."""

    login: str | None = None
    """The Authorization the token service wants."""

    grants: dict[str, Any] = field(default_factory=lambda: {"token": TOKEN})
    accepts: str = f"Bearer {TOKEN}"
    server: Server = field(default_factory=Server)

    def reference(self, suffix: str = ":1") -> str:
        return f"{self.server.url.replace('http', 'oci', 1)}/{REPOSITORY}{suffix}"

    def asked(self, path: str) -> list[dict[str, str]]:
        return [request for request in self.server.requests if path in request[":path"]]

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        path = urlsplit(handler.path).path
        authorization = handler.headers.get("Authorization")
        if path == "/token":
            if self.login is not None and authorization != self.login:
                return status(401, b"secret")(handler)
            return whole(json.dumps(self.grants).encode())(handler)
        if self.challenge is not None and authorization != self.accepts:
            challenge = self.challenge.format(url=self.server.url)
            return status(401, b"secret", WWW_Authenticate=challenge)(handler)
        known = ("1", "latest", sha256(self.manifest))
        if path in [f"/v2/{REPOSITORY}/manifests/{name}" for name in known]:
            return whole(self.manifest, Content_Type=MANIFEST)(handler)
        if path == f"/v2/{REPOSITORY}/blobs/{DIGEST}":
            answer = self.blob.pop(0) if len(self.blob) > 1 else self.blob[0]
            return answer(handler)
        return status(404, b"secret")(handler)


BEARER = 'Bearer realm="{url}/token",service="registry",scope="repository:team/churn:pull"'


@contextmanager
def registry(**settings: Any) -> Iterator[Registry]:
    answers = Registry(**settings)
    with serving(answers) as answers.server:
        yield answers


def get(uri: str, into: Path, digest: str | None = DIGEST, **settings: Any) -> Fetched:
    policy = FetchPolicy(timeout_seconds=10.0, hosts=settings.pop("hosts", ("*",)))
    arguments: dict[str, Any] = {"max_bytes": 10 << 20, "paths": Paths(), "sleep": lambda _: None}
    return fetching.fetch(uri, into=into, digest=digest, policy=policy, **(arguments | settings))


def secret(folder: Path, **values: str) -> Path:
    return secret_folder(folder, **values)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())
