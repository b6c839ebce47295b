"""Files and claims: what is a file, what only looks like one, and what leaves its folder."""

from __future__ import annotations

import hashlib
import os
import re
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fourways_api.installing import install_command
from fourways_api.runtime_config import MODEL_IMAGE_SCHEME, FetchPolicy, Paths
from fourways_runtime.beneath import open_model_file
from fourways_runtime.errors import (
    ConfigError,
    DigestMismatch,
    FetchFailed,
    FetchRefused,
    SourceError,
    Unavailable,
    WorkloadError,
)
from fourways_runtime.io import fetch as fetching
from fourways_runtime.io.fetch.filesystems import filesystem as open_filesystem
from tests.kit.secret_files import secret_folder

BODY = b"model" * 1000
DIGEST = f"sha256:{hashlib.sha256(BODY).hexdigest()}"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    claim = tmp_path / "volumes" / "models"
    (claim / "sub").mkdir(parents=True)
    (claim / "m.onnx").write_bytes(BODY)
    (claim / "sub" / "m v1.onnx").write_bytes(BODY)
    (tmp_path / "volumes" / "other").mkdir()
    (tmp_path / "volumes" / "other" / "m.onnx").write_bytes(b"other's")
    return Paths(volumes_root=str(tmp_path / "volumes"))


def get(uri: str, paths: Paths, into: Path, **settings: Any) -> fetching.Fetched:
    arguments: dict[str, Any] = {"digest": DIGEST, "max_bytes": 1 << 20, "policy": FetchPolicy()}
    return fetching.fetch(
        uri, into=into, paths=paths, sleep=lambda _: None, **(arguments | settings)
    )


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("path", ["m.onnx", "sub/m%20v1.onnx", "./sub//m%20v1.onnx"])
def test_a_file_on_a_claim_is_copied_and_verified(path: str, paths: Paths, tmp_path: Path) -> None:
    fetched = get(f"pvc://models/{path}", paths, tmp_path / "cache")
    assert fetched.path.read_bytes() == BODY
    assert fetched.path.parent == tmp_path / "cache"


def test_a_file_on_this_host_is_copied_and_verified(paths: Paths, tmp_path: Path) -> None:
    uri = f"file://{paths.volumes_root}/models/m.onnx"
    assert get(uri, paths, tmp_path / "cache").size == len(BODY)


@pytest.mark.parametrize(
    "uri",
    [
        "pvc://models/../other/m.onnx",
        "pvc://models/sub/%2e%2e/%2e%2e/other/m.onnx",
        "pvc://../etc/passwd",
        "pvc:///models/m.onnx",
        "pvc://models/m.onnx%00.txt",
        "file://example.com/etc/passwd",
        "file:///tmp/../etc/passwd",
    ],
)
def test_no_name_leaves_its_folder(uri: str, paths: Paths, tmp_path: Path) -> None:
    with pytest.raises(FetchRefused):
        get(uri, paths, tmp_path / "cache", digest=None)


def test_a_name_is_decoded_once(paths: Paths, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        get("pvc://models/%252e%252e/other/m.onnx", paths, tmp_path / "cache", digest=None)


@pytest.mark.parametrize("kind", ["file", "folder", "absolute", "dangling", "inside"])
def test_no_link_is_followed(kind: str, paths: Paths, tmp_path: Path) -> None:
    claim = tmp_path / "volumes" / "models"
    target, uri = {
        "file": ("../other/m.onnx", "link"),
        "folder": ("../other", "link/m.onnx"),
        "absolute": ("/etc", "link/passwd"),
        "dangling": ("nowhere", "link"),
        "inside": ("m.onnx", "link"),
    }[kind]
    (claim / "link").symlink_to(target)
    with pytest.raises(FetchRefused, match="'link' is a link"):
        get(f"pvc://models/{uri}", paths, tmp_path / "cache", digest=None)


def test_a_file_of_two_names_is_refused(paths: Paths, tmp_path: Path) -> None:
    claim = tmp_path / "volumes" / "models"
    os.link(tmp_path / "volumes" / "other" / "m.onnx", claim / "hard")
    with pytest.raises(FetchRefused, match="2 hard links"):
        get("pvc://models/hard", paths, tmp_path / "cache", digest=None)


def test_a_file_of_one_s_own_may_have_two_names(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uv makes hard links of the files in its cache; only a claim is shared with others."""
    linked = tmp_path / "linked.onnx"
    os.link(tmp_path / "volumes" / "models" / "m.onnx", linked)
    assert get(f"file://{linked}", paths, tmp_path / "cache").path.read_bytes() == BODY
    monkeypatch.setattr(os, "geteuid", lambda: linked.stat().st_uid + 1)
    with pytest.raises(FetchRefused, match="2 hard links"):
        open_model_file(tmp_path, (linked.name,), linked.name, own=True)


def test_a_fifo_is_refused_at_once(paths: Paths, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "volumes" / "models" / "fifo")
    with pytest.raises(FetchRefused, match="no regular file"):
        get("pvc://models/fifo", paths, tmp_path / "cache", digest=None)


def test_a_device_is_refused(paths: Paths, tmp_path: Path) -> None:
    with pytest.raises(FetchRefused, match="no regular file"):
        get("file:///dev/zero", paths, tmp_path / "cache", digest=None)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("pvc://models/none.onnx", "'none.onnx': no such file"),
        ("pvc://missing/m.onnx", "'missing': no such file"),
        ("pvc://models/sub", "is a folder"),
        ("pvc://models/m.onnx/deeper", "'m.onnx': not a directory"),
    ],
)
def test_what_is_not_there_is_said(uri: str, said: str, paths: Paths, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=said):
        get(uri, paths, tmp_path / "cache")


def test_size_and_digest_hold_for_local_files_too(paths: Paths, tmp_path: Path) -> None:
    with pytest.raises(FetchRefused, match="larger than the 10 bytes"):
        get("pvc://models/m.onnx", paths, tmp_path / "cache", max_bytes=10)
    with pytest.raises(DigestMismatch):
        get("pvc://models/m.onnx", paths, tmp_path / "cache", digest=f"sha256:{'0' * 64}")
    assert names(tmp_path / "cache") == []


def test_an_empty_file_is_a_file(paths: Paths, tmp_path: Path) -> None:
    (tmp_path / "volumes" / "models" / "empty").touch()
    assert get("pvc://models/empty", paths, tmp_path / "cache", digest=None).size == 0


@contextmanager
def full_after(size: int) -> Iterator[None]:
    """A disk on which no file grows past ``size`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_no_half_file(paths: Paths, tmp_path: Path) -> None:
    big = tmp_path / "volumes" / "models" / "big"
    big.write_bytes(b"x" * 3_000_000)
    with full_after(1_500_000), pytest.raises(FetchFailed, match="folder cannot be written"):
        get("pvc://models/big", paths, tmp_path / "cache", digest=None, max_bytes=1 << 30)
    assert names(tmp_path / "cache") == []
    fetched = get("pvc://models/big", paths, tmp_path / "cache", digest=None, max_bytes=1 << 30)
    assert fetched.size == 3_000_000


def test_a_folder_of_somebody_else_is_not_used(paths: Paths, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigError, match="belongs to another user"):
        get("pvc://models/m.onnx", paths, tmp_path / "cache")


def test_a_folder_open_to_others_is_closed(paths: Paths, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o777)
    get("pvc://models/m.onnx", paths, tmp_path / "cache")
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


def test_time_that_runs_out_ends_a_copy(paths: Paths, tmp_path: Path) -> None:
    times = iter(range(0, 10_000, 400))
    with pytest.raises(FetchFailed, match="longer than 600 s"):
        get("pvc://models/m.onnx", paths, tmp_path / "cache", clock=lambda: float(next(times)))
    assert names(tmp_path / "cache") == []


def test_a_file_in_a_mounted_image_is_read_by_workers_that_have_one(
    paths: Paths, tmp_path: Path
) -> None:
    (tmp_path / "image" / "models").mkdir(parents=True)
    (tmp_path / "image" / "models" / "m.onnx").write_bytes(BODY)
    mounted = paths.model_copy(update={"model_image_dir": str(tmp_path / "image")})
    policy = FetchPolicy(schemes=("https", MODEL_IMAGE_SCHEME))
    uri = "image:///models/m.onnx"
    assert get(uri, mounted, tmp_path / "cache", policy=policy).path.read_bytes() == BODY
    assert fetching.resolve(uri, mounted) == tmp_path / "image" / "models" / "m.onnx"
    with pytest.raises(FetchRefused, match="the policy allows"):
        get(uri, mounted, tmp_path / "other")
    with pytest.raises(SourceError, match="'none'"):
        get("image:///none", mounted, tmp_path / "other", policy=policy)


def test_a_secret_not_mounted_yet_is_waited_for(paths: Paths, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="the Secret none cannot be read"):
        get("http://127.0.0.1/m", paths, tmp_path / "cache", credentials=tmp_path / "none")


def test_half_a_secret_is_a_mistake(paths: Paths, tmp_path: Path) -> None:
    secret_folder(tmp_path / "secret")
    (tmp_path / "secret" / "username").write_text("me")
    with pytest.raises(ConfigError, match="both username and password"):
        get("http://127.0.0.1/m", paths, tmp_path / "cache", credentials=tmp_path / "secret")


@pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs"), ("az", "adlfs")])
def test_a_missing_extra_is_named(
    scheme: str, package: str, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=re.escape(install_command(scheme))):
        get(f"{scheme}://bucket/m", paths, tmp_path / "cache")


# ---------------------------------------------------------------- resolve and filesystem


def test_resolve_names_the_local_file(paths: Paths) -> None:
    found = fetching.resolve("pvc://models/sub/m%20v1.onnx", paths)
    assert found == Path(paths.volumes_root) / "models" / "sub" / "m v1.onnx"
    assert fetching.resolve("https://example.com/m", paths) is None


@pytest.mark.parametrize("uri", ["pvc://models/none", "pvc://models/../other/m.onnx"])
def test_resolve_refuses_what_fetch_refuses(uri: str, paths: Paths) -> None:
    with pytest.raises(WorkloadError):
        fetching.resolve(uri, paths)


def test_a_table_on_a_claim_is_read_in_place(paths: Paths, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.dataset as ds
    import pyarrow.fs as pafs
    import pyarrow.parquet as pq

    table = pa.table({"id": [1, 2, 3]})
    folder = tmp_path / "volumes" / "models" / "table"
    folder.mkdir()
    pq.write_table(table, folder / "a.parquet")
    pq.write_table(table, folder / "b.parquet")
    (folder / "c.parquet").symlink_to("a.parquet")
    filesystem, path = open_filesystem(
        "pvc://models/table", credentials=None, policy=FetchPolicy(), paths=paths
    )
    arrow = pafs.PyFileSystem(pafs.FSSpecHandler(filesystem))
    assert ds.dataset(path, filesystem=arrow).count_rows() == 6
    assert pq.read_table(f"{path}/a.parquet", filesystem=arrow).equals(table)
    with pytest.raises(FetchRefused, match="is a link"):
        filesystem.open(f"{path}/c.parquet")
    with pytest.raises(FetchRefused, match="leaves"):
        filesystem.open("table/../../other/m.onnx")
