"""Tables over HTTP, read by ranges."""

from __future__ import annotations

import io
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from fourways_api import BatchSource, Contract
from fourways_api.runtime_config import FetchPolicy, Paths
from fourways_runtime.errors import FetchFailed, FetchRefused, SourceError
from fourways_runtime.io.fetch.filesystems import filesystem as open_filesystem
from fourways_runtime.io.sources import open_table
from tests.kit.fetch_servers import broken, ranged, redirect, serving, status, whole
from tests.kit.secret_files import secret_folder

TABLE = pa.table({"id": list(range(1000)), "x": [float(n) for n in range(1000)]})

CONTRACT = Contract.model_validate(
    {
        "entityKey": {"name": "id", "type": "int64"},
        "inputs": [{"name": "x", "type": "float64"}],
        "outputs": [{"name": "y", "type": "float64"}],
    }
)


def _parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(TABLE, buffer)
    return buffer.getvalue()


BODY = _parquet()


def read(url: str, **settings: Any) -> pa.Table:
    filesystem, path = open_filesystem(
        url,
        credentials=None,
        policy=FetchPolicy(**({"timeout_seconds": 5.0} | settings)),
        paths=Paths(),
        sleep=lambda _: None,
    )
    return pq.read_table(path, filesystem=pafs.PyFileSystem(pafs.FSSpecHandler(filesystem)))


def test_a_table_is_read_by_ranges() -> None:
    with serving(ranged(BODY)) as server:
        assert read(f"{server.url}/data/t.parquet?sig=x").equals(TABLE)
        assert all("range" in request for request in server.requests)


def test_a_range_that_breaks_is_asked_for_again() -> None:
    with serving(status(503), ranged(BODY)) as server:
        assert read(f"{server.url}/t.parquet").equals(TABLE)


@pytest.mark.parametrize("answer", [whole(BODY), broken(BODY, 10)])
def test_a_server_without_ranges_is_told_of(answer: Any) -> None:
    with (
        serving(answer) as server,
        pytest.raises(SourceError, match="does not support range requests"),
    ):
        read(f"{server.url}/t.parquet")


def test_a_table_that_changes_meanwhile_is_no_table() -> None:
    with (
        serving(ranged(BODY, '"v1"'), ranged(BODY, '"v2"')) as server,
        pytest.raises(SourceError, match="changed while it was read"),
    ):
        read(f"{server.url}/t.parquet")


def test_the_policy_holds_for_tables() -> None:
    with serving(redirect("http://169.254.169.254/t")) as server:
        with pytest.raises(FetchRefused, match="redirect"):
            read(f"{server.url}/t.parquet")
        with pytest.raises(FetchRefused, match="does not allow the host"):
            read(f"{server.url}/t.parquet", hosts=("example.com",))
    with pytest.raises(FetchRefused, match="registry"):
        read("oci://example.com/t:1")


def test_a_refused_login_is_named_and_a_rotated_secret_read_again(tmp_path: Path) -> None:
    secret = secret_folder(tmp_path / "web", token="old")
    valid = ["old"]

    def answer(handler: BaseHTTPRequestHandler) -> None:
        good = handler.headers.get("Authorization") == f"Bearer {valid[0]}"
        (ranged(BODY) if good else status(401))(handler)

    with serving(answer) as server:
        told = {"uri": f"{server.url}/t.parquet", "credentials": {"secretName": "web"}}
        table = open_table(
            BatchSource.model_validate(told),
            CONTRACT,
            policy=FetchPolicy(timeout_seconds=5.0),
            paths=Paths(secrets_root=str(tmp_path)),
        )
        (split,) = table.splits(10_000)
        valid[0] = "newer"
        with pytest.raises(FetchFailed, match="refuses the login in the Secret web"):
            list(table.read(split))
        (secret / "token").write_text("newer")
        assert sum(chunk.batch.num_rows for chunk in table.read(split)) == TABLE.num_rows
