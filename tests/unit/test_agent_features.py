"""Extra inputs of a device: the gateway's, what it last said, the default, or nothing."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fourways_agent import features as module
from fourways_agent.features import Features, GatewayReader
from fourways_agent.state import DeviceSettings, Store
from fourways_api import Contract
from fourways_api.base import SKIP_RULES
from fourways_api.modes import FeatureLookup

CONTRACT = Contract.model_validate(
    {
        "entityKey": {"name": "id"},
        "inputs": [
            {"name": "age", "type": "int32"},
            {"name": "spend", "type": "float32", "range": {"min": 0, "max": 100}},
            {"name": "member", "type": "bool"},
        ],
        "outputs": [{"name": "score", "type": "float32"}],
    },
    context=SKIP_RULES,
)
LOOKUP = FeatureLookup.model_validate(
    {
        "database": {"secretName": "gateway"},
        "table": "gateway",
        "inputs": ["spend", "member"],
        "defaults": [{"name": "member", "number": 1}],
    },
    context=SKIP_RULES,
)


class Gateway:
    def __init__(self) -> None:
        self.answer: Any = {}
        self.status = 200
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                self.send_response(outer.status)
                self.end_headers()
                self.wfile.write(json.dumps(outer.answer).encode())

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def told(self, **values: Any) -> None:
        self.status, self.answer = 200, {"key": "k", "features": values}


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    it = Gateway()
    yield it
    it.server.shutdown()
    it.server.server_close()


@pytest.fixture
def store(tmp_path: Path, gateway: Gateway) -> Store:
    it = Store(tmp_path)
    url = f"http://127.0.0.1:{gateway.server.server_port}"
    it.remember(DeviceSettings(url, "churn", "door", "/key"))
    return it


@pytest.fixture
def features(store: Store) -> Features:
    return Features(store, CONTRACT, LOOKUP)


def test_what_a_record_leaves_out_the_gateway_says(gateway: Gateway, features: Features) -> None:
    gateway.told(spend=2.5, member=False)
    assert features.completed({"id": "a/b c", "age": 3}) == {
        "id": "a/b c",
        "age": 3,
        "spend": 2.5,
        "member": False,
    }
    assert gateway.asked == ["/features/churn/a%2Fb%20c?inputs=spend%2Cmember"]


def test_what_a_record_says_is_not_asked_for(gateway: Gateway, features: Features) -> None:
    record = {"id": "a", "age": 3, "spend": 1, "member": True}
    assert features.completed(record) is record
    assert features.completed({"age": 3}) == {"age": 3, "member": True}, "no key, no question"
    assert gateway.asked == []


@pytest.mark.parametrize("broken", ["status", "path", "body", "shape"])
def test_offline_the_last_word_holds_and_the_gateway_is_left_alone_for_a_while(
    gateway: Gateway, features: Features, store: Store, broken: str
) -> None:
    gateway.told(spend=2.5, member=False)
    features.completed({"id": "a", "age": 3})
    if broken in ("status", "path"):
        gateway.status = 503 if broken == "status" else 404
        gateway.answer = {"error": "no such path"}
    else:
        gateway.answer = [] if broken == "body" else {"features": 7}
    for _ in range(3):
        assert features.completed({"id": "a", "age": 3})["spend"] == 2.5
    assert len(gateway.asked) == 2
    found = features.last("a")
    assert found is not None
    assert 0 <= found[1] < 60
    assert Features(store, CONTRACT, LOOKUP).last("a") is not None, "restarts do not matter"
    assert features.completed({"id": "b", "age": 3}) == {"id": "b", "age": 3, "member": True}


def test_an_entity_nobody_knows_gets_defaults(gateway: Gateway, features: Features) -> None:
    gateway.status, gateway.answer = 404, {"error": "no such key", "key": "a"}
    assert features.completed({"id": "a"}) == {"id": "a", "member": True}
    gateway.told(spend=1)
    assert features.completed({"id": "a"})["spend"] == 1, "and is asked for again"


def test_a_damaged_memory_is_begun_anew(gateway: Gateway, features: Features, store: Store) -> None:
    (store.folder / "features.sqlite").write_bytes(b"no database at all, but long enough" * 100)
    gateway.told(spend=2)
    assert features.completed({"id": "a"})["spend"] == 2
    features.completed({"id": "a"})
    assert features.last("a") is not None


def test_what_is_remembered_is_bounded(
    gateway: Gateway, features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT", 3)
    gateway.told(spend=2)
    for key in range(5):
        features.of(key)
    assert [features.last(key) is not None for key in range(5)] == [False, False, True, True, True]


async def test_the_model_server_gets_each_entity_once(gateway: Gateway, features: Features) -> None:
    gateway.told(spend=2)
    reader = GatewayReader(features)
    assert await reader.fetch(["a", "b", "a"]) == {"a": {"spend": 2}, "b": {"spend": 2}}
    assert len(gateway.asked) == 2
    await reader.close()


@pytest.mark.parametrize(
    "told",
    [
        {"spend": 101},
        {"spend": -1, "member": True},
        {"spend": "2.5"},
        {"spend": [2.5]},
        {"spend": True},
        {"spend": 1e39},
        {"member": 2},
        {"member": "yes", "spend": 2},
    ],
)
def test_what_breaks_the_contract_is_neither_used_nor_kept(
    gateway: Gateway,
    features: Features,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    told: dict[str, Any],
) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
    gateway.told(spend=2.5, member=False)
    features.of("known")
    gateway.told(**told)
    assert features.of("known") == {"spend": 2.5, "member": False}, "the last good answer holds"
    assert features.completed({"id": "new", "age": 3}) == {"id": "new", "age": 3, "member": True}
    assert features.last("new") is None
    logged = caplog.text.replace("127.0.0.1", "")
    assert "breaks the contract" in logged
    assert not any(str(value) in logged for value in told.values() if value not in (2, True))


def test_what_is_kept_is_used_up_to_an_age(
    gateway: Gateway, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
    settings = store.settings()
    assert settings is not None
    store.remember(replace(settings, features_max_age="1h"))
    features = Features(store, CONTRACT, LOOKUP)
    gateway.told(spend=2.5)
    features.of("a")
    gateway.status = 503
    for minutes, known in ((59, True), (61, False), (-61, False), (-59, True)):
        now = time.time() + minutes * 60
        monkeypatch.setattr(module.time, "time", lambda now=now: now)
        assert (features.of("a") == {"spend": 2.5}) is known
        assert features.last("a") is not None, "it is forgotten only when others come"
        monkeypatch.undo()
        monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
