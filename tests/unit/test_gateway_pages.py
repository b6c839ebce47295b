"""The gateway's pages: what they show, to whom, and that foreign text stays text."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from fourways_api import DriftStatus, Route, StreamSource, WakeConfig
from fourways_runtime.io.store.recent import RecentAnswer, RecentAnswers, RecentDeadLetter
from fourways_runtime.io.store.reports import WorkerReport
from fourways_runtime.scoring.columns import Reject
from fourways_runtime.workloads.gateway.page.pages import PAGES_AT_ONCE
from tests.kit.callers import Keys, bearer
from tests.kit.gateway_plane import Running, running
from tests.kit.run_history import DRIFT, QUALITY, MemoryHistory
from tests.kit.serving_plane import configure, serving
from tools.kit.models import LINEAR, linear

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
EDGE = Route(deployment="camera", mode="edge", version="2", publish="file:///nowhere")
AWAY = Route(deployment="score", mode="realtime", version="3")


async def page(plane: Running, path: str, **headers: str) -> httpx.Response:
    return await plane.client.get(path, headers={**HTML, **headers})


async def test_programs_get_json_and_people_a_page(tmp_path: Path) -> None:
    async with running(tmp_path, routes=(EDGE, AWAY), history=MemoryHistory()) as plane:
        status, listed = await plane.get("/")
        same = (await plane.get("/deployments"))[1]["deployments"]
        assert status == 200
        assert [each["links"] for each in listed["deployments"]] == [e["links"] for e in same]
        assert {each["deployment"] for each in listed["deployments"]} >= {"churn", "camera"}
        answer = await page(plane, "/")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        for text in ("churn", "camera", "on devices", "the model server has no address yet"):
            assert text in answer.text, text


async def test_of_many_pages_at_once_some_are_made_and_the_others_refused(tmp_path: Path) -> None:
    async with running(tmp_path, history=MemoryHistory()) as plane:
        asked = [page(plane, "/deployments/churn") for _ in range(100)]
        answers = await asyncio.gather(*asked)
        made = [each for each in answers if each.status_code == 200]
        refused = [each for each in answers if each.status_code == 503]
        assert len(made) >= PAGES_AT_ONCE
        assert refused
        assert len(made) + len(refused) == 100
        assert all(each.headers["retry-after"] == "1" for each in refused)
        assert (await page(plane, "/deployments/churn")).status_code == 200


async def test_the_page_of_a_deployment_shows_contract_runs_difference_and_rejects(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, history=MemoryHistory()) as plane:
        answer = await page(plane, "/deployments/churn")
        assert answer.status_code == 200
        for text in (
            "/v1/models/churn:predict",
            "customer",
            "<polyline",
            "churn-3",
            "TooManyRejects: 9 of 14 rows were rejected",
            "1,400 records of churn-2 against the training profile",
            "1 inputs or outputs are distributed otherwise",
            "&lt;b&gt;age",
            "25.0 %",
            "against the labels known so far",
            "1,234",
            "0.8125",
            "12.5 %",
            "From churn-1 to churn-2",
            "Mean of each output",
            "score, from 0 to 1",
            "Distribution of score in churn-2: 12 values, most of them between 0 and 0.5",
            "Rejected rows of churn-3",
            "3 is below 0",
        ):
            assert text in answer.text, text
        named = await page(plane, "/deployments/churn?from=churn-3&to=churn-1")
        assert "From churn-3 to churn-1" in named.text
        unknown = await page(plane, "/deployments/nobody")
        assert (unknown.status_code, "no deployment nobody" in unknown.text) == (404, True)
        edge = await page(plane, "/deployments/churn?from=%3Cscript%3Ex&to=churn-1")
        assert "<script>x" not in edge.text
        assert "&lt;script&gt;x" in edge.text


async def test_the_page_of_a_model_server_shows_its_present_drift(tmp_path: Path) -> None:
    async with serving(configure(tmp_path, linear(), LINEAR)) as server:
        url = str(server.client.base_url)
        route = Route(deployment="score", mode="realtime", version="v1", url=url)
        wake = WakeConfig(idle_seconds=1)
        sleeper = Route(deployment="sleeper", mode="realtime", version="v1", url=url, wake=wake)
        async with running(tmp_path, routes=(route, sleeper), history=MemoryHistory()) as plane:
            status, told = await plane.get("/deployments/score/drift")
            assert (status, "too few so far" in told["error"]) == (404, True)
            server.app.report_drift(lambda: DriftStatus.model_validate(DRIFT))
            status, told = await plane.get("/deployments/score/drift")
            assert (status, told["drift"]["fields"][0]["psi"]) == (200, 0.71)
            answer = await page(plane, "/deployments/score")
            assert "1,400 records of a model server against the training profile" in answer.text
            assert "&lt;b&gt;age" in answer.text
            for name in ("sleeper", "churn", "nobody"):
                assert (await plane.get(f"/deployments/{name}/drift"))[0] == 404


def stream_report(**more: Any) -> dict[str, Any]:
    return {
        "version": "5",
        "lag": {"0": 1200, "1": 34},
        "oldest_event_seconds": 12.5,
        "faults": [],
        "drift": None,
        "quality": None,
        **more,
    }


async def test_the_page_of_a_stream_shows_what_its_workers_report(tmp_path: Path) -> None:
    history = MemoryHistory()
    measured = {**QUALITY, "run": None, "since": "2026-03-01T02:00:00Z", "message": "<b>late"}
    later = {**measured, "labels": 4321, "measuredAt": "2026-03-02T03:05:00Z"}
    history.reports["sensor"] = [
        WorkerReport("pod-<i>a", 2.5, stream_report(quality=measured, drift=DRIFT)),
        WorkerReport("pod-b", 0.5, stream_report(quality=later, faults=["StreamLags"])),
    ]
    source = StreamSource.model_validate(
        {"nats": {"servers": "nats://127.0.0.1:1", "stream": "S", "subject": "s"}}
    )
    routes = tuple(
        Route(deployment=name, mode="streaming", version="5", source=source)
        for name in ("sensor", "quiet")
    )
    async with running(tmp_path, routes=routes, history=history) as plane:
        status, told = await plane.get("/deployments/sensor/workers")
        assert (status, len(told["workers"])) == (200, 2)
        text = (await page(plane, "/deployments/sensor")).text
        for part in (
            "<dt>Events that wait</dt><dd>2,468</dd>",
            "<dt>The oldest waits for, in s</dt><dd>12.5</dd>",
            "pod-&lt;i&gt;a",
            "StreamLags",
            "1,400 records of worker pod-&lt;i&gt;a against the training profile",
            "4,321 labels are known for predictions of score since 2026-03-01 02:00:00 UTC",
            "&lt;b&gt;late",
            "0.8125",
        ):
            assert part in text, part
        quiet = (await page(plane, "/deployments/quiet")).text
        assert "No worker has reported in the last 30 s." in quiet
        history.down = True
        assert (
            "the prediction store is not available"
            in (await page(plane, "/deployments/sensor")).text
        )


async def test_the_page_of_a_stream_lists_dead_letters_to_who_may_see_rejects(
    tmp_path: Path, keys: Keys
) -> None:
    reader = keys.add("reader", "read:*")
    owner = keys.add("owner", "read:*", "rejects:sensor")
    history = MemoryHistory()
    history.letters["sensor"] = [
        RecentDeadLetter(3, 12345, "<b>jane", 3, "model: <i>NaN" + "x" * 4000, AT),
        RecentDeadLetter(0, 7, None, 1, "flow: missing", AT),
    ]
    source = StreamSource.model_validate(
        {"nats": {"servers": "nats://127.0.0.1:1", "stream": "S", "subject": "s"}}
    )
    route = Route(deployment="sensor", mode="streaming", version="5", source=source)
    path = "/deployments/sensor"
    async with running(tmp_path, routes=(route,), callers=keys.policy(), history=history) as plane:
        text = (await page(plane, path, **bearer(owner))).text
        for part in (
            "&lt;b&gt;jane",
            "12,345",
            "model: &lt;i&gt;NaN",
            "without a key",
            "2026-03-01",
        ):
            assert part in text, part
        assert "x" * 400 not in text
        shown = (await page(plane, path, **bearer(reader))).text
        assert "jane" not in shown
        assert "these credentials do not allow `rejects`" in shown
        letters = f"{path}/dead-letters?limit=1"
        assert (await plane.client.get(letters, headers=bearer(reader))).status_code == 403
        told = (await plane.client.get(letters, headers=bearer(owner))).json()
        assert [each["position"] for each in told["dead_letters"]] == [12345]
        history.letters["sensor"] = None
        assert "too many dead letters" in (await page(plane, path, **bearer(owner))).text
        history.letters.clear()
        assert "Dead letters" not in (await page(plane, path, **bearer(owner))).text


async def test_a_page_shows_what_its_credentials_may_see(tmp_path: Path, keys: Keys) -> None:
    reader = keys.add("reader", "read:*")
    both = keys.add("both", "read:*", "rejects:*")
    policy = keys.policy()
    async with running(tmp_path, callers=policy, history=MemoryHistory()) as plane:
        for path in ("/", "/deployments/churn"):
            bare = await page(plane, path)
            assert bare.status_code == 401
            assert 'id="key-form"' in bare.text
            assert "churn-2" not in bare.text
            assert "14 rows" not in bare.text
        shown = await page(plane, "/deployments/churn", **bearer(reader))
        assert shown.status_code == 200
        assert "3 is below 0" not in shown.text
        assert "these credentials do not allow `rejects`" in shown.text
        assert "3 is below 0" in (await page(plane, "/deployments/churn", **bearer(both))).text
        assert (await plane.client.get("/")).status_code == 401
        for asset in ("page.css", "page.js"):
            assert (await plane.client.get(f"/assets/{asset}")).status_code == 200


async def test_foreign_text_stays_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    markup = "<img src=x onerror=alert(1)>\u202e"
    history = MemoryHistory()
    rejects = [Reject(0, markup, markup, markup * 99)]
    monkeypatch.setattr(history, "rejects", lambda *_: rejects)
    async with running(tmp_path, history=history) as plane:
        text = (await page(plane, "/deployments/churn")).text
    assert "<img" not in text
    assert "\u202e" not in text
    assert "&lt;img src=x" in text
    assert "characters left out" in text


# ---------------------------------------------------------------- last answers

AT = datetime(2026, 3, 1, 3, 0, 0, 123456, tzinfo=UTC)
ANSWERS = RecentAnswers(
    [
        RecentAnswer("<b>jane", AT, {"score": 0.8125, "label": "<i>stays", "ok": True}),
        RecentAnswer("x" * 500, AT, {"score": 1234567.0, "label": "goes", "ok": False}),
    ]
)


async def test_a_page_shows_the_last_answers_escaped_and_bounded(tmp_path: Path) -> None:
    history = MemoryHistory()
    history.answers["churn"] = replace(ANSWERS, run="churn-<2>")
    history.answers["score"] = RecentAnswers([RecentAnswer(7, AT, {"score": 0.25})])
    history.answers["camera"] = ANSWERS
    async with running(tmp_path, routes=(EDGE, AWAY), history=history) as plane:
        text = (await page(plane, "/deployments/churn")).text
        for part in (
            "Some predictions of churn-&lt;2&gt;",
            "&lt;b&gt;jane",
            "&lt;i&gt;stays",
            "0.8125",
            "2026-03-01 03:00:00 UTC",
        ):
            assert part in text, part
        assert "x" * 130 not in text
        score = (await page(plane, "/deployments/score")).text
        assert "The newest predictions that the store has" in score
        assert '<th scope="row">7</th>' in score
        assert "jane" not in (await page(plane, "/deployments/camera")).text
        assert (await plane.get("/deployments/camera/answers"))[0] == 404
        for name, mode in (("churn", "batch"), ("score", "realtime")):
            assert (name, mode, 20) in history.asked_answers
        history.answers["churn"] = RecentAnswers([], message="too many keys")
        assert "too many keys" in (await page(plane, "/deployments/churn")).text
        history.answers.clear()
        assert "Last answers" not in (await page(plane, "/deployments/churn")).text
        status, told = await plane.get("/deployments/churn/answers?limit=101")
        assert (status, told["error"]) == (400, "limit must be a number from 1 to 100")
        assert (await plane.get("/deployments/churn/answers?limit=5"))[0] == 200
        assert history.asked_answers[-1] == ("churn", "batch", 5)


async def test_last_answers_need_the_scope_of_predictions(tmp_path: Path, keys: Keys) -> None:
    reader = keys.add("reader", "read:*", "rejects:*")
    other = keys.add("other", "read:*", "predict:score")
    asker = keys.add("asker", "read:*", "predict:churn")
    history = MemoryHistory()
    history.answers["churn"] = ANSWERS
    async with running(tmp_path, callers=keys.policy(), history=history) as plane:
        for key in (reader, other):
            shown = await page(plane, "/deployments/churn", **bearer(key))
            assert shown.status_code == 200
            assert "jane" not in shown.text
            assert "these credentials do not allow `predict`" in shown.text
            refused = await plane.client.get("/deployments/churn/answers", headers=bearer(key))
            assert refused.status_code == 403
        assert "jane" in (await page(plane, "/deployments/churn", **bearer(asker))).text
        bare = await plane.client.get("/deployments/churn/answers")
        assert bare.status_code == 401


async def test_the_page_of_a_model_server_shows_its_quality(tmp_path: Path) -> None:
    history = MemoryHistory()
    measured = {**QUALITY, "run": None, "since": "2026-03-01T02:00:00Z", "message": None}
    history.reports["score"] = [WorkerReport("q", 1.0, {"version": "3", "quality": measured})]
    async with running(tmp_path, routes=(AWAY,), history=history) as plane:
        text = (await page(plane, "/deployments/score")).text
        assert "1,234 labels are known for predictions of score since 2026-03-01 02:00:00" in text
        assert "0.8125" in text
        assert "Events that wait" not in text
