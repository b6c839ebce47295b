"""Models from a registry that points elsewhere, and that asks for tokens."""

from __future__ import annotations

import base64
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from fourways_runtime.errors import FetchRefused, SourceError
from tests.kit.fetch_servers import (
    broken,
    ranged,
    redirect,
    serving,
    status,
    whole,
)
from tests.kit.oci_registry import (
    BEARER,
    BODY,
    DIGEST,
    TOKEN,
    get,
    layer,
    manifest,
    registry,
    secret,
)


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
        pytest.raises(SourceError, match="returned no valid token"),
    ):
        get(remote.reference(), tmp_path)


@pytest.mark.parametrize(
    ("realm", "error", "said"),
    [
        ("http://auth.example.com/token", FetchRefused, "without TLS"),
        ("ftp://auth.example.com/token", FetchRefused, "without TLS"),
        (
            "https://auth.example.com/token",
            FetchRefused,
            "does not allow the host auth.example.com",
        ),
        ("https://169.254.169.254/token", FetchRefused, "does not allow the host"),
        ("/token", SourceError, "no valid token service"),
        ("", SourceError, "no valid token service"),
        ("http://[::1", SourceError, "no valid token service"),
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
