"""Status of workloads that answer as long as they live, and of builds: facts in, words out."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from fourways_api import Problem
from fourways_operator.facts import Facts, Json
from fourways_operator.plan import routes
from fourways_operator.pods import config_text, failure_of, report_of
from fourways_operator.status import requeue_after
from tests.kit.mode_facts import (
    DIGEST,
    NOW,
    READY_SERVICE,
    before,
    deployment,
    ended,
    facts,
    failed,
    gateway,
    main_of,
    pod,
    said,
    service,
    status,
)

SERVED = pytest.mark.parametrize("mode", ["realtime", "streaming"])


@SERVED
def test_it_is_ready_when_a_pod_answers_and_the_gateway_leads_there(mode: str) -> None:
    document = deployment(mode)
    found = facts(document, pod(document, ready=True))
    assert said(found) == {
        "SpecValid": "True Valid: the spec is valid",
        "Ready": "True Answering: version 1 serves predictions",
        "Progressing": "False Idle: nothing is in progress",
        "Degraded": "False AsExpected: no problem is known",
        "ModelResolved": "True Loaded: version 1 is loaded and serves predictions",
    }
    told = status(found)
    assert told["model"] == {"version": "1"}
    assert told["address"] == "http://fourways-gateway.demo.svc/v2/models/m/infer"
    assert not {"lastRun", "nextRun", "bundles"} & told.keys()


@SERVED
def test_it_starts(mode: str) -> None:
    document = deployment(mode)
    found = said(facts(document, pod(document)))
    assert found["Ready"] == "False Starting: version 1 is starting"
    assert found["Progressing"] == "True RollingOut: version 1 is ready in 0 of 1 pods"
    assert found["ModelResolved"].startswith("Unknown NotFetchedYet")


TROUBLES = [
    ({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}, "OOMKilled", "resources.memory"),
    ({"waiting": {"reason": "ImagePullBackOff"}}, "ImageUnavailable", "runtime:1"),
    (failed("DigestMismatch", "other bytes"), "DigestMismatch", "other bytes"),
    (failed("ModelNotLoadable", "cut short"), "ModelNotLoadable", "cut short"),
    (failed("TopicNotFound", "no topic t"), "TopicNotFound", "no topic t"),
    ({"waiting": {"reason": "CrashLoopBackOff"}}, "WorkerEnded", "repeatedly"),
    (
        {"waiting": {"reason": "CreateContainerConfigError", "message": "no Secret"}},
        "CreateContainerConfigError",
        "no Secret",
    ),
    (
        {"waiting": {"reason": "SignatureValidationFailed", "message": "not signed"}},
        "SignatureValidationFailed",
        "not signed",
    ),
    ({"waiting": {"reason": "RegistryUnavailable"}}, "ImageUnavailable", "runtime:1"),
    (
        {"terminated": {"exitCode": 128, "reason": "StartError", "message": "no python3"}},
        "RunContainerError",
        "no python3",
    ),
]


def evicted(document: Json, **meta: Any) -> Json:
    """Return a pod that the kubelet has ended, and which nobody deletes."""
    gone = pod(document, state={"terminated": {"exitCode": 137, "reason": "Error"}}, **meta)
    gone["status"] |= {"phase": "Failed", "reason": "Evicted", "message": "low on memory"}
    return gone


@SERVED
def test_an_evicted_pod_does_not_count_once_another_is_ready(mode: str) -> None:
    old, new = deployment(mode, "1"), deployment(mode, "2")
    live = [pod(new, ready=True), evicted(new, name="e"), evicted(old, name="f")]
    found = said(facts(new, *live))
    assert found["Ready"] == "True Answering: version 2 serves predictions"
    assert found["Degraded"].startswith("False")
    assert found["Progressing"].startswith("False Idle")


@SERVED
def test_an_eviction_is_told_until_another_pod_is_ready(mode: str) -> None:
    document = deployment(mode)
    found = said(facts(document, pod(document), evicted(document, name="e")))
    assert found["Ready"] == "False Evicted: its pod was ended: low on memory"
    assert found["Degraded"].startswith("True Evicted")


@SERVED
def test_a_pod_that_a_controller_holds_back_is_not_said_to_find_no_node(mode: str) -> None:
    document = deployment(mode)
    held = pod(document)
    held["spec"] = {**held["spec"], "schedulingGates": [{"name": "kueue.x-k8s.io/admission"}]}
    blocked = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}
    held["status"] = {"phase": "Pending", "conditions": [blocked]}
    found = said(facts(document, held))
    assert found["Ready"].startswith("False SchedulingGated: its pod is not scheduled yet: kueue")


def test_an_evicted_pod_of_the_gateway_is_no_fault_of_the_one_in_its_place() -> None:
    document = deployment("streaming")
    found = facts(document, pod(document, ready=True))
    gone = deepcopy(found.pods[-1])
    gone["status"] = {"phase": "Failed", "reason": "Evicted", "message": "low on memory"}
    assert said(replace(found, pods=(*found.pods, gone))) == said(found)


@SERVED
@pytest.mark.parametrize(("state", "reason", "words"), TROUBLES)
def test_what_keeps_a_first_version_from_coming_up_is_named(
    mode: str, state: Json, reason: str, words: str
) -> None:
    document = deployment(mode)
    found = said(facts(document, pod(document, state=state)))
    for kind, is_so in (("Ready", "False"), ("Degraded", "True"), ("Progressing", "False")):
        assert found[kind].startswith(f"{is_so} {reason}: "), kind
        assert words in found[kind]


@SERVED
def test_a_crash_loop_is_named_by_the_last_words(mode: str) -> None:
    document = deployment(mode)
    broken = pod(document, state={"waiting": {"reason": "CrashLoopBackOff"}})
    words = failed("GoldenMismatch", "vector 3 came out as 0.1")
    broken["status"]["containerStatuses"][0]["lastState"] = words
    found = said(facts(document, broken))
    assert found["Ready"] == "False GoldenMismatch: vector 3 came out as 0.1"
    assert found["ModelResolved"] == "False GoldenMismatch: vector 3 came out as 0.1"


@SERVED
def test_a_broken_new_version_leaves_the_old_one_ready(mode: str) -> None:
    old, new = deployment(mode, "1"), deployment(mode, "2")
    broken = pod(new, state=failed("DigestMismatch", "other bytes"))
    found = facts(new, broken, pod(old, ready=True), known=old)
    assert said(found) == {
        "SpecValid": "True Valid: the spec is valid",
        "Ready": (
            "True Answering: version 1 serves predictions; version 2 does not start: other bytes"
        ),
        "Progressing": "False DigestMismatch: the rollout has stopped: other bytes",
        "Degraded": "True DigestMismatch: version 2 does not start: other bytes;"
        " version 1 serves predictions",
        "ModelResolved": "False DigestMismatch: other bytes",
        "Stalled": "True DigestMismatch: version 2 does not start: other bytes;"
        " version 1 serves predictions",
    }
    assert status(found)["model"]["version"] == "1"


@SERVED
def test_what_ailed_the_old_version_is_not_held_against_the_new(mode: str) -> None:
    old, new = deployment(mode, "1"), deployment(mode, "2")
    broken = pod(old, state=failed("DigestMismatch", "other bytes"))
    found = said(facts(new, broken, pod(new)))
    assert found["Degraded"].startswith("False")
    assert found["Ready"].startswith("False Starting")


@SERVED
def test_a_rollout_is_progress_until_the_old_pods_are_gone(mode: str) -> None:
    old, new = deployment(mode, "1"), deployment(mode, "2")
    both = facts(new, pod(new, ready=True), pod(old, ready=True))
    assert said(both)["Ready"] == "True Answering: version 2 serves predictions"
    assert said(both)["Progressing"].startswith("True RollingOut")
    going = pod(old, ready=True, deletionTimestamp=before(1))
    assert said(facts(new, pod(new, ready=True), going))["Progressing"].startswith("False Idle")


@SERVED
def test_a_pod_that_got_over_its_trouble_is_in_none(mode: str) -> None:
    document = deployment(mode)
    well = pod(document, ready=True)
    well["status"]["containerStatuses"][0]["lastState"] = failed("FetchFailed", "timed out")
    assert said(facts(document, well))["Degraded"].startswith("False")


@SERVED
def test_it_waits_until_the_gateway_knows_of_it(mode: str) -> None:
    document = deployment(mode)
    other = deployment("batch")
    found = said(facts(document, pod(document, ready=True), known=other))
    assert found["Ready"].startswith("False WaitingForGateway: waiting for the gateway to load")
    assert found["Progressing"].startswith("True GatewayRolling")


@SERVED
def test_another_version_in_the_route_is_progress_and_no_reason_not_to_be_ready(mode: str) -> None:
    old, new = deployment(mode, "1"), deployment(mode, "2")
    found = said(facts(new, pod(new, ready=True), known=old))
    assert found["Ready"].startswith("True")
    assert found["Progressing"].startswith("True GatewayRolling")


def test_a_gateway_that_can_be_told_no_more_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    others = [deployment("realtime") for _ in range(3)]
    for number, other in enumerate(others):
        other["metadata"]["name"] = f"other-{number}"
    live, gateway_pod = gateway(*others)
    size = len(config_text(live))
    monkeypatch.setattr(routes, "MAX_CONFIG_BYTES", size + 10)
    document = deployment("realtime")
    told = routes.config_of(live)
    assert told
    full, _ = gateway(*others, document, before=told.routes)
    assert routes.config_of(full) == told
    found = facts(document, pod(document, ready=True))
    pods = (*found.pods[:-1], gateway_pod)
    found = Facts(document, found.wanted, found.children, pods=pods, gateway=live, now=NOW)
    assert said(found)["Ready"].startswith("False GatewayFull: the gateway of namespace demo")


def test_a_pod_that_is_not_started_for_long_says_what_it_may_wait_for() -> None:
    document = deployment("realtime")
    creating = {"waiting": {"reason": "ContainerCreating"}}
    fresh = facts(document, pod(document, state=creating))
    assert said(fresh)["Ready"].startswith("False Starting")
    assert requeue_after(fresh) == 11.0
    stuck = facts(document, pod(document, state=creating, creationTimestamp=before(20)))
    assert "waits for the claim models or its image" in said(stuck)["Ready"]
    assert requeue_after(stuck) is None


def test_a_pod_that_runs_and_is_not_ready_for_long_says_so() -> None:
    document = deployment("streaming")
    assert said(facts(document, pod(document)))["Ready"].startswith("False Starting")
    slow = pod(document, creationTimestamp=before(20))
    assert said(facts(document, slow))["Ready"].startswith("False NotReady: its pod runs and is")


def test_kserves_silence_is_looked_at_again() -> None:
    document = deployment("realtime")
    fresh = facts(document, children=(service(document, None, 5),))
    assert requeue_after(fresh) == 26.0


def test_what_keeps_pods_from_being_made_is_named() -> None:
    document = deployment("streaming")
    live = deepcopy(main_of(document))
    refused = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: small"}
    live["status"] = {"conditions": [refused]}
    found = said(facts(document, children=(live,)))
    assert found["Ready"] == "False PodRefused: its pods are rejected: exceeded quota: small"


def _kserve(
    status: Json | None, age: float = 60, *, ready: bool = True
) -> Callable[[], dict[str, str]]:
    document = deployment("realtime")
    pods = [pod(document, ready=True)] if ready else []
    return lambda: said(facts(document, *pods, children=(service(document, status, age),)))


LATE = {"type": "PredictorReady", "status": "False", "reason": "ProgressDeadlineExceeded"}
UNKNOWN = {"type": "PredictorReady", "status": "Unknown", "message": "ReplicaSet is progressing"}
NO_RUNTIME = {
    "transitionStatus": "InvalidSpec",
    "lastFailureInfo": {"reason": "NoSupportingRuntime", "message": "no runtime for teller"},
}
DENIED = {"type": "PredictorReady", "status": "False", "reason": "ReconcileFailed", "message": "no"}


@pytest.mark.parametrize(
    ("conditions", "ready", "degraded"),
    [
        (_kserve(None, 5), "False WaitingForKServe: waiting for KServe to handle", "False"),
        (_kserve(None, 31), "False KServeSilent: no KServe controller", "True KServe"),
        (
            _kserve({"conditions": [UNKNOWN]}),
            "False WaitingForKServe: waiting for KServe: Repl",
            "F",
        ),
        (_kserve({**READY_SERVICE, "conditions": [LATE]}), "True Answering", "False"),
        (
            _kserve({**READY_SERVICE, "address": {}}),
            "False WaitingForKServe: waiting for KServe: it has published no",
            "False",
        ),
        (
            _kserve({"conditions": [UNKNOWN], "modelStatus": NO_RUNTIME}, ready=False),
            "False KServeFailed: KServe: no runtime for teller",
            "True KServeFailed",
        ),
        (
            _kserve({"conditions": [DENIED]}, ready=False),
            "False ReconcileFailed: KServe: no",
            "True ReconcileFailed: KServe: no",
        ),
    ],
)
def test_what_kserve_says_is_heard(
    conditions: Callable[[], dict[str, str]], ready: str, degraded: str
) -> None:
    assert conditions()["Ready"].startswith(ready)
    assert conditions()["Degraded"].startswith(degraded)


def test_without_kserve_it_says_how_to_get_it() -> None:
    document = deployment("realtime")
    found = said(facts(document, children=(), missing=("InferenceService",)))
    for kind, is_so in (("Ready", "False"), ("Degraded", "True")):
        assert found[kind].startswith(f"{is_so} KServeMissing: the cluster has no")
        assert "install KServe 0.20" in found[kind]


# ---------------------------------------------------------------- edge

BUNDLE = {
    "target": "till",
    "digest": DIGEST,
    "variant": "int8",
    "sizeMiB": 1.5,
    "memoryMiB": 20.0,
    "latencyMs": 0.5,
    "agreement": 1.0,
}
BUILT = ended(0, outcome="Succeeded", version="1", digest=DIGEST, bundles=[BUNDLE])
TABLE = "till: fp32 12 MiB > 8 MiB; int8 agreement 0.91 < 0.99"


def job(document: Json, outcome: str | None = None) -> Json:
    live = deepcopy(main_of(document))
    live["metadata"]["creationTimestamp"] = before(30)
    ends = [{"type": outcome, "status": "True", "reason": "PodFailurePolicy"}] if outcome else []
    return live | {"status": {"startTime": before(30), "conditions": ends}}


def edge(
    document: Json, outcome: str | None, state: Json | None, known: Json | None = None
) -> Facts:
    pods = [pod(document, state=state)] if state else []
    return facts(document, *pods, known=known or document, children=(job(document, outcome),))


def test_a_build_is_awaited() -> None:
    document = deployment("edge")
    found = said(edge(document, None, {"running": {}}, known=deployment("batch")))
    assert found["Ready"].startswith("False BuildInProgress: build m-edge-")
    assert found["Progressing"].startswith("True BuildInProgress")


def test_what_was_built_is_told() -> None:
    document = deployment("edge")
    found = edge(document, "Complete", BUILT)
    assert said(found)["Ready"] == "True Published: bundles of version 1 are served for till"
    told = status(found)
    assert told["bundles"] == [BUNDLE]
    assert told["model"] == {"version": "1", "digest": DIGEST}
    assert told["address"] == "http://fourways-gateway.demo.svc/bundles/m/"
    # Its pod may be cleaned up.
    later = edge(document | {"status": told}, "Complete", None)
    assert status(later)["bundles"] == [BUNDLE]
    assert said(later)["Ready"].startswith("True Published")


def test_built_and_not_known_to_the_gateway_is_not_ready() -> None:
    document = deployment("edge")
    found = said(edge(document, "Complete", BUILT, known=deployment("batch")))
    assert found["Ready"].startswith("False WaitingForGateway")


def test_a_first_build_that_failed_says_what_was_measured() -> None:
    document = deployment("edge")
    words = ended(7, outcome="Failed", reason="BudgetExceeded", message=TABLE)
    found = said(edge(document, "Failed", words, known=deployment("batch")))
    assert found["Ready"] == f"False BudgetExceeded: nothing has been built yet: {TABLE}"
    assert TABLE in found["Degraded"]
    assert "delete Job m-edge-" in found["Degraded"]


def test_a_later_build_that_failed_leaves_the_bundles_before_it_served() -> None:
    old = deployment("edge", "1")
    new = deployment("edge", "2", status(edge(old, "Complete", BUILT)))
    words = ended(7, outcome="Failed", reason="BudgetExceeded", message=TABLE)
    found = edge(new, "Failed", words, known=old)
    assert said(found)["Ready"] == (
        "True Published: bundles of version 1 are served for till, from an earlier build"
    )
    assert said(found)["Degraded"].startswith("True BudgetExceeded")
    assert status(found)["bundles"] == [BUNDLE]
    assert status(found)["model"]["version"] == "1"


def test_another_mode_forgets_what_the_old_one_remembered() -> None:
    edge_status = status(edge(deployment("edge"), "Complete", BUILT))
    document = deployment("streaming", "1", edge_status)
    told = status(facts(document, pod(document)))
    assert not {"bundles", "lastRun", "lastPublished", "nextRun"} & told.keys()
    assert "version" not in told.get("model", {})


def test_an_invalid_edit_leaves_what_answers_ready() -> None:
    document = deployment("realtime")
    good = status(facts(document, pod(document, ready=True)))
    raw = document | {"status": good}
    found = said(facts(raw, pod(document, ready=True)), Problem("spec.mode", "no", "use batch"))
    assert found["Ready"].startswith("True Answering")
    assert found["SpecValid"].startswith("False Invalid")


def test_a_failure_of_the_container_that_runs_first_is_named_from_its_own_words() -> None:
    message = '{"outcome": "Failed", "reason": "BudgetExceeded", "message": "no variant fits"}'
    first = {"state": {"terminated": {"exitCode": 7, "message": message}}}
    second = {"state": {"waiting": {"reason": "PodInitializing"}}}
    status = {"containerStatuses": [second], "initContainerStatuses": [first]}
    found = failure_of({"metadata": {}, "status": status})
    assert found is not None
    assert (found.reason, found.message) == ("BudgetExceeded", "no variant fits")
    # The last words of a pod that succeeded are those of the container that ended it.
    built = '{"outcome": "Succeeded", "message": "built"}'
    published = '{"outcome": "Succeeded", "message": "published"}'
    states = [
        {"state": {"terminated": {"exitCode": 0, "message": it}}} for it in (built, published)
    ]
    pod = {"metadata": {}, "status": {"containerStatuses": states[1:]}}
    pod["status"]["initContainerStatuses"] = states[:1]
    report = report_of(pod)
    assert report is not None
    assert report.message == "published"
