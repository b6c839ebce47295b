"""Status is a function of facts: each case is what the cluster has, and what must be said of it."""

from datetime import datetime

import pytest

from fourways_api import Problem, parse
from fourways_operator.events import events_of
from fourways_operator.facts import Facts
from fourways_operator.status import next_run, pinned_digest, status_of
from tests.kit.faults import RUNS
from tests.kit.status_facts import (
    DIGEST,
    FAILED_RUN,
    GATEWAY,
    GOOD_RUN,
    NOW,
    conditions,
    deployment,
    facts,
    job,
    pod,
)


def test_before_the_first_run_it_waits_and_says_how_to_start_one() -> None:
    said = conditions(facts())
    assert said["Ready"]["status"] == "False"
    assert said["Ready"]["reason"] == "WaitingForFirstRun"
    assert "fourways start-run m" in said["Ready"]["message"]
    assert said["ModelResolved"]["status"] == "Unknown"


def test_a_published_run_makes_it_ready_and_its_figures_are_told() -> None:
    status = status_of(facts(GOOD_RUN), (), parse(deployment()))
    assert {c["type"]: c["status"] for c in status["conditions"]} == {
        "SpecValid": "True",
        "Ready": "True",
        "Progressing": "False",
        "Degraded": "False",
        "ModelResolved": "True",
    }
    assert status["lastPublished"]["rows"] == 10
    assert status["lastPublished"]["rejects"] == 1
    assert status["model"] == {"version": "2", "digest": DIGEST}
    assert status["nextRun"] == "2026-03-02T03:00:00Z"
    assert status["observedGeneration"] == 4


def test_a_failed_run_degrades_but_what_was_published_still_serves() -> None:
    said = conditions(facts(FAILED_RUN, GOOD_RUN))
    assert said["Ready"]["status"] == "True"
    assert said["Degraded"] | {"lastTransitionTime": ""} == {
        "type": "Degraded",
        "status": "True",
        "reason": "DigestMismatch",
        "message": "run m-2 failed: not the same bytes",
        "observedGeneration": 4,
        "lastTransitionTime": "",
    }
    assert said["ModelResolved"]["status"] == "False"


def test_a_first_run_that_failed_is_the_reason_for_not_being_ready() -> None:
    said = conditions(facts(FAILED_RUN))
    assert said["Ready"]["status"] == "False"
    assert said["Ready"]["reason"] == "DigestMismatch"


@pytest.mark.parametrize(
    ("state", "more", "reason", "words", "fix"),
    RUNS,
)
def test_a_run_in_trouble_is_named_by_its_root_cause(
    state: dict, more: dict, reason: str, words: str, fix: str
) -> None:
    said = conditions(facts((job("m-3", "2026-03-01T03:00:00Z"), pod("m-3", state, **more))))
    assert said["Degraded"]["reason"] == reason
    assert words in said["Degraded"]["message"]
    assert fix in said["Degraded"]["message"]
    assert said["Ready"]["status"] == "False"


def test_an_image_with_a_model_is_named_if_the_node_cannot_pull_it() -> None:
    said = 'failed to pull and unpack image "registry.test/model:1": not found'
    waiting = pod("m-3", {"waiting": {"reason": "ErrImagePull", "message": said}})
    waiting["spec"] = {"volumes": [{"name": "m", "image": {"reference": "registry.test/model:1"}}]}
    found = conditions(facts((job("m-3", "2026-03-01T03:00:00Z"), waiting)))
    assert found["Degraded"]["reason"] == "ImageUnavailable"
    assert "registry.test/model:1 cannot be pulled" in found["Degraded"]["message"]


def test_a_crash_loop_is_named_by_what_crashed_it_and_not_by_its_pause() -> None:
    crash = {
        "terminated": {
            "exitCode": 2,
            "message": '{"outcome":"Failed","reason":"ConfigError","message":"no port"}',
        }
    }
    gateway_pod = {
        "metadata": {"name": "g", "labels": {"fourways.dev/component": "gateway"}},
        "status": {
            "containerStatuses": [
                {
                    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
                    "lastState": crash,
                }
            ]
        },
    }
    said = conditions(Facts(deployment(), pods=(gateway_pod,), gateway=None, now=NOW))
    assert said["Ready"]["reason"] == "ConfigError"
    assert said["Ready"]["message"] == "waiting for the gateway: no port"


def test_what_the_api_server_refuses_is_told() -> None:
    refused = Facts(
        deployment(),
        gateway=GATEWAY,
        now=NOW,
        faults=("patch CronJob/m-batch: exceeded quota",),
    )
    said = conditions(refused)
    assert (said["Ready"]["status"], said["Ready"]["reason"]) == ("False", "ApplyFailed")
    assert "exceeded quota" in said["Degraded"]["message"]


def test_a_status_that_another_version_wrote_is_written_anew() -> None:
    raw = deployment() | {"status": {"observedGeneration": "four", "unknown": [1]}}
    assert conditions(facts(raw=raw))["SpecValid"]["status"] == "True"


def test_it_is_not_ready_while_the_gateway_that_serves_it_is_not() -> None:
    assert conditions(facts(GOOD_RUN, gateway=None))["Ready"]["reason"] == "WaitingForGateway"


def test_an_invalid_edit_is_said_and_what_serves_stays_ready() -> None:
    before = facts(GOOD_RUN)
    raw = deployment() | {"status": status_of(before, (), parse(before.deployment))}
    raw["metadata"]["generation"] = 5
    after = conditions(facts(GOOD_RUN, raw=raw), Problem("spec.mode", "no such mode", "use batch"))
    assert after["SpecValid"]["status"] == "False"
    assert "spec.mode: no such mode; use batch" in after["SpecValid"]["message"]
    assert after["Ready"]["status"] == "True"
    assert after["SpecValid"]["observedGeneration"] == 5


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    first = facts(GOOD_RUN)
    raw = deployment() | {"status": status_of(first, (), parse(first.deployment))}
    later = Facts(
        raw, children=first.children, pods=first.pods, gateway=GATEWAY, now=NOW.replace(hour=13)
    )
    assert status_of(later, (), parse(raw)) == raw["status"]
    degraded = facts(FAILED_RUN, GOOD_RUN, raw=raw)
    later = Facts(
        raw,
        children=degraded.children,
        pods=degraded.pods,
        gateway=GATEWAY,
        now=NOW.replace(hour=13),
    )
    status = status_of(later, (), parse(raw))
    moved = {c["type"]: c["lastTransitionTime"] for c in status["conditions"]}
    assert moved["Ready"] == "2026-03-01T12:00:00Z"
    assert moved["Degraded"] == "2026-03-01T13:00:00Z"


def test_what_was_published_is_remembered_when_its_job_is_gone() -> None:
    first = facts(GOOD_RUN)
    raw = deployment() | {"status": status_of(first, (), parse(first.deployment))}
    status = status_of(facts(raw=raw), (), parse(raw))
    assert status["lastPublished"]["name"] == "m-1"
    assert {c["type"]: c["status"] for c in status["conditions"]}["Ready"] == "True"


def test_a_digest_trusted_on_first_use_is_pinned_until_the_uri_changes() -> None:
    model = {"uri": "https://m.test/m.onnx", "version": "2", "digestPolicy": "TrustOnFirstUse"}
    raw = deployment(model=model)
    raw["status"] = status_of(facts(GOOD_RUN, raw=raw), (), parse(raw))
    assert pinned_digest(raw) == DIGEST
    raw["spec"]["model"] = model | {"uri": "https://m.test/other.onnx"}
    assert pinned_digest(raw) is None


@pytest.mark.parametrize(
    ("schedule", "zone", "now", "due"),
    [
        ("0 3 * * *", "Etc/UTC", "2026-03-01T12:00:00Z", "2026-03-02T03:00:00Z"),
        ("@hourly", "Etc/UTC", "2026-03-01T12:00:00Z", "2026-03-01T13:00:00Z"),
        ("0 3 * * *", "Europe/Berlin", "2026-07-01T12:00:00Z", "2026-07-02T01:00:00Z"),
        # The night the clocks go forward has no half past two: Kubernetes skips that run.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-30T00:30:00Z"),
        ("0 6 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T04:00:00Z"),
    ],
)
def test_the_next_run_is_told_in_utc(schedule: str, zone: str, now: str, due: str) -> None:
    assert next_run(schedule, zone, datetime.fromisoformat(now)) == due


def test_a_suspended_deployment_has_no_next_run() -> None:
    raw = deployment()
    raw["spec"]["batch"]["suspend"] = True
    assert "nextRun" not in status_of(facts(raw=raw), (), parse(raw))


def test_events_tell_changes_once() -> None:
    first = status_of(facts(), (), parse(deployment()))
    ready = status_of(facts(GOOD_RUN), (), parse(deployment()))
    failed = status_of(facts(FAILED_RUN, GOOD_RUN), (), parse(deployment()))
    assert [(e.type, e.reason) for e in events_of(None, first)] == [
        ("Normal", "Valid"),
        ("Normal", "WaitingForFirstRun"),
    ]
    assert ("Normal", "Published") in [(e.type, e.reason) for e in events_of(first, ready)]
    assert ("Warning", "DigestMismatch") in [(e.type, e.reason) for e in events_of(ready, failed)]
    assert events_of(ready, ready) == []
