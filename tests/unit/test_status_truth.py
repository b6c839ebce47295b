"""A status says what is, of the generation it is true of; one cause is one event."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from fourways_operator.events import events_of
from fourways_operator.facts import Facts, Json, StoreAnswer, rfc3339
from fourways_operator.schedule import overdue_since
from fourways_operator.status import failed_status, requeue_after
from tests.kit import status_facts as batch
from tests.kit.mode_facts import (
    READY_SERVICE,
    deployment,
    ended,
    facts,
    pod,
    service,
)
from tests.kit.status_facts import WRONG, by_type, cron_job, later, status_at

FAILED = ended(3, outcome="Failed", reason="GoldenMismatch", message="3 of 10 differ")


# ---------------------------------------------------------------- generations, kstatus


def test_a_refused_update_leaves_ready_true_of_the_generation_that_serves() -> None:
    before = status_at(batch.facts(batch.GOOD_RUN))
    edited = later(batch.deployment(), before)
    status = status_at(replace(batch.facts(batch.GOOD_RUN), deployment=edited), WRONG)
    found = by_type(status)
    assert status["observedGeneration"] == 5
    assert (found["Ready"]["status"], found["Ready"]["observedGeneration"]) == ("True", 4)
    for kind in ("Degraded", "Stalled"):
        assert (found[kind]["status"], found[kind]["reason"]) == ("True", "SpecInvalid")
        assert found[kind]["observedGeneration"] == 5
        assert "Europe/Atlantis" in found[kind]["message"]
    assert "Reconciling" not in found
    # And still so when the next update is refused too.
    again = status_at(replace(batch.facts(batch.GOOD_RUN), deployment=later(edited, status)), WRONG)
    assert by_type(again)["Ready"]["observedGeneration"] == 4


def test_a_good_update_ends_the_stall() -> None:
    edited = later(batch.deployment(), status_at(batch.facts(batch.GOOD_RUN)))
    refused = status_at(replace(batch.facts(batch.GOOD_RUN), deployment=edited), WRONG)
    mended = replace(batch.facts(batch.GOOD_RUN), deployment=later(edited, refused))
    found = by_type(status_at(mended))
    assert found["Ready"]["observedGeneration"] == 6
    assert found["Degraded"]["status"] == "False"
    assert not {"Stalled", "Reconciling"} & found.keys(), "they exist only while they are True"


@pytest.mark.parametrize("mode", ["realtime", "streaming"])
def test_a_rollout_is_reconciling_and_ready_is_true_of_what_answers(mode: str) -> None:
    old = deployment(mode)
    serves = pod(old, ready=True)
    before = status_at(facts(old, serves))
    assert not {"Stalled", "Reconciling"} & by_type(before).keys()
    new = later(old, before, model=old["spec"]["model"] | {"version": "2"})
    found = by_type(status_at(facts(new, serves, pod(new))))
    assert (found["Ready"]["status"], found["Ready"]["observedGeneration"]) == ("True", 4)
    assert found["Reconciling"]["reason"] == "RollingOut"
    assert found["Reconciling"]["observedGeneration"] == 5
    done = by_type(status_at(facts(new, pod(new, ready=True))))
    assert done["Ready"]["observedGeneration"] == 5
    assert not {"Stalled", "Reconciling"} & done.keys()


@pytest.mark.parametrize(
    ("code", "reason"),
    [(75, "StoreUnavailable"), (75, "BrokerUnavailable"), (3, "TopicNotFound")],
)
def test_a_rollout_that_fails_for_the_world_is_retried(code: int, reason: str) -> None:
    document = deployment("streaming")
    passing = ended(code, outcome="Failed", reason=reason, message="it is not there")
    found = by_type(status_at(facts(document, pod(document, state=passing))))
    assert found["Degraded"]["reason"] == found["Reconciling"]["reason"] == reason
    assert "Stalled" not in found


def test_a_rollout_that_cannot_pass_is_stalled() -> None:
    document = deployment("streaming")
    found = by_type(status_at(facts(document, pod(document, state=FAILED))))
    assert found["Stalled"]["reason"] == "GoldenMismatch"
    assert "Reconciling" not in found


def test_a_run_in_progress_is_not_reconciling() -> None:
    running = (batch.job("m-2", "2026-03-01T11:00:00Z"), batch.pod("m-2", {"running": {}}))
    found = by_type(status_at(batch.facts(running, batch.GOOD_RUN)))
    assert found["Progressing"]["status"] == "True"
    assert not {"Stalled", "Reconciling"} & found.keys()


def test_a_name_that_is_taken_is_a_stall() -> None:
    taken = replace(batch.facts(), conflicts=("ServiceAccount/m-batch",))
    found = by_type(status_at(taken))
    assert found["Stalled"]["reason"] == found["Degraded"]["reason"] == "NameTaken"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("InferenceService", "KServeMissing"),
        ("RayJob", "KubeRayMissing"),
        ("ScaledObject", "KedaMissing"),
        ("ServiceMonitor", "KindMissing"),
    ],
)
def test_a_kind_that_may_come_later_is_no_stall(kind: str, reason: str) -> None:
    """Flux gives up what is Stalled; the deployment goes on by itself once the kind is there."""
    found = by_type(status_at(replace(batch.facts(), missing=(kind,))))
    assert found["Degraded"]["reason"] == found["Reconciling"]["reason"] == reason
    assert "Stalled" not in found


def test_a_status_that_cannot_be_worked_out_keeps_what_was_true() -> None:
    before = status_at(batch.facts(batch.GOOD_RUN))
    edited = later(batch.deployment(), before)
    found = by_type(failed_status(replace(batch.facts(), deployment=edited), "KeyError: 'x'"))
    assert (found["Ready"]["status"], found["Ready"]["observedGeneration"]) == ("True", 4)
    assert found["Degraded"]["reason"] == "StatusFailed"
    assert found["Degraded"]["observedGeneration"] == 5


@pytest.mark.parametrize("mode", ["realtime", "streaming"])
def test_what_a_refused_update_left_serving_is_looked_at(mode: str) -> None:
    document = deployment(mode)
    serving = pod(document, ready=True)
    before = status_at(facts(document, serving))
    edited = later(document, before)

    def ready(found: Facts) -> tuple[str, str, int]:
        condition = by_type(status_at(replace(found, deployment=edited), WRONG))["Ready"]
        return condition["status"], condition["reason"], condition["observedGeneration"]

    assert ready(facts(document, serving)) == ("True", "Answering", 4)
    assert ready(facts(document, pod(document))) == ("False", "NotReady", 4)
    away = replace(facts(document, serving), gateway=None)
    assert ready(away) == ("False", "WaitingForGateway", 4)
    # And when gateway and pods are back, it serves again.
    for lost in (away, facts(document, pod(document))):
        edited = later(edited, status_at(replace(lost, deployment=edited), WRONG))
        assert ready(facts(document, serving)) == ("True", "Answering", 4)


def test_a_refused_update_does_not_hide_an_emptied_store() -> None:
    edited = later(batch.deployment(), status_at(batch.facts(batch.GOOD_RUN)))
    emptied = replace(
        batch.facts(batch.GOOD_RUN), deployment=edited, store=StoreAnswer(batch.NOW, None)
    )
    assert by_type(status_at(emptied, WRONG))["Ready"]["status"] == "False"


# ---------------------------------------------------------------- refused pods


def test_a_run_whose_pods_are_refused_says_so_with_the_quotas_words() -> None:
    job = batch.job("m-2", "2026-03-01T11:59:00Z")
    words = 'pods "m-2-0-x" is forbidden: exceeded quota: none, requested: pods=1'
    found = by_type(status_at(replace(batch.facts(), children=(job,), refused_pods={"m-2": words})))
    assert (found["Degraded"]["status"], found["Degraded"]["reason"]) == ("True", "PodRefused")
    assert "exceeded quota: none" in found["Degraded"]["message"]
    assert "exceeded quota: none" in found["Ready"]["message"]


def test_pods_that_were_refused_and_came_are_no_failure() -> None:
    job = batch.job("m-1", "2026-03-01T03:00:00Z", "Complete")
    run = (job, batch.GOOD_RUN[1])
    found = by_type(status_at(replace(batch.facts(run), refused_pods={"m-1": "exceeded quota"})))
    assert found["Degraded"]["status"] == "False"


def test_a_job_without_pods_is_looked_at_again() -> None:
    job = batch.job("m-2", rfc3339(batch.NOW - timedelta(seconds=4)))
    assert requeue_after(replace(batch.facts(), children=(job,))) == 7.0


def test_a_gateway_whose_pods_are_refused_says_why() -> None:
    refused = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: none"}
    gateway = {"status": {"availableReplicas": 0, "conditions": [refused]}}
    found = by_type(status_at(batch.facts(batch.GOOD_RUN, gateway=gateway)))
    assert found["Ready"]["reason"] == found["Degraded"]["reason"] == "PodRefused"
    assert "exceeded quota: none" in found["Ready"]["message"]


# ---------------------------------------------------------------- schedules


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


YESTERDAY = cron_job("2026-02-28T03:00:00Z")


@pytest.mark.parametrize(
    ("cron", "now", "overdue"),
    [
        (YESTERDAY, "2026-03-01T02:59:00", None),
        (YESTERDAY, "2026-03-01T03:01:59", None),
        (YESTERDAY, "2026-03-01T03:02:01", "2026-03-01T03:00:00"),
        (YESTERDAY, "2026-03-04T00:00:00", "2026-03-01T03:00:00"),
        (cron_job(None), "2026-01-01T02:00:00", None),
        (cron_job(None), "2026-01-01T03:05:00", "2026-01-01T03:00:00"),
        (cron_job("2026-02-28T03:00:00Z", suspend=True), "2026-03-04T00:00:00", None),
        (
            cron_job("2026-02-28T02:00:00Z", timeZone="Europe/Berlin"),
            "2026-03-01T02:05:00",
            "2026-03-01T02:00:00",
        ),
    ],
)
def test_a_run_that_was_due_and_did_not_start_is_overdue(
    cron: Json, now: str, overdue: str | None
) -> None:
    assert overdue_since(cron, None, at(now)) == (at(overdue) if overdue else None)


def test_what_was_due_before_an_edit_or_during_a_run_is_not_overdue() -> None:
    edited = cron_job("2026-02-28T03:00:00Z")
    edited["metadata"]["managedFields"] = [
        {"manager": "fourways", "time": "2026-03-01T12:00:00Z"},
        {"manager": "kube-controller-manager", "time": "2026-03-01T13:00:00Z"},
    ]
    assert overdue_since(edited, None, at("2026-03-01T14:00:00")) is None
    active = cron_job("2026-02-28T03:00:00Z")
    active["status"]["active"] = [{"name": "m-1"}]
    assert overdue_since(active, None, at("2026-03-04T00:00:00")) is None
    ended_late = at("2026-03-01T10:00:00")
    assert overdue_since(YESTERDAY, ended_late, at("2026-03-01T11:00:00")) is None


def test_an_overdue_schedule_degrades_and_answers_stay_ready() -> None:
    found = batch.facts(batch.GOOD_RUN)
    overdue = replace(
        found,
        children=(*found.children, cron_job("2026-03-01T03:00:00Z")),
        now=datetime(2026, 3, 3, 12, 0, tzinfo=UTC),
    )
    said = by_type(status_at(overdue))
    assert said["Ready"]["status"] == "True"
    assert said["Degraded"]["reason"] == "ScheduleOverdue"
    assert "due at 2026-03-02T03:00:00Z" in said["Degraded"]["message"]


# ---------------------------------------------------------------- scaling, events


def test_scaling_up_does_not_end_ready() -> None:
    document = deployment("realtime")
    waits = [
        {"type": "PredictorReady", "status": "False", "message": "1 of 3 replicas available"},
        {"type": "Ready", "status": "False", "message": "1 of 3 replicas available"},
    ]
    scaling = service(document, {**READY_SERVICE, "conditions": waits})
    pods = (pod(document, ready=True), pod(document), pod(document))
    found = by_type(status_at(facts(document, *pods, children=(scaling,))))
    assert found["Ready"]["status"] == "True"


def told(old: Json | None, new: Json) -> list[tuple[str, str]]:
    return [(e.type, str(e.reason)) for e in events_of(old, new)]


def test_one_cause_is_one_event() -> None:
    document = deployment("streaming")
    starts = status_at(facts(document))
    broken = status_at(facts(document, pod(document, state=FAILED)))
    assert told(starts, broken) == [("Warning", "GoldenMismatch")]
    assert told(broken, broken) == []


def test_a_refused_update_is_one_warning() -> None:
    before = status_at(batch.facts(batch.GOOD_RUN))
    edited = replace(batch.facts(batch.GOOD_RUN), deployment=later(batch.deployment(), before))
    assert told(before, status_at(edited, WRONG)) == [("Warning", "Invalid")]


def test_waiting_for_the_gateway_is_usual_at_first_and_a_warning_when_it_is_lost() -> None:
    away = status_at(batch.facts(gateway=None))
    assert told(None, away) == [("Normal", "Valid"), ("Normal", "WaitingForGateway")]
    ready = status_at(batch.facts(batch.GOOD_RUN))
    lost = status_at(batch.facts(batch.GOOD_RUN, gateway=None))
    assert told(ready, lost) == [("Warning", "WaitingForGateway")]


@pytest.mark.parametrize(
    "report",
    [
        {"version": "v" * 64},
        {"digest": "d" * 72},
        {"reason": "r" * 129},
        {"run": "n" * 254},
    ],
)
def test_a_report_that_no_status_can_hold_is_none(report: Json) -> None:
    """A worker's image may be anybody's: what it says must not end the status."""
    state = ended(1, **({"outcome": "Failed", "reason": "X", "message": "m"} | report))
    run = (batch.job("m-2", "2026-03-01T11:00:00Z", "Failed"), batch.pod("m-2", state))
    found = by_type(status_at(batch.facts(run)))
    assert found["Degraded"]["reason"] == "WorkerFailed"
