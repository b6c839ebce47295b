"""Who may ask a gateway: keys, scopes, rates, and the paths they hold for."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from fourways_api import Route, WakeConfig
from fourways_api.callers import VERBS, CallerPolicy
from fourways_http import Response, Router
from fourways_runtime.callers.api_keys import new_key
from fourways_runtime.callers.caller import RequestRate, Scopes
from fourways_runtime.callers.guard import CallerGuard
from fourways_runtime.workloads.gateway.access import ACCESS
from tests.kit.callers import KEY, Keys, bearer, status
from tests.kit.gateway_plane import Running, asking, running
from tests.kit.waiting import until_async


async def refused(plane: Running) -> dict[str, float]:
    text = (await plane.client.get("/metrics")).text
    lines = [line for line in text.splitlines() if "refused_requests_total{" in line]
    return {line.split('"')[1]: float(line.split()[-1]) for line in lines}


# ---------------------------------------------------------------- keys


async def test_a_key_is_needed_and_a_wrong_one_is_refused(tmp_path: Path, keys: Keys) -> None:
    good = keys.add("shop", "predict:churn")
    async with running(tmp_path, callers=keys.policy("metrics:*")) as plane:
        bare = await plane.client.get(KEY)
        assert bare.status_code == 401
        assert await status(plane, KEY, good) == 200
        for wrong in (
            good[:-1],
            good + "x",
            "fwk_shop_",
            "fwk_",
            "fwk_nobody_" + good[-43:],
            "x",
        ):
            assert await status(plane, KEY, wrong) == 401, wrong
        basic = await plane.client.get(KEY, headers={"Authorization": "Basic c2hvcDp4"})
        assert basic.status_code == 401
        assert basic.headers["www-authenticate"].startswith("Bearer")
        assert (await refused(plane))["InvalidCredentials"] == 7


async def test_without_anonymous_scopes_credentials_are_asked_for(
    tmp_path: Path, keys: Keys
) -> None:
    async with running(tmp_path, callers=keys.policy()) as plane:
        answer = await plane.client.get(KEY)
        assert answer.status_code == 401
        assert "Authorization: Bearer" in answer.json()["error"]
        assert await status(plane, "/v2/health/live") == 200
        assert await status(plane, "/v2/health/ready") == 200


async def test_the_header_that_passes_the_api_servers_proxy(tmp_path: Path, keys: Keys) -> None:
    key = keys.add("shop", "predict:*")
    async with running(tmp_path, callers=keys.policy()) as plane:
        forwarded = {"X-Fourways-Authorization": f"Bearer {key}"}
        assert (await plane.client.get(KEY, headers=forwarded)).status_code == 200


async def test_a_scope_holds_for_its_verb_and_its_deployments(tmp_path: Path, keys: Keys) -> None:
    one, prefix, reader = (
        keys.add("one", "predict:grid"),
        keys.add("prefix", "predict:ch*"),
        keys.add("reader", "read:*"),
    )
    async with running(tmp_path, callers=keys.policy()) as plane:
        assert await status(plane, KEY, one) == 403
        assert await status(plane, KEY, prefix) == 200
        assert await status(plane, KEY, reader) == 403
        assert await status(plane, "/v2/models/churn", reader) == 200
        assert await status(plane, "/v2/models/churn", one) == 403
        assert await status(plane, "/metrics", reader) == 403
        body = asking("c1")
        posted = await plane.client.post("/v2/models/churn/infer", json=body, headers=bearer(one))
        assert posted.status_code == 403
        assert "predict" in posted.json()["error"]
        posted = await plane.client.post(
            "/v2/models/churn/versions/7/infer", json=body, headers=bearer(prefix)
        )
        assert posted.status_code == 200


async def test_lists_name_what_the_scopes_say(tmp_path: Path, keys: Keys) -> None:
    """A list has no deployment in its path: it names those that the caller may read."""
    own, every = keys.add("own", "read:chat"), keys.add("every", "read:*")
    routes = tuple(
        Route(
            deployment=name,
            mode="realtime",
            version="1",
            model_name="m" if name in ("chat", "talk") else None,
            url="http://localhost:1",
            wake=None if name in ("chat", "talk") else WakeConfig(),
        )
        for name in ("chat", "talk", "sleeper")
    )
    async with running(tmp_path, callers=keys.policy(), routes=routes) as plane:

        async def told(method: str, path: str, key: str) -> str:
            answer = await plane.client.request(method, path, headers=bearer(key))
            assert answer.status_code == 200, path
            return answer.text

        lists = [
            ("GET", "/v2/models", "talk"),
            ("GET", "/v1/models", "talk"),
            ("POST", "/v2/repository/index", "talk"),
            ("GET", "/openai/v1/models", "talk"),
            ("GET", "/deployments", "talk"),
            ("GET", "/deployments", "churn"),
            ("GET", "/v2/models", "churn"),
            ("GET", "/demand", "sleeper"),
            ("GET", "/", "talk"),
        ]
        for method, path, other in lists:
            assert other in await told(method, path, every), path
            text = await told(method, path, own)
            assert other not in text, path
            assert path == "/demand" or "chat" in text, path


async def test_metrics_are_those_of_all_deployments(tmp_path: Path, keys: Keys) -> None:
    one, every = keys.add("one", "metrics:churn"), keys.add("every", "metrics:*")
    async with running(tmp_path, callers=keys.policy()) as plane:
        assert await status(plane, "/metrics", every) == 200
        answer = await plane.client.get("/metrics", headers=bearer(one))
        assert answer.status_code == 403
        assert answer.json()["error"].endswith("do not allow `metrics` on all deployments")


async def test_a_deployment_that_only_the_body_names_needs_its_scope(
    tmp_path: Path, keys: Keys
) -> None:
    own, other = keys.add("own", "predict:chat"), keys.add("other", "predict:churn")
    route = Route(deployment="chat", mode="realtime", version="1", model_name="chat-realtime")
    async with running(tmp_path, callers=keys.policy(), routes=(route,)) as plane:
        path, body = "/openai/v1/chat/completions", {"model": "chat"}
        answers = [
            await plane.client.post(path, json=body, headers=headers)
            for headers in ({}, bearer(other), bearer(own))
        ]
        statuses = [answer.status_code for answer in answers]
        assert statuses == [401, 403, 503]  # 503: the runtime has no address yet


@pytest.mark.thorough
async def test_a_key_is_revoked_replaced_and_added_without_a_restart(
    tmp_path: Path, keys: Keys
) -> None:
    old = keys.add("shop", "predict:*")
    async with running(tmp_path, callers=keys.policy()) as plane:
        assert await status(plane, KEY, old) == 200
        new, digest = new_key("shop")
        both = [digest, json.loads((keys.folder / "shop").read_text())["sha256"][0]]
        keys.write("shop", {"sha256": both, "scopes": ["predict:*"]})

        async def new_works() -> bool:
            return await status(plane, KEY, new) == 200

        await until_async(new_works, "the second key is accepted")
        assert await status(plane, KEY, old) == 200
        (keys.folder / "shop").unlink()

        async def gone() -> bool:
            return await status(plane, KEY, new) == 401

        await until_async(gone, "the caller is revoked")
        assert await status(plane, KEY, old) == 401


@pytest.mark.thorough
async def test_an_expired_key_is_refused(tmp_path: Path, keys: Keys) -> None:
    now = datetime.now(UTC)
    past = keys.add("past", "predict:*", expires=(now - timedelta(seconds=1)).isoformat())
    soon = keys.add("soon", "predict:*", expires=(now + timedelta(seconds=2)).isoformat())
    async with running(tmp_path, callers=keys.policy()) as plane:
        assert await status(plane, KEY, past) == 401
        assert await status(plane, KEY, soon) == 200

        async def ended() -> bool:
            return await status(plane, KEY, soon) == 401

        await until_async(ended, "the key expires, although it is known")


@pytest.mark.parametrize(
    "record",
    [
        "",
        "not json",
        "[]",
        {"sha256": [], "scopes": ["predict:*"]},
        {"sha256": ["0"], "scopes": ["predict:*"]},
        {"sha256": ["0" * 64], "scopes": ["fly:*"]},
        {"sha256": ["0" * 64], "scopes": ["predict:*"], "requestsPerSecond": 0},
        {"sha256": ["0" * 64], "scopes": ["predict:*"], "expires": "2027-01-01T00:00:00"},
    ],
)
async def test_a_damaged_record_costs_its_own_caller_only(
    tmp_path: Path, keys: Keys, record: Any, caplog: pytest.LogCaptureFixture
) -> None:
    good = keys.add("good", "predict:*")
    keys.write("bad", record)
    async with running(tmp_path, callers=keys.policy()) as plane:
        assert await status(plane, KEY, good) == 200
        assert await status(plane, KEY, "fwk_bad_x") == 401
    assert any(getattr(r, "caller", "") == "bad" for r in caplog.records)


async def test_a_caller_that_comes_too_often_waits_and_others_do_not(
    tmp_path: Path, keys: Keys
) -> None:
    slow = keys.add("slow", "predict:*", requestsPerSecond=2)
    quick = keys.add("quick", "predict:*")
    async with running(tmp_path, callers=keys.policy()) as plane:
        found = [await status(plane, KEY, slow) for _ in range(4)]
        assert found[:2] == [200, 200]
        assert 429 in found
        answer = await plane.client.get(KEY, headers=bearer(slow))
        if answer.status_code == 429:
            assert answer.headers["retry-after"] == "1"
        assert await status(plane, KEY, quick) == 200


def test_a_rate_allows_a_burst_and_then_its_pace() -> None:
    rate = RequestRate(10)
    assert [rate.wait(100.0) for _ in range(10)] == [0.0] * 10
    assert rate.wait(100.0) == pytest.approx(0.1)
    assert rate.wait(100.125) == 0.0
    assert rate.wait(100.125) > 0.0
    assert not any(RequestRate(None).wait(0.0) for _ in range(10_000))


@pytest.mark.parametrize(
    ("scopes", "verb", "deployment", "allowed"),
    [
        (["*:*"], "rejects", "a", True),
        (["predict:a"], "predict", "a", True),
        (["predict:a"], "predict", "ab", False),
        (["predict:a*"], "predict", "ab", True),
        (["predict:a*"], "predict", "b", False),
        (["predict:a"], "predict", None, True),
        (["predict:a"], "read", None, False),
        (["*:a"], "features", "a", True),
        ([], "predict", None, False),
    ],
)
def test_scopes(scopes: list[str], verb: Any, deployment: str | None, allowed: bool) -> None:
    assert Scopes(scopes).allow(verb, deployment) is allowed


# ---------------------------------------------------------------- paths


async def test_every_path_of_the_gateway_has_a_verb_and_no_other_path_has_one(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as plane:
        served = {
            (b"GET" if method == b"HEAD" else method, route.pattern)
            for route in plane.gateway.router().routes
            for method in route.handlers
        }
    assert served == set(ACCESS)
    assert {verb for verb in ACCESS.values() if verb} == set(VERBS)


def test_an_undeclared_path_keeps_the_gateway_from_starting() -> None:
    router = Router()
    router.add("GET", "/new", lambda request: Response(b""))
    with pytest.raises(LookupError):
        CallerGuard(CallerPolicy(), CollectorRegistry()).protect(router, ACCESS)


async def test_no_path_answers_without_credentials_but_probes(tmp_path: Path, keys: Keys) -> None:
    async with (
        running(tmp_path, callers=keys.policy()) as plane,
        httpx.AsyncClient(base_url=plane.url) as http,
    ):
        for (method, pattern), verb in ACCESS.items():
            path = pattern.replace("{deployment}", "churn").replace("{key}", "c1")
            path = path.replace("{", "").replace("}", "")
            for asked in {method.decode(), "HEAD"} if method == b"GET" else {method.decode()}:
                answer = await http.request(asked, path)
                if pattern in ("/", "/deployments/{deployment}"):
                    assert answer.status_code == 401, (asked, path)  # a form for a key
                elif verb is None:
                    assert answer.status_code == 200, (asked, path)
                else:
                    assert answer.status_code == 401, (asked, path)
