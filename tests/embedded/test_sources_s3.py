"""Tables in an S3 store that has its moods: answers to try again, few requests, odd names."""

from __future__ import annotations

import gzip
import http.client
import io
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from fourways_api import BatchSource, Contract, FetchPolicy, Paths
from fourways_api.modes import Sink
from fourways_runtime.errors import ConfigError, FetchFailed, SinkUnavailable, SourceError
from fourways_runtime.io.sinks import open_sink
from fourways_runtime.io.sources import open_table
from tests.kit.s3_rig import s3_client, s3_secret, s3_server
from tests.kit.stores import predictions

pytestmark = pytest.mark.embedded

CONTRACT = Contract.model_validate(
    {
        "entityKey": {"name": "id"},
        "inputs": [{"name": "x", "type": "float64"}],
        "outputs": [{"name": "y", "type": "float64"}],
    }
)
Answer = tuple[int, str]
"""Status and code of a refusal."""


class Moody:
    """A server in front of S3 that counts requests, and answers some of them itself."""

    def __init__(self, endpoint: str) -> None:
        self.requests: Counter[str] = Counter()
        self.refuse: Callable[[str, str], Answer | None] = lambda method, path: None
        self.only: str | None = None
        """The one access key whose token has not expired."""

        upstream = urlsplit(endpoint)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self) -> None:
                outer.requests[self.command] += 1
                answer = outer.refuse(self.command, self.path)
                if outer.only and f"={outer.only}/" not in self.headers.get("Authorization", ""):
                    answer = (400, "ExpiredToken")
                if answer is None:
                    status, headers, body = self.forward()
                else:
                    status, headers = answer[0], {"Content-Type": "application/xml"}
                    body = f"<Error><Code>{answer[1]}</Code><Message>no</Message></Error>".encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if self.command != "HEAD":
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_one  # noqa: N815

            def forward(self) -> tuple[int, dict[str, str], bytes]:
                there = http.client.HTTPConnection(upstream.hostname or "", upstream.port)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                there.request(self.command, self.path, body, dict(self.headers.items()))
                answer = there.getresponse()
                body = answer.read()
                left_out = {"transfer-encoding", "connection"}
                left_out |= set() if self.command == "HEAD" else {"content-length"}
                kept = {k: v for k, v in answer.getheaders() if k.lower() not in left_out}
                there.close()
                return answer.status, kept, body

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server("tables") as endpoint:
        yield endpoint


@pytest.fixture
def store(endpoint: str, tmp_path: Path) -> Iterator[Store]:
    found = Store(endpoint, tmp_path)
    yield found
    found.moody.server.shutdown()


class Store:
    def __init__(self, endpoint: str, tmp_path: Path) -> None:
        self.client = s3_client(endpoint)
        self.moody = Moody(endpoint)
        for entry in self.client.list_objects_v2(Bucket="tables").get("Contents", []):
            self.client.delete_object(Bucket="tables", Key=entry["Key"])
        s3_secret(tmp_path / "secrets" / "s3", self.moody.url)
        self.paths = Paths(secrets_root=str(tmp_path / "secrets"))

    def put(self, key: str, ids: list[str]) -> None:
        body = io.BytesIO()
        pq.write_table(pa.table({"id": ids, "x": [1.0] * len(ids)}), body)
        self.client.put_object(Bucket="tables", Key=key, Body=body.getvalue())

    def open(self, path: str, form: str = "Parquet") -> Any:
        source = {"uri": f"s3://tables/{path}", "format": form, "credentials": {"secretName": "s3"}}
        policy = FetchPolicy(timeout_seconds=20)
        made = BatchSource.model_validate(source)
        return open_table(made, CONTRACT, policy=policy, paths=self.paths)

    def keys(self, path: str, form: str = "Parquet") -> list[str]:
        keys: list[Any] = []
        for chunk in self.open(path, form).chunks():
            keys += chunk.batch.column("id").to_pylist()
        return [key.decode() if isinstance(key, bytes) else key for key in keys]


def test_a_rotated_secret_is_read_by_a_table_that_is_open(store: Store, tmp_path: Path) -> None:
    store.put("t/1.parquet", ["a"])
    store.put("t/2.parquet", ["b"])
    table = store.open("t")
    first, second = table.splits(10)
    (chunk,) = table.read(first)
    assert chunk.batch.column("id").to_pylist() == ["a"]
    store.moody.only = "newer"
    with pytest.raises(FetchFailed, match="the session token in the Secret s3 has expired"):
        list(table.read(second))
    (tmp_path / "secrets" / "s3" / "access-key-id").write_text("newer")
    (chunk,) = table.read(second)
    assert chunk.batch.column("id").to_pylist() == ["b"]


def test_a_rotated_secret_is_read_by_a_sink_that_is_open(store: Store, tmp_path: Path) -> None:
    spec = {"files": {"uri": "s3://tables/out", "credentials": {"secretName": "s3"}}}
    policy = FetchPolicy(timeout_seconds=20)
    made = Sink.model_validate(spec)
    sink = open_sink(made, CONTRACT, "r1", policy=policy, paths=store.paths)
    sink.begin()
    store.moody.only = "newer"
    chunk = sink.chunk(0, 1)
    chunk.write(predictions(["a"]))
    with pytest.raises(SinkUnavailable, match="the session token in the Secret s3 has expired"):
        chunk.finish()
    (tmp_path / "secrets" / "s3" / "access-key-id").write_text("newer")
    chunk = sink.chunk(0, 2)
    chunk.write(predictions(["a"]))
    sink.publish({0: chunk.finish()})
    listed = store.client.list_objects_v2(Bucket="tables", Prefix="out/run=r1/part-")
    assert listed["KeyCount"] == 1


@pytest.mark.parametrize(
    "answer",
    [
        (500, "InternalError"),
        (503, "SlowDown"),
        (503, "ServiceUnavailable"),
        (429, "TooManyRequests"),
        (400, "RequestTimeout"),
    ],
)
def test_an_answer_that_may_pass_is_tried_again(store: Store, answer: Answer) -> None:
    store.put("t/a.parquet", ["a"])
    store.put("t/b.parquet", ["b"])
    refused: set[tuple[str, str]] = set()

    def once_each(method: str, path: str) -> Answer | None:
        if method == "HEAD" or (method, path) in refused:
            return None
        refused.add((method, path))
        return answer

    store.moody.refuse = once_each
    assert store.keys("t") == ["a", "b"]
    assert len(refused) >= 3, "the listing and both objects"


def test_a_store_that_stays_away_is_worth_another_run(store: Store) -> None:
    store.put("t/a.parquet", ["a"])
    store.moody.refuse = lambda method, path: (500, "InternalError")
    with pytest.raises(FetchFailed, match="the object store failed"):
        store.keys("t")


def test_small_objects_cost_two_requests_each(store: Store) -> None:
    names = [f"{n:03}" for n in range(40)]
    for name in names:
        store.put(f"t/{name}.parquet", [name])
    store.moody.requests.clear()
    assert store.keys("t") == names
    # Once for its footer and once for its rows; and a few to find out what t is.
    assert sum(store.moody.requests.values()) <= 2 * len(names) + 6
    assert store.moody.requests["HEAD"] <= 2


def test_the_files_of_a_delta_table_are_listed_and_not_asked_for_one_by_one(
    store: Store, tmp_path: Path
) -> None:
    names = [f"{n:02}" for n in range(20)]
    for name in names:
        rows = pa.table({"id": [name], "x": [1.0], "day": ["1" if name < "10" else "2"]})
        write_deltalake(tmp_path / "d", rows, mode="append", partition_by=["day"])
    for file in (tmp_path / "d").rglob("*.*"):
        key = f"d/{file.relative_to(tmp_path / 'd')}"
        store.client.put_object(Bucket="tables", Key=key, Body=file.read_bytes())
    store.moody.requests.clear()
    assert sorted(store.keys("d", "Delta")) == names
    commits = len(names)
    # Each commit and each file is read, and the file is one small object.
    assert store.moody.requests["HEAD"] <= commits + 2
    table = store.open("d", "Delta")
    splits = table.splits(100)
    store.client.delete_object(Bucket="tables", Key=splits[0].detail["path"].partition("/")[2])
    with pytest.raises(SourceError, match=r"no longer exists|no such object"):
        list(table.read(splits[0]))


@pytest.mark.parametrize("form", ["Parquet", "CSV", "JSONLines"])
def test_an_object_that_changes_under_a_run_is_named(store: Store, form: str) -> None:
    name = {"Parquet": "a.parquet", "CSV": "a.csv", "JSONLines": "a.jsonl"}[form]
    bodies = {"CSV": b"id,x\na,1\n", "JSONLines": b'{"id":"a","x":1}\n'}
    if form == "Parquet":
        store.put(f"t/{name}", ["a"])
    else:
        store.client.put_object(Bucket="tables", Key=f"t/{name}", Body=bodies[form])
    (split,) = store.open("t", form).splits(100)
    if form == "Parquet":
        store.put(f"t/{name}", ["other"])
    else:
        store.client.put_object(Bucket="tables", Key=f"t/{name}", Body=bodies[form] * 2)
    with pytest.raises(SourceError, match="changed while it was read"):
        list(store.open("t", form).read(split))
    store.client.delete_object(Bucket="tables", Key=f"t/{name}")
    with pytest.raises(SourceError, match="no longer exists; it existed when the run started"):
        list(store.open("t", form).read(split))


@pytest.mark.parametrize(
    ("answer", "error", "told"),
    [
        ((400, "ExpiredToken"), FetchFailed, "the session token in the Secret s3 has expired"),
        ((301, "PermanentRedirect"), ConfigError, "in another region; set region in its Secret"),
        ((400, "AuthorizationHeaderMalformed"), ConfigError, "in another region"),
        ((403, "AccessDenied"), SourceError, "access denied; check the credentials in the Secret"),
        ((403, "InvalidObjectState"), SourceError, "the object is archived; restore it"),
        ((403, "InvalidAccessKeyId"), FetchFailed, "refuses the login in the Secret s3"),
        ((403, "SignatureDoesNotMatch"), FetchFailed, "refuses the login in the Secret s3"),
    ],
)
def test_a_refusal_is_blamed_on_the_right_party(
    store: Store, answer: Answer, error: type[Exception], told: str
) -> None:
    store.put("t/a.parquet", ["a"])
    store.moody.refuse = lambda method, path: answer if method == "GET" else None
    with pytest.raises(error, match=told):
        store.keys("t")


@pytest.mark.parametrize(
    ("key", "written"),
    [
        ("t/a b.parquet", "t/a%20b.parquet"),
        ("t/50%.parquet", "t/50%25.parquet"),
        ("t/a%20b.parquet", "t/a%2520b.parquet"),
        ("t/x[1].parquet", "t/x%5B1%5D.parquet"),
        ("t/what?*.parquet", "t/what%3F%2A.parquet"),
        ("t/größe+1.parquet", "t/größe+1.parquet"),
    ],
)
def test_a_name_is_read_as_it_is_whatever_is_in_it(store: Store, key: str, written: str) -> None:
    store.put(key, ["a"])
    store.put("t/x1.parquet", ["other"])
    assert store.keys(written) == ["a"]
    assert sorted(store.keys("t")) == ["a", "other"]
    assert sorted(store.keys("t/*.parquet")) == ["a", "other"]


def test_a_glob_reads_the_folders_that_are_tables_and_no_marker_of_a_folder(store: Store) -> None:
    for name in ("a.parquet", "b.parquet/part-0.parquet", "b.parquet/_old/part-0.parquet"):
        store.put(f"t/{name}", [name])
    store.put("t/old/c.parquet", ["c"])
    for marker in ("t/", "t/old/", "t/b.parquet/_SUCCESS"):
        store.client.put_object(Bucket="tables", Key=marker, Body=b"")
    both = ["a.parquet", "b.parquet/part-0.parquet"]
    assert store.keys("t/*.parquet") == both
    assert store.keys("t/*") == both
    assert store.keys("t/**") == [*both, "c"]
    assert store.keys("t/**/*.parquet") == [*both, "c"]


def test_marks_of_a_glob_and_encoded_ones_stand_side_by_side(store: Store) -> None:
    for name in ("x[1]a", "x[1]b", "x1a"):
        store.put(f"t/{name}.parquet", [name])
    assert store.keys("t/x%5B1%5D*.parquet") == ["x[1]a", "x[1]b"]
    assert store.keys("t/x[1]*.parquet") == ["x1a"]


@pytest.mark.parametrize("form", ["CSV", "JSONLines"])
@pytest.mark.parametrize("name", ["a.{}", "a.{}.gz"])
def test_content_encoding_is_undone_whatever_the_name(store: Store, form: str, name: str) -> None:
    kind = {"CSV": "csv", "JSONLines": "jsonl"}[form]
    body = b"id,x\na,1\n" if form == "CSV" else b'{"id":"a","x":1}\n'
    key = "t/" + name.format(kind)
    for stored, headers in ((gzip.compress(body), {"ContentEncoding": "gzip"}), (body, {})):
        store.client.put_object(Bucket="tables", Key=key, Body=stored, **headers)
        assert store.keys("t", form) == ["a"]
