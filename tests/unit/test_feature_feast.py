"""Features from Feast: what is asked of its feature server, and what its answers mean.

The answers are those of Feast 0.67; tests/embedded/test_feature_feast.py asks the server itself.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fourways_api import EntityKey, FetchPolicy, Paths
from fourways_api.modes import FeatureLookup
from fourways_runtime.errors import ConfigError, FeaturesMismatch, FeaturesUnavailable, FetchRefused
from fourways_runtime.io.feature_store import feast, open_features
from fourways_runtime.io.feature_store.coalesced import CoalescedFeatures
from tests.kit.people import FIELDS
from tests.kit.secret_files import secret_folder

NAMES = tuple(field.name for field in FIELDS)
PEOPLE: dict[str, list[Any]] = {
    "ann": [1.5, True, [1.0, 2.5], 30, "ü"],
    "bob": [2.5, False, [3.0, 4.0], None, None],
}
ORDER = ["id", "spend", "seen", "grid", "age", "word"]

TIMES = ["1970-01-01T00:00:00Z", *(f"2026-01-0{day}T00:00:00Z" for day in (5, 4, 3, 7, 6))]


def answer_to(keys: list[str]) -> dict[str, Any]:
    rows = [[key, *PEOPLE.get(key, [None] * 5)] for key in keys]
    states = [
        ["PRESENT" if at == 0 or key in PEOPLE else "NOT_FOUND" for at in range(len(ORDER))]
        for key in keys
    ]
    columns = zip(zip(*rows, strict=True), zip(*states, strict=True), TIMES, strict=True)
    results = [
        {"values": list(v), "statuses": list(s), "event_timestamps": [time] * len(v)}
        for v, s, time in columns
    ]
    return {"results": results, "metadata": {"feature_names": ORDER}}


class FeatureServer:
    """Answers as Feast does, or with ``lie``: a status and a body."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any, str | None]] = []
        self.lie: tuple[int, bytes] | None = None
        ours = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send(200 if self.path == "/health" else 404, b"")

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                ours.asked.append((self.path, asked, self.headers["authorization"]))
                told = answer_to(asked["entities"].get("id", []))
                self._send(*(ours.lie or (200, json.dumps(told).encode())))

            def _send(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def uri(self) -> str:
        return f"feast://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server() -> Iterator[FeatureServer]:
    made = FeatureServer()
    yield made
    made.http.shutdown()
    made.http.server_close()


def opened(folder: Path, uri: str, token: str = "", **lookup: Any) -> CoalescedFeatures:
    secret = secret_folder(folder / "secrets" / "crm", uri=uri)
    if token:
        (secret / "token").write_text(token)
    given = {"database": {"secretName": "crm"}, "table": "people", "timeout": "5s", **lookup}
    return open_features(
        FeatureLookup.model_validate({k: v for k, v in given.items() if v is not None}),
        EntityKey(name="id"),
        NAMES,
        Paths(secrets_root=str(folder / "secrets")),
        fields=FIELDS,
        policy=FetchPolicy(hosts=("127.0.0.1",)),
    )


async def test_rows_are_read_and_absent_entities_have_none(
    server: FeatureServer, tmp_path: Path
) -> None:
    features = opened(tmp_path, server.uri)
    await features.check()
    await features.ping()
    found = await features.fetch(["ann", "nobody", "bob"])
    await features.close()
    assert found == {
        "ann": {"age": 30, "spend": 1.5, "seen": True, "word": "ü", "grid": [1.0, 2.5]},
        "bob": {"age": None, "spend": 2.5, "seen": False, "word": None, "grid": [3.0, 4.0]},
    }
    path, asked, token = server.asked[-1]
    assert (path, token) == ("/get-online-features", None)
    assert asked == {"feature_service": "people", "entities": {"id": ["ann", "nobody", "bob"]}}


async def test_a_row_is_as_old_as_its_oldest_feature(server: FeatureServer, tmp_path: Path) -> None:
    features = opened(tmp_path, server.uri, asOf="event_timestamp")
    await features.check()
    found = await features.fetch(["ann", "nobody"])
    await features.close()
    assert list(found) == ["ann"]
    assert found["ann"]["event_timestamp"] == "2026-01-03T00:00:00Z"


async def test_a_token_beside_the_address_is_sent_and_read_again(
    server: FeatureServer, tmp_path: Path
) -> None:
    features = opened(tmp_path, server.uri, token="first")
    await features.fetch(["ann"])
    (tmp_path / "secrets" / "crm" / "token").write_text("second\n")
    await features.fetch(["ann"])
    await features.close()
    assert [token for *_, token in server.asked] == ["Bearer first", "Bearer second"]


@contextmanager
def lying(server: FeatureServer, status: int, body: Any) -> Iterator[None]:
    server.lie = status, body if isinstance(body, bytes) else json.dumps(body).encode()
    yield
    server.lie = None


_NO_SERVICE = json.dumps({"message": "Feature service people does not exist in project shop"})
_NO_KEY = "\"Missing join key values for keys: ['person']. Provided join_key_values: []\""


@pytest.mark.parametrize(
    ("status", "body", "error", "says"),
    [
        (404, _NO_SERVICE, FeaturesMismatch, "service people .*does not exist in project shop"),
        (500, _NO_KEY, FeaturesMismatch, "the entity id: .*Missing join key"),
        (500, "store is away", FeaturesUnavailable, "answers 500: store is away"),
        (401, {"detail": "no token"}, FeaturesUnavailable, "answers 401: no token"),
        (302, b"", FeaturesUnavailable, "answers 302"),
        (200, b"<html>", FeaturesUnavailable, "not answer as a feature server"),
        (200, {"metadata": {"feature_names": ORDER}, "results": []}, FeaturesUnavailable, "as a"),
        (200, {"metadata": {"feature_names": []}, "results": []}, FeaturesMismatch, "no columns"),
        (200, b"[" * 2000, FeaturesUnavailable, "more than 0 MiB"),
    ],
)
async def test_what_else_it_says_is_named(
    server: FeatureServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    body: Any,
    error: type[Exception],
    says: str,
) -> None:
    monkeypatch.setattr(feast, "MAX_BYTES", 1000)
    features = opened(tmp_path, server.uri)
    with lying(server, status, body), pytest.raises(error, match=says):
        await features.check()
    assert "ann" in await features.fetch(["ann"])
    await features.close()


@pytest.mark.parametrize(
    ("uri", "lookup", "error", "says"),
    [
        ("feast://", {}, ConfigError, "feast://HOST:PORT"),
        ("feast://127.0.0.1:99999", {}, ConfigError, "feast://HOST:PORT"),
        ("feast://127.0.0.1/online", {}, ConfigError, "feast://HOST:PORT"),
        ("feast://127.0.0.1", {"table": None, "query": "%(keys)s"}, ConfigError, "no queries"),
        ("feast://elsewhere.example:6566", {}, FetchRefused, "elsewhere.example"),
    ],
)
async def test_what_is_wrong_is_refused_at_the_start(
    tmp_path: Path, uri: str, lookup: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        opened(tmp_path, uri, **lookup)


async def test_a_server_that_is_not_there_is_unavailable(
    server: FeatureServer, tmp_path: Path
) -> None:
    features = opened(tmp_path, server.uri)
    server.http.shutdown()
    server.http.server_close()
    for asking in (features.ping(), features.fetch(["ann"]), features.check()):
        with pytest.raises(FeaturesUnavailable, match="the feature database"):
            await asking
    await features.close()
