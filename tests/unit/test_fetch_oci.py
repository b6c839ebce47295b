"""Models from a registry that asks for tokens, points elsewhere, and says what is not so."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from fourways_api.runtime_config import FetchPolicy, Paths
from fourways_runtime.errors import DigestMismatch, FetchFailed, FetchRefused, SourceError
from fourways_runtime.io import fetch as fetching
from fourways_runtime.io.fetch import Fetched
from fourways_runtime.io.fetch.location import Location
from fourways_runtime.io.fetch.oci import MAX_MANIFEST_BYTES, Reference, is_loopback
from tests.kit.fetch_servers import (
    Answer,
    Server,
    broken,
    endless,
    ranged,
    redirect,
    serving,
    status,
    whole,
)

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
    policy = FetchPolicy(timeout_seconds=10.0, hosts=settings.pop("hosts", ()))
    arguments: dict[str, Any] = {"max_bytes": 10 << 20, "paths": Paths(), "sleep": lambda _: None}
    return fetching.fetch(uri, into=into, digest=digest, policy=policy, **(arguments | settings))


def secret(folder: Path, **values: str) -> Path:
    folder.mkdir()
    for key, value in values.items():
        (folder / key).write_text(value)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


# ---------------------------------------------------------------- references


@pytest.mark.parametrize("digest", [DIGEST, None])
@pytest.mark.parametrize("suffix", [":1", "", "@", ":other@"])
def test_a_tag_and_a_digest_name_the_model(suffix: str, digest: str | None, tmp_path: Path) -> None:
    with registry() as remote:
        if suffix.endswith("@"):
            suffix += sha256(remote.manifest)
        fetched = get(remote.reference(suffix), tmp_path, digest)
        assert MANIFEST in remote.server.requests[0]["accept"]
    assert fetched == Fetched(tmp_path / DIGEST.replace(":", "-"), DIGEST, len(BODY))
    assert fetched.path.read_bytes() == BODY


def test_a_model_already_here_asks_nobody(tmp_path: Path) -> None:
    with registry() as remote:
        first = get(remote.reference(), tmp_path)
        asked = len(remote.server.requests)
        assert get(remote.reference(), tmp_path) == first
        assert len(remote.server.requests) == asked


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "/",
        "/Upper/case:1",
        "/a//b:1",
        "/a/../b:1",
        "/a:",
        "/a:b:c",
        "/a@sha256:12",
        "/a:1?x=y",
        "/a:1#x",
        f"/a@sha512:{'0' * 128}",
        "/a%2fb:1",
        f"/a:{'t' * 129}",
    ],
)
def test_a_reference_that_is_none_is_refused(rest: str, tmp_path: Path) -> None:
    with pytest.raises(FetchRefused, match="write oci://HOST/REPOSITORY:TAG"):
        get(f"oci://127.0.0.1:1{rest}", tmp_path)


@pytest.mark.parametrize(
    ("host", "base"),
    [
        ("registry.example.com", "https://registry.example.com"),
        ("registry.example.com:5000", "https://registry.example.com:5000"),
        ("10.0.0.1:5000", "https://10.0.0.1:5000"),
        ("localhost.example.com", "https://localhost.example.com"),
        ("localhost:5000", "http://localhost:5000"),
        ("127.0.0.2", "http://127.0.0.2"),
        ("[::1]:5000", "http://[::1]:5000"),
    ],
)
def test_plain_http_is_for_this_machine_only(host: str, base: str) -> None:
    reference = Reference.parse(Location.parse(f"oci://{host}/team/churn:1"))
    assert str(reference.manifest()) == f"{base}/v2/team/churn/manifests/1"
    assert str(reference.blob(DIGEST)) == f"{base}/v2/team/churn/blobs/{DIGEST}"


def test_loopback_is_judged_by_the_whole_name() -> None:
    assert not is_loopback("127.0.0.1.example.com")


def test_the_list_of_hosts_names_the_registry(tmp_path: Path) -> None:
    with registry() as remote:
        with pytest.raises(FetchRefused, match="does not name the host"):
            get(remote.reference(), tmp_path, hosts=("registry.example.com",))
        assert remote.server.requests == []


def test_metadata_addresses_are_never_talked_to(tmp_path: Path) -> None:
    with pytest.raises(FetchRefused, match="link-local or metadata"):
        get("oci://169.254.169.254/a:1", tmp_path)


# ---------------------------------------------------------------- manifests


@pytest.mark.parametrize("digest", [DIGEST, None])
def test_another_manifest_than_the_digest_names_is_refused(
    digest: str | None, tmp_path: Path
) -> None:
    with registry() as remote:
        uri = remote.reference(f"@{sha256(remote.manifest)}")
        other = manifest(layer(), annotations={"a": "b"})
        serves = Registry(manifest=other)
        remote.server.answers = [whole(serves.manifest, Content_Type=MANIFEST)]
        with pytest.raises(DigestMismatch, match="the manifest is sha256:"):
            get(uri, tmp_path, digest)
        assert len(remote.server.requests) == 1


@pytest.mark.parametrize(
    "document",
    [
        manifest(layer(), mediaType=INDEX),
        manifest(layer(), manifests=[]),
        json.dumps({"schemaVersion": 2, "manifests": [{"digest": DIGEST}]}).encode(),
    ],
)
def test_an_index_is_refused_with_the_fix(document: bytes, tmp_path: Path) -> None:
    with (
        registry(manifest=document) as remote,
        pytest.raises(FetchRefused, match="index of several manifests; give the digest"),
    ):
        get(remote.reference(), tmp_path)


@pytest.mark.parametrize(
    ("document", "error", "said"),
    [
        (b"{", SourceError, "cannot be read"),
        (b"[" * 100_000, SourceError, "cannot be read"),
        (b"[]", SourceError, "cannot be read"),
        (manifest(layer(), mediaType="application/json"), FetchRefused, "no OCI image manifest"),
        (manifest(), FetchRefused, "has 0 layers"),
        (manifest(layers={}), FetchRefused, "has 0 layers"),
        (manifest("x"), SourceError, "lacks mediaType"),
        (manifest(layer(digest="sha256:../../x")), SourceError, "lacks mediaType"),
        (manifest(layer(digest=f"sha512:{'0' * 128}")), SourceError, "lacks mediaType"),
        (manifest(layer(size=-1)), SourceError, "lacks mediaType"),
        (manifest(layer(size=True)), SourceError, "lacks mediaType"),
        (manifest(layer(mediaType=None)), SourceError, "lacks mediaType"),
        (manifest(layer(), layer()), FetchRefused, "2 layers of weights; push one model"),
        (manifest(layer("a/b"), layer("a/c")), FetchRefused, "2 layers and none of them"),
        (manifest(layer(size=11 << 20)), DigestMismatch, "not the 11534336"),
    ],
)
def test_a_manifest_without_one_model_is_refused(
    document: bytes, error: type[Exception], said: str, tmp_path: Path
) -> None:
    with registry(manifest=document) as remote, pytest.raises(error, match=said):
        get(remote.reference(), tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "layers",
    [
        [layer("application/vnd.cncf.model.doc.v1.tar", digest=sha256(b"doc")), layer()],
        [layer(f"{WEIGHT[:-7]}.config.v1.raw", digest=sha256(b"config")), layer()],
        [layer("application/octet-stream")],
        [layer("application/vnd.example.tarot")],
    ],
)
def test_the_weights_are_chosen(layers: list[Any], tmp_path: Path) -> None:
    with registry(manifest=manifest(*layers)) as remote:
        assert get(remote.reference(), tmp_path).digest == DIGEST


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.cncf.model.weight.v1.tar",
        "application/vnd.cncf.model.weight.v1.tar+gzip",
        "application/vnd.cncf.model.weight.v1.tar+zstd",
        "application/vnd.cncf.model.weight.v1.raw+gzip",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/x-tar",
    ],
)
def test_a_packed_model_is_refused_with_the_fix(media_type: str, tmp_path: Path) -> None:
    with registry(manifest=manifest(layer(media_type))) as remote:
        with pytest.raises(FetchRefused, match=f"push the weights raw: {WEIGHT}"):
            get(remote.reference(), tmp_path)
        assert remote.asked("/blobs/") == []


@pytest.mark.parametrize("answer", [endless, whole(manifest(layer()) + b" " * MAX_MANIFEST_BYTES)])
def test_a_manifest_without_end_is_cut(answer: Answer, tmp_path: Path) -> None:
    with (
        serving(answer) as server,
        pytest.raises(FetchRefused, match="manifest: larger than 4194304 bytes"),
    ):
        get(f"{server.url.replace('http', 'oci', 1)}/a:1", tmp_path)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with registry() as remote:
        with pytest.raises(SourceError, match="answered 404; check the path") as caught:
            get(remote.reference(":none"), tmp_path)
        assert len(remote.server.requests) == 1
    assert "secret" not in str(caught.value)


# ---------------------------------------------------------------- blobs


def test_another_model_than_wanted_is_refused_before_it_is_downloaded(tmp_path: Path) -> None:
    with registry() as remote:
        with pytest.raises(DigestMismatch, match=f"the file is {DIGEST}, not sha256:0"):
            get(remote.reference(), tmp_path, f"sha256:{'0' * 64}")
        assert remote.asked("/blobs/") == []
    assert names(tmp_path) == []


@pytest.mark.parametrize("digest", [DIGEST, None])
@pytest.mark.parametrize("body", [b"x" * len(BODY), BODY[:-1], BODY + b"x"])
def test_other_bytes_are_refused_and_nothing_is_left(
    body: bytes, digest: str | None, tmp_path: Path
) -> None:
    with registry(blob=[whole(body)]) as remote, pytest.raises(DigestMismatch):
        get(remote.reference(), tmp_path, digest)
    assert names(tmp_path) == []


def test_a_model_too_large_is_refused_unread(tmp_path: Path) -> None:
    with registry() as remote, pytest.raises(FetchRefused, match="larger than the 1000 bytes"):
        get(remote.reference(), tmp_path, max_bytes=1000)
    assert names(tmp_path) == []


def test_an_endless_blob_is_cut(tmp_path: Path) -> None:
    with registry(blob=[endless]) as remote, pytest.raises(FetchRefused, match="larger"):
        get(remote.reference(), tmp_path, max_bytes=1 << 20)
    assert names(tmp_path) == []


@pytest.mark.parametrize("etag", ['"v1"', None])
@pytest.mark.parametrize("digest", [DIGEST, None])
def test_a_broken_download_goes_on_where_it_stopped(
    digest: str | None, etag: str | None, tmp_path: Path
) -> None:
    with registry(blob=[broken(BODY, 300_000, etag), ranged(BODY, etag)]) as remote:
        assert get(remote.reference(), tmp_path, digest).path.read_bytes() == BODY
        assert [each.get("range") for each in remote.asked("/blobs/")] == [None, "bytes=300000-"]
        assert len(remote.asked("/manifests/")) == 1


def test_a_download_of_a_dead_worker_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with registry(blob=[broken(BODY, 300_000), status(503)]) as remote:
        with pytest.raises(FetchFailed, match="answered 503"):
            get(remote.reference(), tmp_path)
        remote.server.requests.clear()
        remote.blob = [ranged(BODY)]
        assert get(remote.reference(), tmp_path).path.read_bytes() == BODY
        assert [each["range"] for each in remote.asked("/blobs/")] == ["bytes=300000-"]


@pytest.mark.parametrize(
    "then",
    [
        pytest.param([whole(BODY)], id="no-ranges"),
        pytest.param([status(416), whole(BODY)], id="ranges-refused"),
        pytest.param([status(206, b"x", Content_Range="bytes 1-1/2"), whole(BODY)], id="other"),
    ],
)
def test_a_download_that_cannot_go_on_begins_again(then: list[Answer], tmp_path: Path) -> None:
    with registry(blob=[broken(BODY, 300_000), *then]) as remote:
        assert get(remote.reference(), tmp_path).path.read_bytes() == BODY


def test_a_tag_that_moved_meanwhile_begins_again(tmp_path: Path) -> None:
    old = b"old" * 200_000
    before = manifest(layer(digest=sha256(old), size=len(old)))
    with registry(manifest=before) as remote:
        blob = f"/v2/{REPOSITORY}/blobs/{sha256(old)}"

        def answer(handler: BaseHTTPRequestHandler) -> None:
            asked = [each[":path"] for each in remote.server.requests].count(blob)
            if handler.path == blob:
                return (broken(old, 300_000) if asked == 1 else status(503))(handler)
            return remote(handler)

        remote.server.answers = [answer]
        with pytest.raises(FetchFailed):
            get(remote.reference(), tmp_path, None)
        assert any(name.endswith(".part") for name in names(tmp_path))
        remote.manifest = manifest(layer())
        assert get(remote.reference(), tmp_path, None).path.read_bytes() == BODY
        assert "range" not in remote.asked(DIGEST)[0]


# ---------------------------------------------------------------- redirects


def test_a_redirect_to_another_host_is_refused_with_the_fix(tmp_path: Path) -> None:
    with serving(whole(BODY)) as store:
        with registry(blob=[redirect(f"{store.url}/blob?signature=abc")]) as remote:
            with pytest.raises(FetchRefused, match=r"another host, 127\.0\.0\.1; no other") as no:
                get(remote.reference(), tmp_path)
            elsewhere = store.url.replace("127.0.0.1", "localhost")
            remote.blob = [redirect(f"{elsewhere}/blob?signature=abc")]
            with pytest.raises(FetchRefused, match=r"localhost; add it to the allowed") as other:
                get(remote.reference(), tmp_path, hosts=("127.0.0.1",))
        assert store.requests == []
    for caught in (no, other):
        assert "abc" not in str(caught.value)
        assert caught.value.reason == "FetchRefused"


def test_a_redirect_to_a_host_that_is_allowed_is_followed_without_the_token(tmp_path: Path) -> None:
    with serving(broken(BODY, 300_000), ranged(BODY)) as store:
        elsewhere = f"{store.url.replace('127.0.0.1', 'localhost')}/blob?signature=abc"
        with registry(blob=[redirect(elsewhere, 307)], challenge=BEARER) as remote:
            hosts = ("127.0.0.1", "localhost")
            assert get(remote.reference(), tmp_path, hosts=hosts).path.read_bytes() == BODY
            assert remote.asked("/blobs/")[0]["authorization"] == f"Bearer {TOKEN}"
        assert all("authorization" not in request for request in store.requests)
        assert [request.get("range") for request in store.requests] == [None, "bytes=300000-"]
        assert store.requests[0][":path"] == "/blob?signature=abc"


def test_a_store_cannot_ask_for_the_credentials(tmp_path: Path) -> None:
    folder = secret(tmp_path / "secret", username="me", password="pw")
    with registry(login="Basic bWU6cHc=") as thief:
        challenge = f'Bearer realm="{thief.server.url}/token",service="x"'
        with serving(status(401, WWW_Authenticate=challenge)) as store:
            elsewhere = f"{store.url.replace('127.0.0.1', 'localhost')}/blob"
            with (
                registry(blob=[redirect(elsewhere)]) as remote,
                pytest.raises(SourceError, match="answered 401"),
            ):
                get(
                    remote.reference(),
                    tmp_path / "models",
                    credentials=folder,
                    hosts=("127.0.0.1", "localhost"),
                )
            assert len(store.requests) == 1
        assert thief.server.requests == []


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("http://store.example.com/b", "without TLS"),
        ("ftp://store.example.com/b", "without TLS"),
        ("https://169.254.169.254/b", "link-local or metadata"),
    ],
)
def test_a_redirect_is_held_to_the_rules(target: str, said: str, tmp_path: Path) -> None:
    hosts = ("127.0.0.1", "store.example.com", "169.254.169.254")
    with (
        registry(blob=[redirect(target)]) as remote,
        pytest.raises(FetchRefused, match=said),
    ):
        get(remote.reference(), tmp_path, hosts=hosts)


def test_a_store_that_redirects_on_is_not_followed(tmp_path: Path) -> None:
    with serving(whole(BODY)) as last, serving(redirect(f"{last.url}/b")) as store:
        elsewhere = f"{store.url.replace('127.0.0.1', 'localhost')}/b"
        with (
            registry(blob=[redirect(elsewhere)]) as remote,
            pytest.raises(FetchRefused, match="redirects to another host are not followed"),
        ):
            get(remote.reference(), tmp_path, hosts=("127.0.0.1", "localhost"))
        assert last.requests == []


def test_a_manifest_elsewhere_is_not_followed(tmp_path: Path) -> None:
    with serving(whole(manifest(layer()))) as other:
        with (
            serving(redirect(f"{other.url}/m")) as server,
            pytest.raises(FetchRefused, match="redirects to another host are not followed"),
        ):
            get(f"{server.url.replace('http', 'oci', 1)}/a:1", tmp_path, hosts=("127.0.0.1",))
        assert other.requests == []


# ---------------------------------------------------------------- tokens


def test_an_anonymous_token_is_asked_for_once(tmp_path: Path) -> None:
    with registry(challenge=BEARER) as remote:
        assert get(remote.reference(), tmp_path).digest == DIGEST
        assert "authorization" not in remote.server.requests[0]
        (asked,) = remote.asked("/token")
        assert parse_qs(urlsplit(asked[":path"]).query) == {
            "service": ["registry"],
            "scope": ["repository:team/churn:pull"],
        }
        assert "authorization" not in asked


@pytest.mark.parametrize(
    "challenge",
    [
        BEARER,
        'bearer realm="{url}/token", service=registry',
        'Bearer realm="{url}/token?a=b"',
        f'{BEARER}, Basic realm="other"',
    ],
)
@pytest.mark.parametrize("grants", [{"token": TOKEN}, {"access_token": TOKEN, "expires_in": 60}])
def test_the_secret_is_shown_to_the_token_service_only(
    challenge: str, grants: dict[str, Any], tmp_path: Path
) -> None:
    folder = secret(tmp_path / "secret", username="me", password="pw")
    login = f"Basic {base64.b64encode(b'me:pw').decode()}"
    with registry(challenge=challenge, login=login, grants=grants) as remote:
        get(remote.reference(), tmp_path / "models", credentials=folder)
        (asked,) = remote.asked("/token")
        assert "repository:team/churn:pull" in parse_qs(urlsplit(asked[":path"]).query)["scope"]
        shown = [each.get("authorization") for each in remote.asked("/v2/")]
        assert shown == [None, f"Bearer {TOKEN}", f"Bearer {TOKEN}"]


def test_a_registry_may_ask_for_the_secret_itself(tmp_path: Path) -> None:
    folder = secret(tmp_path / "secret", username="me", password="pw")
    with registry(challenge='Basic realm="x"', accepts="Basic bWU6cHc=") as remote:
        assert get(remote.reference(), tmp_path / "models", credentials=folder).digest == DIGEST


def test_a_token_of_the_secret_is_shown_to_the_registry(tmp_path: Path) -> None:
    folder = secret(tmp_path / "secret", token="ours")
    with registry(challenge=BEARER, accepts="Bearer ours") as remote:
        assert get(remote.reference(), tmp_path / "models", credentials=folder).digest == DIGEST
        assert remote.asked("/token") == []


def test_a_token_that_ran_out_is_renewed(tmp_path: Path) -> None:
    with registry(challenge=BEARER) as remote:

        def changed(handler: BaseHTTPRequestHandler) -> None:
            remote.accepts, remote.grants = "Bearer second", {"token": "second"}
            broken(BODY, 300_000)(handler)

        remote.blob = [changed, ranged(BODY)]
        assert get(remote.reference(), tmp_path).path.read_bytes() == BODY
        assert len(remote.asked("/token")) == 2


def test_a_token_of_another_scope_does_not_help(tmp_path: Path) -> None:
    with registry(challenge=BEARER, grants={"token": "for-another-scope"}) as remote:
        with pytest.raises(SourceError, match="answered 401") as caught:
            get(remote.reference(), tmp_path)
        assert len(remote.asked("/manifests/")) == 2
        assert len(remote.asked("/token")) == 1
    assert "for-another-scope" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_wrong_credentials_are_said(tmp_path: Path) -> None:
    folder = secret(tmp_path / "secret", username="me", password="wrong")
    with registry(challenge=BEARER, login="Basic bWU6cHc=") as remote:
        with pytest.raises(SourceError, match="token service: the server answered 401") as caught:
            get(remote.reference(), tmp_path / "models", credentials=folder)
        assert len(remote.asked("/token")) == 1
    for word in ("secret", "wrong", "scope"):
        assert word not in str(caught.value)


@pytest.mark.parametrize(
    "grants", [{}, {"token": 1}, {"token": "a\r\nX: y"}, {"token": "ä"}, [TOKEN], {"token": ""}]
)
def test_an_unreadable_token_is_said(grants: Any, tmp_path: Path) -> None:
    with (
        registry(challenge=BEARER, grants=grants) as remote,
        pytest.raises(SourceError, match="gives no token we can read"),
    ):
        get(remote.reference(), tmp_path)


@pytest.mark.parametrize(
    ("realm", "error", "said"),
    [
        ("http://auth.example.com/token", FetchRefused, "without TLS"),
        ("ftp://auth.example.com/token", FetchRefused, "without TLS"),
        ("https://auth.example.com/token", FetchRefused, "does not name the host auth.example.com"),
        ("https://169.254.169.254/token", FetchRefused, "does not name the host"),
        ("/token", SourceError, "no token service"),
        ("", SourceError, "no token service"),
        ("http://[::1", SourceError, "no token service"),
    ],
)
def test_a_foreign_token_service_is_refused(
    realm: str, error: type[Exception], said: str, tmp_path: Path
) -> None:
    folder = secret(tmp_path / "secret", username="me", password="pw")
    with (
        registry(challenge=f'Bearer realm="{realm}",service="x"') as remote,
        pytest.raises(error, match=said),
    ):
        get(remote.reference(), tmp_path / "models", credentials=folder, hosts=("127.0.0.1",))


def test_a_token_service_that_redirects_away_gets_nowhere(tmp_path: Path) -> None:
    folder = secret(tmp_path / "secret", username="me", password="pw")
    with serving(whole(b"{}")) as thief, serving(redirect(f"{thief.url}/token")) as service:
        with (
            registry(challenge=f'Bearer realm="{service.url}/token"') as remote,
            pytest.raises(FetchRefused, match="redirects to another host are not followed"),
        ):
            get(remote.reference(), tmp_path / "models", credentials=folder, hosts=("127.0.0.1",))
        assert thief.requests == []
