"""Objects and tables from a real S3 server."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from moto.core import set_initial_no_auth_action_count

from fourways_api.runtime_config import FetchPolicy, Paths
from fourways_runtime.errors import (
    ConfigError,
    DigestMismatch,
    FetchFailed,
    FetchRefused,
    SourceError,
)
from fourways_runtime.io import fetch as fetching
from fourways_runtime.io.fetch import Fetched, objects
from fourways_runtime.io.fetch.filesystems import filesystem as open_filesystem
from tests.kit.s3_rig import s3_client, s3_secret, s3_server

pytestmark = pytest.mark.embedded

BODY = bytes(range(256)) * 4000
DIGEST = f"sha256:{hashlib.sha256(BODY).hexdigest()}"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server("models") as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def client(endpoint: str) -> Any:
    made = s3_client(endpoint)
    made.put_object(Bucket="models", Key="a/m.onnx", Body=BODY)
    return made


@pytest.fixture
def secret(tmp_path: Path, endpoint: str, client: Any) -> Path:
    return s3_secret(tmp_path / "secret", endpoint)


def get(uri: str, into: Path, secret: Path | None, **settings: Any) -> Fetched:
    policy = FetchPolicy(timeout_seconds=20, hosts=settings.pop("hosts", ("*",)))
    arguments: dict[str, Any] = {"digest": DIGEST, "max_bytes": 1 << 30} | settings
    return fetching.fetch(
        uri,
        into=into,
        policy=policy,
        paths=Paths(),
        credentials=secret,
        sleep=lambda _: None,
        **arguments,
    )


def test_an_object_is_fetched_in_ranges(
    tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "CHUNK", 100_000)
    fetched = get("s3://models/a/m.onnx", tmp_path / "cache", secret)
    assert fetched.path.read_bytes() == BODY


def test_an_interrupted_object_goes_on_where_it_stopped(
    tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    monkeypatch.setattr(objects, "CHUNK", 100_000)
    starts: list[int] = []
    whole = s3fs.S3FileSystem._cat_file

    async def breaking(self: Any, path: str, start: int, end: int) -> bytes:
        starts.append(start)
        if len(starts) == 4:
            raise ConnectionResetError("peer's words")
        return bytes(await whole(self, path, start=start, end=end))

    monkeypatch.setattr(s3fs.S3FileSystem, "_cat_file", breaking)
    assert get("s3://models/a/m.onnx", tmp_path / "cache", secret).digest == DIGEST
    assert starts[:6] == [0, 100_000, 200_000, 300_000, 300_000, 400_000]


def test_an_object_that_changes_meanwhile_is_fetched_again(
    tmp_path: Path, secret: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    monkeypatch.setattr(objects, "CHUNK", 100_000)
    client.put_object(Bucket="models", Key="moving", Body=b"a" * 250_000)
    whole = s3fs.S3FileSystem._cat_file
    changed: list[bool] = []

    async def changing(self: Any, path: str, start: int, end: int) -> bytes:
        if start and not changed:
            changed.append(True)
            client.put_object(Bucket="models", Key="moving", Body=b"b" * 250_000)
        return bytes(await whole(self, path, start=start, end=end))

    monkeypatch.setattr(s3fs.S3FileSystem, "_cat_file", changing)
    fetched = get("s3://models/moving", tmp_path / "cache", secret, digest=None)
    assert fetched.path.read_bytes() == b"b" * 250_000


@pytest.mark.parametrize("uri", ["s3://models/a/none.onnx", "s3://none/m.onnx", "s3://models/a"])
def test_what_is_not_there_is_said(uri: str, tmp_path: Path, secret: Path) -> None:
    with pytest.raises(SourceError, match=r"no such object|is a folder"):
        get(uri, tmp_path / "cache", secret)
    assert list((tmp_path / "cache").iterdir()) == []


def test_wrong_keys_are_said_and_not_quoted(tmp_path: Path, secret: Path) -> None:
    (secret / "secret-access-key").write_text("hunter2")
    get_from_a_server_that_checks = set_initial_no_auth_action_count(0)(get)
    with pytest.raises(SourceError, match="access denied") as caught:
        get_from_a_server_that_checks("s3://models/a/m.onnx", tmp_path / "cache", secret)
    assert "hunter2" not in str(caught.value)


def test_keys_are_reread_after_rotation(tmp_path: Path, secret: Path, endpoint: str) -> None:
    (secret / "endpoint-url").write_text("http://127.0.0.1:1")
    with pytest.raises(FetchFailed):
        get("s3://models/a/m.onnx", tmp_path / "cache", secret)
    (secret / "endpoint-url").write_text(endpoint)
    assert get("s3://models/a/m.onnx", tmp_path / "cache", secret).digest == DIGEST


def test_digest_and_size_hold_for_objects_too(tmp_path: Path, secret: Path) -> None:
    with pytest.raises(DigestMismatch):
        get("s3://models/a/m.onnx", tmp_path / "cache", secret, digest=f"sha256:{'0' * 64}")
    with pytest.raises(FetchRefused, match="larger"):
        get("s3://models/a/m.onnx", tmp_path / "cache", secret, max_bytes=100)
    assert list((tmp_path / "cache").iterdir()) == []


def test_half_a_pair_of_keys_is_a_mistake(tmp_path: Path, secret: Path) -> None:
    (secret / "secret-access-key").unlink()
    with pytest.raises(ConfigError, match="both access-key-id and secret-access-key"):
        get("s3://models/a/m.onnx", tmp_path / "cache", secret)


@pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]", "[::ffff:a9fe:a9fe]"])
def test_an_endpoint_at_a_metadata_address_is_refused(
    host: str, tmp_path: Path, secret: Path
) -> None:
    (secret / "endpoint-url").write_text(f"http://{host}")
    with pytest.raises(FetchRefused, match="link-local or metadata"):
        get("s3://models/a/m.onnx", tmp_path / "cache", secret)


def test_an_endpoint_whose_name_leads_to_a_metadata_address_is_refused(
    tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio
    import socket

    async def resolve(self: Any, host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", port))]

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", resolve)
    (secret / "endpoint-url").write_text("http://s3.example.com")
    with pytest.raises(FetchRefused, match="link-local or metadata"):
        get("s3://models/a/m.onnx", tmp_path / "cache", secret)


def test_the_list_of_hosts_holds_for_the_endpoint(tmp_path: Path, secret: Path) -> None:
    with pytest.raises(FetchRefused, match="does not allow the host"):
        get("s3://models/a/m.onnx", tmp_path / "cache", secret, hosts=("*.amazonaws.com",))
    assert get("s3://models/a/m.onnx", tmp_path / "cache", secret, hosts=("127.0.0.1",)).size


def test_nothing_of_the_environment_is_used(
    tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert get("s3://models/a/m.onnx", tmp_path / "cache", secret).digest == DIGEST


def test_a_table_is_read_in_place(tmp_path: Path, secret: Path, client: Any) -> None:
    table = pa.table({"id": [1, 2, 3]})
    pq.write_table(table, tmp_path / "t.parquet")
    client.upload_file(str(tmp_path / "t.parquet"), "models", "tables/t.parquet")
    filesystem, path = open_filesystem(
        "s3://models/tables/t.parquet", credentials=secret, policy=FetchPolicy(), paths=Paths()
    )
    arrow = pafs.PyFileSystem(pafs.FSSpecHandler(filesystem))
    assert pq.read_table(path, filesystem=arrow).equals(table)
