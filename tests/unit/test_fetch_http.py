"""Downloads over HTTP from servers that break, lie, stall and point elsewhere."""

from __future__ import annotations

import gzip
import hashlib
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from fourways_api.runtime_config import FetchPolicy, Paths
from fourways_runtime.errors import DigestMismatch, FetchFailed, FetchRefused, SourceError
from fourways_runtime.io import fetch as fetching
from fourways_runtime.io.fetch import Fetched
from tests.kit.fetch_servers import (
    broken,
    dripping,
    dripping_header,
    endless,
    ranged,
    redirect,
    serving,
    silent,
    status,
    whole,
)
from tests.kit.secret_files import secret_folder

BODY = bytes(range(256)) * 2000
DIGEST = f"sha256:{hashlib.sha256(BODY).hexdigest()}"


def get(uri: str, into: Path, digest: str | None = DIGEST, **settings: Any) -> Fetched:
    policy = FetchPolicy(
        timeout_seconds=settings.pop("timeout", 10.0), hosts=settings.pop("hosts", ("*",))
    )
    arguments: dict[str, Any] = {"max_bytes": 10 << 20, "paths": Paths(), "sleep": lambda _: None}
    return fetching.fetch(uri, into=into, digest=digest, policy=policy, **(arguments | settings))


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_arrives_under_the_name_of_its_content(tmp_path: Path) -> None:
    with serving(whole(BODY)) as server:
        fetched = get(f"{server.url}/m.onnx", tmp_path / "models")
    assert fetched == Fetched(tmp_path / "models" / DIGEST.replace(":", "-"), DIGEST, len(BODY))
    assert fetched.path.read_bytes() == BODY
    assert names(tmp_path / "models") == [fetched.path.name]
    assert (tmp_path / "models").stat().st_mode & 0o777 == 0o700
    assert fetched.path.stat().st_mode & 0o777 == 0o400


def test_without_a_digest_the_file_tells_its_own(tmp_path: Path) -> None:
    with serving(whole(BODY)) as server:
        assert get(f"{server.url}/m", tmp_path, digest=None).digest == DIGEST


def test_a_file_already_here_is_not_fetched_again(tmp_path: Path) -> None:
    with serving(whole(BODY)) as server:
        first = get(f"{server.url}/m", tmp_path)
        assert get(f"{server.url}/m", tmp_path) == first
        assert len(server.requests) == 1


def test_a_file_that_rotted_here_is_fetched_again(tmp_path: Path) -> None:
    with serving(whole(BODY)) as server:
        path = get(f"{server.url}/m", tmp_path).path
        path.chmod(0o600)
        path.write_bytes(b"rot")
        assert get(f"{server.url}/m", tmp_path).path.read_bytes() == BODY


def test_other_bytes_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with serving(whole(b"other")) as server, pytest.raises(DigestMismatch, match="not sha256:"):
        get(f"{server.url}/m", tmp_path)
    assert names(tmp_path) == []


def test_a_broken_download_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with serving(broken(BODY, 300_000), ranged(BODY)) as server:
        assert get(f"{server.url}/m", tmp_path).path.read_bytes() == BODY
        assert server.requests[1]["range"] == "bytes=300000-"
        assert server.requests[1]["if-range"] == '"v1"'


def test_a_download_of_a_dead_worker_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with serving(broken(BODY, 300_000)) as server:
        with pytest.raises(FetchFailed, match=r"connection was lost|bytes were received"):
            get(f"{server.url}/m", tmp_path)
        asked = len(server.requests)
        server.answers = [ranged(BODY)]
        assert get(f"{server.url}/m", tmp_path).path.read_bytes() == BODY
        assert server.requests[asked]["range"].startswith("bytes=")


@pytest.mark.parametrize(
    "then",
    [
        pytest.param(whole(BODY), id="no-ranges"),
        pytest.param(ranged(BODY, '"v2"'), id="another-version"),
        pytest.param(ranged(BODY, '"v2"', heed_if_range=False), id="deaf-to-if-range"),
        pytest.param(ranged(BODY, None, heed_if_range=False), id="no-tag-any-more"),
    ],
)
def test_a_download_that_cannot_go_on_begins_again(then: Any, tmp_path: Path) -> None:
    old = b"x" * len(BODY)
    with serving(broken(old, 300_000), then) as server:
        assert get(f"{server.url}/m", tmp_path, digest=None).path.read_bytes() == BODY


def test_a_file_that_is_shorter_now_is_taken_as_it_is(tmp_path: Path) -> None:
    with serving(broken(BODY, 300_000), ranged(BODY[:5000])) as server:
        assert get(f"{server.url}/m", tmp_path, digest=None).path.read_bytes() == BODY[:5000]


def test_a_weak_tag_is_no_reason_to_go_on(tmp_path: Path) -> None:
    with serving(broken(BODY, 300_000, 'W/"v1"'), ranged(BODY)) as server:
        get(f"{server.url}/m", tmp_path)
        assert "range" not in server.requests[1]


def test_a_torn_half_from_a_crash_is_not_held_against_the_server(tmp_path: Path) -> None:
    with serving(broken(BODY, 300_000)) as server:
        with pytest.raises(FetchFailed):
            get(f"{server.url}/m", tmp_path)
        part = next(tmp_path.glob("*.part"))
        part.write_bytes(b"\0" * 300_000)
        server.answers = [ranged(BODY)]
        assert get(f"{server.url}/m", tmp_path).digest == DIGEST


def test_a_server_in_trouble_is_asked_again(tmp_path: Path) -> None:
    with serving(status(500), status(503), status(429), whole(BODY)) as server:
        assert get(f"{server.url}/m", tmp_path).digest == DIGEST
        assert len(server.requests) == 4


def test_a_server_in_lasting_trouble_is_given_up(tmp_path: Path) -> None:
    with serving(status(500, b"secret stack trace")) as server:
        with pytest.raises(FetchFailed, match="answered 500") as caught:
            get(f"{server.url}/m", tmp_path)
        assert "stack" not in str(caught.value)
        assert (caught.value.reason, caught.value.exit_code) == ("FetchFailed", 75)
        assert 2 <= len(server.requests) <= 10
    assert names(tmp_path) == []


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410])
def test_what_is_not_there_is_not_asked_for_again(code: int, tmp_path: Path) -> None:
    with serving(status(code, b"secret")) as server:
        with pytest.raises(SourceError, match=str(code)) as caught:
            get(f"{server.url}/m?signature=abc", tmp_path)
        assert len(server.requests) == 1
    assert "secret" not in str(caught.value)
    assert "abc" not in str(caught.value)


def test_a_body_longer_than_allowed_is_refused_at_its_header(tmp_path: Path) -> None:
    with serving(whole(BODY)) as server, pytest.raises(FetchRefused, match="larger than the 1000"):
        get(f"{server.url}/m", tmp_path, max_bytes=1000)
    assert names(tmp_path) == []


def test_an_endless_body_is_cut(tmp_path: Path) -> None:
    with serving(endless) as server, pytest.raises(FetchRefused, match="larger"):
        get(f"{server.url}/m", tmp_path, max_bytes=1 << 20)
    assert names(tmp_path) == []


def test_a_file_exactly_as_large_as_allowed_is_taken(tmp_path: Path) -> None:
    with serving(whole(BODY)) as server:
        assert get(f"{server.url}/m", tmp_path, max_bytes=len(BODY)).size == len(BODY)


def test_a_body_shorter_than_promised_is_no_file(tmp_path: Path) -> None:
    short = status(200, BODY[:-1], Content_Length=str(len(BODY)))
    with serving(short) as server, pytest.raises(FetchFailed):
        get(f"{server.url}/m", tmp_path, digest=None)
    assert names(tmp_path) == []


def test_a_body_longer_than_promised_is_cut_there(tmp_path: Path) -> None:
    long = status(200, BODY + b"more", Content_Length=str(len(BODY)))
    with serving(long) as server:
        assert get(f"{server.url}/m", tmp_path).digest == DIGEST


def test_a_compressed_body_is_refused_unopened(tmp_path: Path) -> None:
    bomb = whole(gzip.compress(b"\0" * 10_000_000), Content_Encoding="gzip")
    with serving(bomb) as server:
        with pytest.raises(FetchRefused, match="compressed the response"):
            get(f"{server.url}/m", tmp_path)
        assert server.requests[0]["accept-encoding"] == "identity"


@pytest.mark.parametrize("slow", [dripping, dripping_header, silent])
def test_a_slow_body_ends_with_the_time_allowed(slow: Any, tmp_path: Path) -> None:
    with serving(slow) as server, pytest.raises(FetchFailed):
        get(f"{server.url}/m", tmp_path, timeout=0.3)
    assert names(tmp_path) == []


def test_a_redirect_within_the_origin_is_followed(tmp_path: Path) -> None:
    with serving(redirect("/there?x=1"), whole(BODY)) as server:
        assert get(f"{server.url}/m", tmp_path).digest == DIGEST
        assert server.requests[1][":path"] == "/there?x=1"


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://localhost:1/m",
        "//other.example.com/m",
        "https://127.0.0.1/m",
        "file:///etc/passwd",
        "http://[::1",
    ],
)
def test_a_redirect_elsewhere_is_refused(target: str, tmp_path: Path) -> None:
    with serving(redirect(target), whole(BODY)) as server:
        with pytest.raises(FetchRefused, match="redirect"):
            get(f"{server.url}/m", tmp_path)
        assert len(server.requests) == 1


def test_redirects_in_a_circle_end(tmp_path: Path) -> None:
    with serving(redirect("/m")) as server, pytest.raises(FetchRefused, match="more than 5"):
        get(f"{server.url}/m", tmp_path)


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "[fe80::1]",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::1]",
        "[fd00:ec2::254]",
        "100.100.100.200",
        "2852039166",
        "0xa9fea9fe",
    ],
)
def test_metadata_addresses_are_never_talked_to(host: str, tmp_path: Path) -> None:
    with pytest.raises(FetchRefused, match="link-local or metadata"):
        get(f"http://{host}/m", tmp_path, timeout=1)


def test_a_name_that_leads_to_a_metadata_address_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        kind = socket.SOCK_STREAM
        return [
            (socket.AF_INET, kind, 6, "", ("127.0.0.1", port)),
            (socket.AF_INET, kind, 6, "", ("169.254.169.254", port)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(FetchRefused, match=r"models\.example\.com has a link-local"):
        get("http://models.example.com/m", tmp_path)


def test_the_list_of_hosts_is_exhaustive(tmp_path: Path) -> None:
    with serving(whole(BODY)) as server:
        with pytest.raises(FetchRefused, match="does not allow the host"):
            get(f"{server.url}/m", tmp_path, hosts=("models.example.com", "*.127.0.0.1"))
        assert server.requests == []
        assert get(f"{server.url}/m", tmp_path, hosts=("127.0.0.1",)).digest == DIGEST


def test_credentials_are_shown_and_reread(tmp_path: Path) -> None:
    secret = secret_folder(tmp_path / "secret")
    (secret / "token").write_text("one\n")
    with serving(whole(BODY)) as server:
        get(f"{server.url}/m", tmp_path / "a", credentials=secret)
        (secret / "token").unlink()
        (secret / "username").write_text("me")
        (secret / "password").write_text("pw")
        get(f"{server.url}/m", tmp_path / "b", credentials=secret)
        sent = [request["authorization"] for request in server.requests]
    assert sent == ["Bearer one", "Basic bWU6cHc="]


def test_nothing_of_the_environment_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password leaked\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with serving(whole(BODY)) as server:
        get(f"{server.url}/m", tmp_path / "models")
        assert "authorization" not in server.requests[0]


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("ftp://host/m", "is not a supported scheme"),
        ("http:///m", "names no host"),
        ("http://me:pw@host/m", "put them into a Secret"),
        ("http://host:99999999/m", "host and port"),
        ("http://host/a b", "percent-encode"),
        ("http://host/\r\nX: y", "control character"),
    ],
)
def test_a_uri_that_makes_no_sense_is_refused(uri: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(FetchRefused, match=said) as caught:
        get(uri, tmp_path)
    assert "pw" not in str(caught.value)


def test_a_scheme_the_policy_leaves_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FetchRefused, match="allows https, not http"):
        fetching.fetch(
            "http://127.0.0.1/m",
            into=tmp_path,
            digest=None,
            max_bytes=1,
            policy=FetchPolicy(schemes=("https",)),
            paths=Paths(),
        )


def test_a_port_nobody_listens_at_is_a_failure_that_may_pass(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(FetchFailed, match="does not accept connections"):
            get(f"http://127.0.0.1:{taken.getsockname()[1]}/m", tmp_path)


def test_workers_that_share_a_folder_fetch_a_file_once(tmp_path: Path) -> None:
    with serving(whole(BODY)) as server:
        found: list[Fetched] = []

        def work() -> None:
            found.append(get(f"{server.url}/m", tmp_path, sleep=time.sleep))

        workers = [threading.Thread(target=work) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert {each.digest for each in found} == {DIGEST}
        assert len(found) == 4
        assert len(server.requests) == 1
    assert names(tmp_path) == [DIGEST.replace(":", "-")]
