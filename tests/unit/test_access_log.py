"""One line for each request, joined by its id, without anything that the request was about."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

from fourways_api import Route, parse
from fourways_operator.facts import OperatorSettings
from fourways_operator.options import options_of, settings_of
from fourways_runtime.logs import JsonFormatter
from tests.kit.callers import Keys, bearer
from tests.kit.gateway_plane import running
from tests.kit.mode_facts import deployment
from tests.kit.planned import SETTINGS, planned
from tests.kit.serving_plane import configure, serving, tensor
from tools.kit.models import LINEAR, linear

CANARY = "c4n4ry"
INPUTS = [
    tensor("age", "INT32", [30]),
    tensor("spend", "FP32", [2]),
    tensor("rate", "FP32", [1]),
]


@pytest.fixture(autouse=True)
def _all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    found = [r for r in caplog.records if r.name == "fourways.access"]
    return [json.loads(JsonFormatter().format(record)) for record in found]


async def test_a_line_has_route_status_and_id_and_none_of_the_canaries(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, keys: Keys
) -> None:
    key = keys.add("backend", "predict:*", "read:*")
    async with running(tmp_path, callers=keys.policy(), access_log=True) as plane:
        client: httpx.AsyncClient = plane.client
        headers = {**bearer(key), "x-canary": CANARY, "cookie": CANARY}
        body = {"inputs": [tensor("customer", "BYTES", [CANARY])]}
        answers = [
            await client.get(f"/predictions/churn/{CANARY}?{CANARY}={CANARY}", headers=headers),
            await client.post("/v2/models/churn/infer", json=body, headers=headers),
            await client.get(f"/predictions/{CANARY}/a", headers=headers),
            await client.get(f"/{CANARY}", headers=headers),
            await client.get(f"/predictions/churn/a?q={CANARY}", headers=bearer(CANARY)),
        ]
        probes = ("/metrics", "/v2/health/live", "/v2/health/ready")
        for path in probes:
            await client.get(path)
        told = lines(caplog)
        assert CANARY not in json.dumps(told).lower()
        assert [each["status"] for each in told] == [each.status_code for each in answers]
        ids = [each.headers["x-request-id"] for each in answers]
        assert [each["request_id"] for each in told] == ids
        assert len(set(ids)) == len(answers)
        assert set(told[0]) == {
            "time", "level", "logger", "message", "method", "route", "status", "milliseconds",
            "bytes", "request_id", "deployment", "caller",
        }  # fmt: skip
        assert told[0]["route"] == "/predictions/{deployment}/{key}"
        assert (told[0]["deployment"], told[0]["caller"]) == ("churn", "backend")
        assert told[1]["bytes"] > 0
        assert "deployment" not in told[2]
        assert told[3]["route"] == "none"
        assert "caller" not in told[4]


@pytest.mark.parametrize(
    ("given", "kept"), [("order-1.x", True), (f"{CANARY} {CANARY}", False), (None, False)]
)
async def test_gateway_and_model_server_log_one_id(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, given: str | None, kept: bool
) -> None:
    config = configure(tmp_path, linear(), LINEAR, access_log=True)
    async with serving(config) as server:
        url = str(server.client.base_url)
        route = Route(deployment="churn", mode="realtime", version="v1", url=url)
        async with running(tmp_path, routes=(route,), access_log=True) as plane:
            headers = {"x-request-id": given} if given else {}
            path = "/v2/models/churn/infer"
            for _ in range(3):  # the head is known from the second on
                answer = await plane.client.post(path, json={"inputs": INPUTS}, headers=headers)
                assert answer.status_code == 200
                identity = answer.headers["x-request-id"]
                assert (identity == given) is kept
                pair = lines(caplog)[-2:]
                assert [each["request_id"] for each in pair] == [identity, identity]
            told = lines(caplog)
            assert {each["route"] for each in told} == {
                "/v2/models/{deployment}/infer",
                "/v2/models/{model}/infer",
            }
            assert [each.get("deployment") for each in pair] == [None, "churn"]
            if not kept:
                assert len({each["request_id"] for each in told}) == 3
            assert CANARY not in json.dumps(told)


async def test_it_is_off_by_default(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(tmp_path) as plane:
        answer = await plane.client.get("/predictions/churn/c1")
        assert answer.status_code == 200
        assert "x-request-id" not in answer.headers
        assert lines(caplog) == []


def test_the_setting_reaches_gateways_and_model_servers_and_changes_nothing_when_off() -> None:
    on = settings_of(options_of(["--access-log", "true"]))
    assert on.access_log
    assert not settings_of(options_of([])).access_log
    assert not OperatorSettings(runtime_image="x").access_log
    assert "accessLog" not in json.dumps(planned(parse(deployment("realtime"))))
    assert SETTINGS.access_log is False
