"""`fourways push`: logins, the registry's answers, and the text of the manifest."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from fourways_cli.artifacts.errors import NotEdited, PushFailed
from fourways_cli.artifacts.logins import login_of
from fourways_cli.artifacts.manifest_edit import set_model, with_model
from fourways_cli.artifacts.registry import push_model
from fourways_cli.main import app
from fourways_runtime.io.fetch.oci import model_layer
from tests.kit.cli import CliRunner

URI = "oci://registry.example/team/churn:1"
DIGEST = "sha256:" + "a" * 64


class Registry:
    """A registry in memory that asks for tokens of a service of its own."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        self.realm = "https://tokens.example/token"
        self.upload = "/v2/team/churn/blobs/uploads/7?state=s"
        self.accepts = base64.b64encode(b"me:secret").decode()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path, method = request.url.path, request.method
        sent = request.headers.get("authorization")
        self.asked.append((method, f"{request.url.host}{path}", sent))
        if path == "/token":
            if sent != f"Basic {self.accepts}":
                return httpx.Response(401)
            assert request.url.params["scope"] == "repository:team/churn:pull,push"
            return httpx.Response(200, json={"token": "granted"})
        if sent != "Bearer granted" and request.url.host == "registry.example":
            challenge = f'Bearer realm="{self.realm}",service="r"'
            return httpx.Response(401, headers={"www-authenticate": challenge})
        if method == "HEAD":
            return httpx.Response(200 if path.rpartition("/")[2] in self.blobs else 404)
        if method == "POST":
            return httpx.Response(202, headers={"location": self.upload})
        if "/blobs/uploads/" in path:
            assert request.url.params["state"] == "s"
            self.blobs[request.url.params["digest"]] = request.read()
            return httpx.Response(201)
        self.manifests[path.rpartition("/")[2]] = request.read()
        return httpx.Response(201)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"weights")
    return file


def transport(answer: Callable[[httpx.Request], httpx.Response]) -> httpx.MockTransport:
    return httpx.MockTransport(answer)


LOGIN = ("me", "secret")


def test_a_model_is_pushed_as_the_one_layer_that_the_runtime_reads(model: Path) -> None:
    registry = Registry()
    pushed = push_model(model, URI, LOGIN, transport(registry))
    assert pushed.uri == f"{URI}@{pushed.manifest}"
    assert registry.blobs[pushed.digest] == b"weights"
    manifest = json.loads(registry.manifests["1"])
    assert model_layer(manifest, "m").digest == pushed.digest
    again = push_model(model, URI, LOGIN, transport(registry))
    assert again == pushed
    assert [method for method, _, _ in registry.asked].count("POST") == 2, "two blobs, once each"


def test_a_wrong_login_is_told_with_what_to_do(model: Path) -> None:
    for login in (None, ("me", "wrong")):
        with pytest.raises(PushFailed, match=r"tokens\.example refuses a token .*docker login"):
            push_model(model, URI, login, transport(Registry()))


def test_credentials_go_to_no_other_host_than_the_token_service(model: Path) -> None:
    registry = Registry()
    registry.upload = "https://elsewhere.example/v2/team/churn/blobs/uploads/7?state=s"
    push_model(model, URI, LOGIN, transport(registry))
    seen = {host.partition("/")[0]: sent for _, host, sent in registry.asked}
    assert seen["elsewhere.example"] is None


@pytest.mark.parametrize("field", ["realm", "upload"])
def test_what_a_registry_names_without_tls_is_refused(model: Path, field: str) -> None:
    registry = Registry()
    setattr(registry, field, "http://plain.example/x")
    with pytest.raises(PushFailed, match=r"plain\.example without TLS"):
        push_model(model, URI, LOGIN, transport(registry))
    assert registry.manifests == {}


def test_a_registry_s_own_words_are_kept(model: Path) -> None:
    told = {"errors": [{"code": "NAME_INVALID", "message": "no such project"}]}
    refusing = transport(lambda request: httpx.Response(404, json=told))
    with pytest.raises(PushFailed, match="HTTP 404 no such project"):
        push_model(model, URI, None, refusing)


def test_a_registry_that_does_not_answer_is_named(model: Path) -> None:
    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("[Errno 111] Connection refused")

    with pytest.raises(PushFailed) as refused:
        push_model(model, URI.replace("example", "example:5000", 1), None, transport(away))
    said = "no registry answers at registry.example:5000 (https): Connection refused; "
    assert str(refused.value) == said + "check host and port of the URI"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nosuch.onnx", URI), "does not exist"),
        (("model.onnx", "s3://bucket/x"), "write oci://HOST/REPOSITORY:TAG"),
    ],
)
def test_wrong_arguments_are_refused(
    model: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(model.parent)
    done = CliRunner().invoke(app, ["push", *arguments])
    assert (done.exit_code, words in done.stderr) == (2, True)


def test_a_reference_in_upper_case_or_with_a_digest_is_refused(model: Path) -> None:
    with pytest.raises(PushFailed, match="lower case"):
        push_model(model, "oci://registry.example/Team/churn:1")
    with pytest.raises(PushFailed, match="give a tag"):
        push_model(model, f"oci://registry.example/team/churn@{DIGEST}")


# ---------------------------------------------------------------- logins


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path / "config.json"


def test_the_login_is_docker_s(docker: Path) -> None:
    assert login_of("registry.example") is None
    entry = {"auth": base64.b64encode(b"me:se:cret").decode()}
    docker.write_text(json.dumps({"auths": {"registry.example": entry}}))
    assert login_of("registry.example") == ("me", "se:cret")
    assert login_of("other.example") is None


def test_a_credential_helper_is_asked(
    docker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = tmp_path / "docker-credential-test"
    helper.write_text(
        "#!/bin/sh\nread host\n[ $host = registry.example ] || exit 1\n"
        'echo \'{"Username": "me", "Secret": "secret"}\'\n'
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    docker.write_text(json.dumps({"credsStore": "test"}))
    assert login_of("registry.example") == ("me", "secret")
    assert login_of("other.example") is None
    docker.write_text(json.dumps({"credHelpers": {"registry.example": "../evil"}}))
    with pytest.raises(PushFailed, match="not the name of a credential helper"):
        login_of("registry.example")


def test_an_unreadable_login_shows_no_password(docker: Path) -> None:
    docker.write_text('{"auths": {"registry.example": {"auth": "secret!"}}')
    with pytest.raises(PushFailed) as refused:
        login_of("registry.example")
    assert "secret" not in str(refused.value)


# ---------------------------------------------------------------- the manifest


def test_only_uri_and_digest_change_in_a_manifest() -> None:
    text = """# Ours.
kind: ModelDeployment
metadata: {name: churn}
spec:
  model:
    # The file.
    uri: 'model.onnx'   # relative
    version: "1"
  mode: batch
---
apiVersion: v1
kind: Secret
"""
    edited = with_model(text, URI, DIGEST)
    assert edited == text.replace(
        "uri: 'model.onnx'   # relative", f"uri: {URI}   # relative\n    digest: {DIGEST}"
    )
    other = "sha256:" + "b" * 64
    assert with_model(edited, URI, other) == edited.replace(DIGEST, other)
    assert with_model("spec:\n  model:\n    uri: x", URI, DIGEST).endswith(
        f"uri: {URI}\n    digest: {DIGEST}"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: Secret\napiVersion: v1\n", "0 ModelDeployments"),
        ("spec: {model: {uri: x}}", "by hand"),
        ("spec:\n  model:\n    version: 1\n", "has no uri"),
        ("spec: [", "line 1"),
    ],
)
def test_a_manifest_that_cannot_be_edited_stays_as_it_is(
    tmp_path: Path, text: str, words: str
) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(text)
    with pytest.raises(NotEdited, match=words):
        set_model(file, URI, DIGEST)
    assert file.read_text() == text
