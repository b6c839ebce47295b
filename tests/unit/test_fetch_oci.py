"""Models from a registry that asks for tokens, points elsewhere, and says what is not so."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from fourways_runtime.errors import DigestMismatch, FetchFailed, FetchRefused, SourceError
from fourways_runtime.io.fetch import Fetched
from fourways_runtime.io.fetch.location import Location
from fourways_runtime.io.fetch.oci import MAX_MANIFEST_BYTES, Reference, is_loopback
from tests.kit.fetch_servers import (
    Answer,
    broken,
    endless,
    ranged,
    serving,
    status,
    whole,
)
from tests.kit.oci_registry import (
    BODY,
    DIGEST,
    INDEX,
    MANIFEST,
    REPOSITORY,
    WEIGHT,
    Registry,
    get,
    layer,
    manifest,
    names,
    registry,
    sha256,
)

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
        with pytest.raises(FetchRefused, match="does not allow the host"):
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
        (
            manifest(layer(), mediaType="application/json"),
            FetchRefused,
            "not an OCI image manifest",
        ),
        (manifest(), FetchRefused, "has 0 layers"),
        (manifest(layers={}), FetchRefused, "has 0 layers"),
        (manifest("x"), SourceError, "lacks mediaType"),
        (manifest(layer(digest="sha256:../../x")), SourceError, "lacks mediaType"),
        (manifest(layer(digest=f"sha512:{'0' * 128}")), SourceError, "lacks mediaType"),
        (manifest(layer(size=-1)), SourceError, "lacks mediaType"),
        (manifest(layer(size=True)), SourceError, "lacks mediaType"),
        (manifest(layer(mediaType=None)), SourceError, "lacks mediaType"),
        (manifest(layer(), layer()), FetchRefused, "2 layers that hold weights; push one model"),
        (manifest(layer("a/b"), layer("a/c")), FetchRefused, "2 layers, none of which"),
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
        with pytest.raises(FetchRefused, match=f"push the raw weights as {WEIGHT}"):
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
