"""The record of runs over HTTP: what is told, and what is said where there is nothing to tell."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fourways_api import RuntimeConfig
from fourways_runtime.errors import ConfigError
from fourways_runtime.workloads.gateway import run_gauges
from fourways_runtime.workloads.rollback import roll_back
from tests.kit.gateway_plane import CHURN, DIGEST, Running, running
from tests.kit.run_history import DRIFT, QUALITY, MemoryHistory
from tests.kit.waiting import turns, until_async


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path, history=MemoryHistory()) as plane:
        yield plane


async def test_runs_are_listed_the_latest_first(plane: Running) -> None:
    status, told = await plane.get("/runs/churn")
    assert status == 200
    assert [r["name"] for r in told["runs"]] == ["churn-3", "churn-2", "churn-1"]
    assert told["runs"][1] == {
        "name": "churn-2",
        "state": "published",
        "version": "7",
        "digest": DIGEST,
        "started_at": "2026-03-01T03:00:00+00:00",
        "published_at": "2026-03-01T03:00:00+00:00",
        "rows": 14,
        "rejects": 0,
        "current": True,
        "kind": "watermark",
        "carried": 12,
        "reason": "",
        "message": "",
        "drift": DRIFT,
        "quality": QUALITY,
    }
    assert told["runs"][0]["published_at"] is None
    assert await plane.get("/runs/nobody") == (200, {"deployment": "nobody", "runs": []})


async def test_progress_tells_of_every_worker(plane: Running) -> None:
    status, told = await plane.get("/runs/churn/churn-3/progress")
    assert status == 200
    assert told["progress"] | {"workers": None} == {
        "state": "scoring",
        "rows": 5,
        "total_rows": 10,
        "rejects": 1,
        "chunks": 4,
        "chunks_done": 2,
        "rows_per_second": 2.5,
        "eta_seconds": 2.0,
        "workers": None,
    }
    (worker,) = told["progress"]["workers"]
    assert (worker["name"], worker["rows"], worker["alive"]) == ("pod/0", 5, True)


async def test_runs_under_way_are_told_all_at_once(plane: Running) -> None:
    status, told = await plane.get("/runs")
    assert status == 200
    (found,) = told["runs"]
    assert (found["deployment"], found["run"]) == ("churn", "churn-3")
    assert (found["progress"]["rows"], found["progress"]["total_rows"]) == (5, 10)
    plane.history.scoring = False
    assert await plane.get("/runs") == (200, {"runs": []})


async def test_two_runs_are_compared(plane: Running) -> None:
    status, told = await plane.get("/runs/churn/diff?from=churn-1&to=churn-2")
    assert status == 200
    assert told["difference"] == {
        "only_before": 1,
        "only_after": 2,
        "common": 12,
        "changed": 3,
        "shifts": {
            "score": {
                "before": 0.5,
                "after": None,
                "histogram": {"low": 0.0, "high": 1.0, "before": [3, 9], "after": [6, 6]},
            }
        },
    }


async def test_rejects_are_told_up_to_a_limit(plane: Running) -> None:
    status, told = await plane.get("/runs/churn/churn-3/rejects?limit=2")
    assert status == 200
    assert told["rejects"] == [
        {"row": 0, "key": "c0", "field": "age", "reason": "0 is below 0"},
        {"row": 1, "key": None, "field": "age", "reason": "1 is below 0"},
    ]
    _, told = await plane.get("/runs/churn/churn-3/rejects")
    assert len(told["rejects"]) == 100


@pytest.mark.parametrize(
    ("path", "status", "word"),
    [
        ("/runs/churn/churn-9/progress", 404, "no run churn-9"),
        ("/runs/churn/churn-9/rejects", 404, "no run churn-9"),
        ("/runs/churn/diff?from=churn-1&to=churn-9", 404, "no run churn-9"),
        ("/runs/churn/diff?from=churn-1", 400, "from=RUN&to=RUN"),
        ("/runs/churn/diff?from=churn-1&to=%27;drop", 404, "not a name of a run"),
        ("/runs/churn/A%20b/progress", 404, "not a name of a run"),
        ("/runs/churn/churn-3/rejects?limit=0", 400, "limit"),
        ("/runs/churn/churn-3/rejects?limit=99999", 400, "limit"),
        ("/runs/churn/churn-3/rejects?limit=x", 400, "limit"),
        ("/runs/Odd_name", 404, "nothing is published"),
    ],
)
async def test_what_there_is_none_of_is_said(
    plane: Running, path: str, status: int, word: str
) -> None:
    answer = await plane.get(path)
    assert answer[0] == status
    assert word in answer[1]["error"]


async def test_runs_are_read_only(plane: Running) -> None:
    for path in ("/runs/churn", "/runs/churn/churn-3/progress", "/runs/churn/diff"):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert (await plane.client.request(method, path)).status_code in (404, 405, 501)


async def test_a_store_that_is_away_is_said_without_its_address(plane: Running) -> None:
    plane.history.down = True
    answer = await plane.client.get("/runs/churn")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert "10.1.2.3" not in answer.text
    plane.history.down = False
    assert (await plane.get("/runs/churn"))[0] == 200


async def test_few_ask_at_a_time_and_predictions_do_not_wait_for_them(plane: Running) -> None:
    plane.history.hold = threading.Event()
    slow = [asyncio.ensure_future(plane.client.get("/runs/churn")) for _ in range(2)]

    async def turned_away() -> bool:
        return (await plane.client.get("/runs/churn", timeout=0.5)).status_code == 503

    # The two have been taken up once a third is turned away.
    await turns()
    await until_async(turned_away, "a third request is turned away")
    assert (await plane.get("/predictions/churn/c1"))[0] == 200
    plane.history.hold.set()
    assert [answer.status_code for answer in await asyncio.gather(*slow)] == [200, 200]
    assert (await plane.get("/runs/churn"))[0] == 200
    assert plane.history.closed >= 3


async def test_metrics_tell_how_far_runs_are(
    plane: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_gauges, "LOOK_SECONDS", 0.0)

    async def told() -> bool:
        text = (await plane.client.get("/metrics")).text
        return 'fourways_run_rows{deployment="churn"} 5.0' in text

    async def not_told() -> bool:
        return not await told()

    await until_async(told, "the run's progress is in the metrics")
    text = (await plane.client.get("/metrics")).text
    assert 'fourways_run_seconds_left{deployment="churn"} 2.0' in text
    assert 'fourways_run_workers{deployment="churn"} 1.0' in text
    plane.history.down = True  # what was found last stays
    assert await told()
    plane.history.down, plane.history.scoring = False, False
    await until_async(not_told, "the run's progress is gone from the metrics")


def config() -> RuntimeConfig:
    return RuntimeConfig.model_validate(
        {
            "namespace": "shop",
            "name": "churn",
            "model": {"uri": "pvc://m/m.onnx", "version": "9", "digest": DIGEST},
            "contract": CHURN.to_json(),
        }
    )


def test_a_rollback_reports_the_run_answers_come_from() -> None:
    store = MemoryHistory()
    for _ in range(2):  # tried again, it does the same
        report = roll_back(store, config(), "churn-1")
        assert (report.outcome, report.run, report.version) == ("Succeeded", "churn-1", "7")
        assert (report.rows, report.rejects) == (13, 1)
    assert store.current == "churn-1"


def test_a_rollback_to_a_run_there_is_none_of_changes_nothing() -> None:
    store = MemoryHistory()
    with pytest.raises(ConfigError, match="no run churn-9"):
        roll_back(store, config(), "churn-9")
    assert store.current == "churn-2"
