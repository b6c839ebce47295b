"""Which run answers come from is the store's word, as soon as the gateway has passed it on."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import orjson
import pytest

from fourways_api import RunStatus
from fourways_operator.errors import GatewaySilent
from fourways_operator.facts import Json, StoreAnswer
from fourways_operator.published import PAUSE, PublishedRunTracker
from fourways_operator.work_queue import Key
from tests.kit import status_facts as batch
from tests.kit.asked_gateway import AskedGateway
from tests.kit.status_facts import by_type, later, status_at

NOW = batch.NOW
KEY = Key("demo", "m")
STORED = RunStatus(
    name="m-0",
    outcome="Succeeded",
    finished_at="2026-02-20T03:00:00Z",
    version="1",
    rows=7,
    rejects=0,
)


def answered(current: RunStatus | None, at: datetime = NOW) -> StoreAnswer:
    return StoreAnswer(at, current)


# ---------------------------------------------------------------- what it means


def test_a_store_that_was_emptied_ends_ready_and_says_what_to_do() -> None:
    found = by_type(status := status_at(replace(batch.facts(batch.GOOD_RUN), store=answered(None))))
    assert (found["Ready"]["status"], found["Ready"]["reason"]) == ("False", "PredictionsMissing")
    assert "fourways start-run m" in found["Ready"]["message"]
    assert found["Degraded"]["reason"] == "PredictionsMissing"
    assert "lastPublished" not in status


def test_what_is_missing_is_still_missing_after_a_restart_and_without_its_job() -> None:
    missing = status_at(replace(batch.facts(batch.GOOD_RUN), store=answered(None)))
    document = {**batch.deployment(), "status": missing}
    # The operator was restarted: nothing is known of the store, and the Job still says Succeeded.
    restarted = replace(batch.facts(batch.GOOD_RUN), deployment=document)
    assert by_type(status_at(restarted))["Ready"]["reason"] == "PredictionsMissing"
    without_job = replace(batch.facts(), deployment=document, store=answered(None))
    assert by_type(status_at(without_job))["Ready"]["reason"] == "PredictionsMissing"


def test_a_run_published_after_the_gateway_was_asked_counts() -> None:
    before = answered(None, NOW - timedelta(days=1))
    found = by_type(status_at(replace(batch.facts(batch.GOOD_RUN), store=before)))
    assert found["Ready"]["status"] == "True"


def test_an_older_run_that_was_restored_is_what_answers_come_from() -> None:
    status = status_at(replace(batch.facts(batch.GOOD_RUN), store=answered(STORED)))
    assert status["lastPublished"]["name"] == "m-0"
    assert by_type(status)["Ready"]["message"] == "predictions come from run m-0 (7 rows)"


def test_the_same_run_keeps_what_its_job_says_of_it() -> None:
    same = STORED.model_copy(update={"name": "m-1"})
    status = status_at(replace(batch.facts(batch.GOOD_RUN), store=answered(same)))
    assert status["lastPublished"]["rows"] == 10


def test_after_another_mode_it_does_not_wait_for_a_first_run() -> None:
    realtime = {"mode": "realtime", "conditions": []}
    document = later(batch.deployment(), realtime)
    waiting = replace(batch.facts(), deployment=document)
    assert by_type(status_at(waiting))["Ready"]["reason"] == "WaitingForFirstRun"
    found = by_type(status_at(replace(waiting, store=answered(STORED))))
    assert (found["Ready"]["status"], found["Ready"]["reason"]) == ("True", "Published")


def test_a_deployment_that_never_ran_waits_for_its_first_run() -> None:
    found = by_type(status_at(replace(batch.facts(), store=answered(None))))
    assert found["Ready"]["reason"] == "WaitingForFirstRun"


# ---------------------------------------------------------------- how it is asked


def record(name: str = "m-0", **changes: Any) -> Json:
    return {
        "name": name,
        "state": "published",
        "version": "1",
        "rows": 7,
        "rejects": 0,
        "published_at": "2026-02-20T03:00:00+00:00",
        "current": True,
    } | changes


def says(*runs: Json) -> bytes:
    return orjson.dumps({"deployment": "m", "runs": runs})


def batch_status(run: str | None = None) -> Json:
    return {"mode": "batch"} | ({"lastPublished": {"name": run}} if run else {})


class Gateway(AskedGateway):
    def __init__(self, *answers: bytes | Exception) -> None:
        super().__init__(*answers)
        self.tracker = PublishedRunTracker(self.ask, self.changed.append, lambda: NOW, self.sleep)

    async def note(self, status: Json | None) -> None:
        self.tracker.note(KEY, status)
        await self.settle()


async def test_the_current_run_is_learnt_and_news_where_status_names_another() -> None:
    gateway = Gateway(says(record("m-1", current=False), record()))
    await gateway.note(batch_status())
    assert gateway.tracker.of(KEY) == StoreAnswer(NOW, STORED)
    assert (gateway.changed, gateway.pauses) == ([KEY], [PAUSE])
    await gateway.note(batch_status("m-0"))
    await gateway.pass_time()
    assert gateway.asked == [("demo", "m")] * 2
    assert gateway.changed == [KEY], "status says so already"


async def test_an_emptied_store_is_news() -> None:
    gateway = Gateway(says(record()), says())
    await gateway.note(batch_status("m-0"))
    assert gateway.changed == []
    await gateway.pass_time()
    assert gateway.tracker.of(KEY) == StoreAnswer(NOW, None)
    assert gateway.changed == [KEY]


@pytest.mark.parametrize(
    "nonsense",
    [
        GatewaySilent("HTTP 404"),
        b"",
        b"{}",
        says(record(name="x" * 254)),
        says(record(rows=-1)),
        says(record(version="v" * 64)),
        says(record(published_at="yesterday")),
    ],
)
async def test_a_gateway_that_does_not_answer_leaves_what_is_known(
    nonsense: bytes | Exception,
) -> None:
    gateway = Gateway(says(record()), nonsense)
    await gateway.note(batch_status("m-0"))
    await gateway.pass_time()
    assert gateway.tracker.of(KEY) == StoreAnswer(NOW, STORED)
    assert gateway.changed == []


async def test_nobody_is_asked_of_other_modes_and_of_what_is_deleted() -> None:
    gateway = Gateway(says(record()))
    await gateway.note({"mode": "realtime"})
    assert gateway.asked == []
    await gateway.note(batch_status())
    gateway.tracker.forget_all_but(())
    await gateway.pass_time()
    assert len(gateway.asked) == 1
    assert gateway.tracker.of(KEY) is None
    await gateway.note(batch_status())
    assert len(gateway.asked) == 2, "it is followed anew"
    gateway.tracker.stop()
