"""What a running worker says of itself becomes a condition, and goes with its cause."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from fourways_api import parse
from fourways_api.reasons import Reason
from fourways_api.worker_faults import MAX_FAULT_MESSAGE, WorkerFaults, worker_fault
from fourways_operator.errors import GatewaySilent
from fourways_operator.events import events_of
from fourways_operator.facts import Facts, Json
from fourways_operator.plan.worker import PORT
from fourways_operator.pods import MAX_MESSAGE
from fourways_operator.work_queue import Key
from fourways_operator.worker_faults import (
    MAX_ASKED,
    MAX_SILENCE,
    NOTHING_WRONG,
    PAUSE,
    WorkerFaultTracker,
    urls_of_workers,
)
from tests.kit.asked_gateway import AskedGateway
from tests.kit.mode_facts import deployment, facts, failed, pod, said, status

REFUSED = "the feature database: password authentication failed (Secret crm)"
FEATURES = {"database": {"secretName": "crm"}, "table": "people"}


def with_features(on_timeout: str = "Fail") -> Json:
    document = deployment("realtime")
    document["spec"]["realtime"]["features"] = FEATURES | {"onTimeout": on_timeout}
    return document


def faults(reason: str, message: str = REFUSED) -> WorkerFaults:
    return WorkerFaults(faults=(worker_fault(reason, message),))


def judged(document: Json, *pods: Json, **found: WorkerFaults) -> Facts:
    return replace(facts(document, *pods), worker_faults=found)


# ---------------------------------------------------------------- what it means


def test_a_feature_database_that_refuses_everybody_ends_ready() -> None:
    document = with_features()
    found = said(judged(document, pod(document, ready=True), p=faults(Reason.FeaturesUnavailable)))
    assert found["Degraded"] == f"True FeaturesUnavailable: {REFUSED}"
    assert found["Ready"] == (
        f"False FeaturesUnavailable: requests that leave inputs out are refused: {REFUSED}"
    )
    assert found["Progressing"] == "False Idle: nothing is in progress"
    assert found["Reconciling"].startswith("True FeaturesUnavailable")


def test_a_certificate_that_gateways_refuse_ends_ready() -> None:
    document, told = deployment("realtime"), "Secret servers: gateways do not accept it"
    both = pod(document, ready=True), pod(document, ready=True, name="q")
    expired = faults(Reason.CertificateInvalid, told)
    found = said(judged(document, *both, p=expired, q=expired))
    assert found["Ready"] == f"False CertificateInvalid: {told}"
    assert found["Degraded"] == f"True CertificateInvalid: {told}"
    found = said(judged(document, *both, p=expired))
    assert found["Ready"].startswith("True Answering"), "one accepted certificate is enough"


def test_a_ready_model_server_with_a_certificate_is_asked() -> None:
    document = deployment("realtime")
    for name, asked in (("https", 1), ("http", 0)):
        ready = pod(document, ready=True)
        ready["status"] |= {"phase": "Running", "podIP": "10.0.0.1"}
        ready["spec"]["containers"][0]["ports"] = [{"name": name, "containerPort": 8443}]
        assert len(urls_of_workers(parse(document), [ready])) == asked


def test_with_defaults_it_is_degraded_and_ready() -> None:
    document = with_features("UseDefaults")
    found = said(judged(document, pod(document, ready=True), p=faults(Reason.FeaturesUnavailable)))
    assert found["Degraded"] == f"True FeaturesUnavailable: {REFUSED}"
    assert found["Ready"] == "True Answering: version 1 serves predictions"


def test_one_model_server_that_gets_features_is_enough() -> None:
    document = with_features()
    both = pod(document, ready=True), pod(document, ready=True, name="q")
    found = said(judged(document, *both, p=faults(Reason.FeaturesUnavailable)))
    assert found["Ready"].startswith("True Answering")
    assert found["Degraded"].startswith("True FeaturesUnavailable")


@pytest.mark.parametrize("reason", ["StoreFull", "StoreReadOnly", "BrokerUnavailable"])
def test_what_a_worker_that_is_not_ready_says_comes_before_its_last_words(reason: str) -> None:
    document = deployment("streaming")
    broken = pod(document)
    broken["status"]["containerStatuses"][0]["lastState"] = failed("OOMKilled", "earlier")
    found = said(judged(document, broken, p=faults(reason, "no room")))
    assert found["Degraded"] == f"True {reason}: no room"
    assert found["Ready"] == f"False {reason}: no room"
    assert found["Progressing"] == f"False {reason}: version 1 is ready in 0 of 1 pods: no room"
    assert found["Reconciling"].startswith(f"True {reason}")


@pytest.mark.parametrize("reason", ["EventsExpired", "StreamLags"])
def test_lost_or_late_events_degrade_a_worker_that_goes_on(reason: str) -> None:
    document = deployment("streaming")
    found = said(judged(document, pod(document, ready=True), p=faults(reason, "positions 3 to 9")))
    assert found["Degraded"] == f"True {reason}: positions 3 to 9"
    assert found["Ready"] == "True Answering: version 1 serves predictions"
    assert "Stalled" not in found


def test_a_new_version_that_does_not_start_comes_before_what_an_old_worker_says() -> None:
    old, new = deployment("streaming", "1"), deployment("streaming", "2")
    pods = pod(new, state=failed("DigestMismatch", "other"), name="q"), pod(old, ready=True)
    found = said(replace(facts(new, *pods), worker_faults={"p": faults("EventsExpired", "3")}))
    assert found["Degraded"].startswith("True DigestMismatch")
    assert found["Progressing"] == "False DigestMismatch: the rollout has stopped: other"


def test_a_pod_that_is_gone_says_nothing() -> None:
    document = deployment("streaming")
    found = said(judged(document, pod(document, ready=True), other=faults("StoreFull")))
    assert found["Degraded"].startswith("False AsExpected")


@pytest.mark.parametrize("mode", ["realtime", "streaming"])
def test_until_a_worker_is_heard_the_last_word_counts(mode: str) -> None:
    document = with_features() if mode == "realtime" else deployment(mode)
    reason = "FeaturesUnavailable" if mode == "realtime" else "EventsExpired"
    ill = judged(document, pod(document, ready=True), p=faults(reason))
    restarted = replace(
        ill,
        deployment={**document, "status": status(ill)},
        worker_faults={},
        unheard=frozenset({"p"}),
    )
    assert said(restarted) == said(ill)
    assert said(replace(restarted, unheard=frozenset()))["Degraded"].startswith("False")


def test_what_a_worker_says_is_made_safe() -> None:
    document = deployment("streaming")
    nonsense = orjson.dumps({"faults": [{"reason": "no reason", "message": "a\x1b[31m\nb" * 150}]})
    found = judged(document, pod(document), p=WorkerFaults.model_validate_json(nonsense))
    degraded = next(c for c in status(found)["conditions"] if c["type"] == "Degraded")
    assert degraded["reason"] == "WorkerFailed"
    assert "\x1b" not in degraded["message"]
    assert "\n" not in degraded["message"]
    assert len(degraded["message"]) <= MAX_MESSAGE


def test_a_worker_bounds_its_own_message() -> None:
    assert len(worker_fault("StoreFull", "x" * 100_000).message) <= MAX_FAULT_MESSAGE
    assert "\\x1b" in worker_fault("StoreFull", "\x1b").message


@pytest.mark.parametrize(
    ("mode", "reason"), [("realtime", "FeaturesUnavailable"), ("streaming", "StoreFull")]
)
def test_one_cause_is_one_event_and_its_end_is_said(mode: str, reason: str) -> None:
    document = with_features() if mode == "realtime" else deployment(mode)
    well = status(facts(document, pod(document, ready=True)))
    ready = mode == "realtime"
    ill = status(judged(document, pod(document, ready=ready), p=faults(reason, "refused")))
    more = status(judged(document, pod(document, ready=ready), p=faults(reason, "refused again")))
    assert [(e.type, e.reason) for e in events_of(well, ill)] == [("Warning", reason)]
    assert events_of(ill, more) == []
    after = events_of(more, well)
    assert {e.type for e in after} == {"Normal"}
    assert {"AsExpected", "Answering"} <= {e.reason for e in after}


# ---------------------------------------------------------------- whom to ask


def live(document: Json, **changes: Any) -> Json:
    found = pod(document, ready=changes.pop("ready", True), name=changes.pop("name", "p"))
    found["status"] |= {"podIP": "10.0.0.7", "phase": "Running"} | changes
    return found


def test_running_workers_are_asked_at_their_own_address() -> None:
    document = deployment("streaming")
    pods = [live(document), live(document, name="q", podIP="fd00::1")]
    assert urls_of_workers(parse(document), pods) == {
        "p": f"http://10.0.0.7:{PORT}/faults",
        "q": f"http://[fd00::1]:{PORT}/faults",
    }


def test_nobody_is_asked_who_has_nothing_to_say() -> None:
    document = deployment("streaming")
    others = [
        live(document, phase="Pending"),
        live(document, podIP=""),
        live(deployment("edge")),
        {**live(document), "spec": {"hostNetwork": True}},
    ]
    assert urls_of_workers(parse(document), others) == {}
    plain = deployment("realtime")
    assert urls_of_workers(parse(plain), [live(plain)]) == {}
    assert urls_of_workers(parse(plain), [live(plain, ready=False)]) != {}
    rich = with_features()
    assert urls_of_workers(parse(rich), [live(rich)]) != {}
    batch = deployment("batch")
    assert urls_of_workers(parse(batch), [live(document)]) == {}
    assert urls_of_workers(None, [live(document)]) == {}


def test_of_many_workers_some_are_asked() -> None:
    document = deployment("streaming")
    pods = [live(document, name=f"p{n:03}") for n in range(100)]
    assert len(urls_of_workers(parse(document), pods)) == MAX_ASKED


# ---------------------------------------------------------------- how they are asked

KEY = Key("demo", "m")
WORKERS = {"p": "http://10.0.0.7:8080/faults"}
FULL = faults("StoreFull", "no room")
ILL, WELL = FULL.model_dump_json().encode(), b'{"faults":[]}'


class Worker(AskedGateway):
    def __init__(self, *answers: bytes | Exception) -> None:
        super().__init__(*answers)
        self.tracker = WorkerFaultTracker(self.ask, self.changed.append, self.sleep)

    async def note(self, workers: dict[str, str]) -> None:
        self.tracker.note(KEY, workers)
        await self.settle()


async def test_a_fault_is_news_once_and_so_is_its_end() -> None:
    worker = Worker(ILL, ILL, WELL)
    await worker.note(WORKERS)
    assert worker.tracker.of(KEY) == {"p": FULL}
    assert (worker.changed, worker.pauses) == ([KEY], [PAUSE])
    await worker.pass_time()
    assert worker.changed == [KEY], "nothing new"
    await worker.pass_time()
    assert (worker.tracker.of(KEY), worker.changed) == ({"p": NOTHING_WRONG}, [KEY, KEY])
    worker.tracker.stop()


@pytest.mark.parametrize(
    "nonsense", [GatewaySilent("HTTP 404"), b"", b"[]", b'{"faults":[{"reason":""}]}']
)
async def test_a_worker_that_does_not_answer_keeps_its_fault_for_a_while(
    nonsense: bytes | Exception,
) -> None:
    worker = Worker(ILL, nonsense)
    await worker.note(WORKERS)
    for _ in range(MAX_SILENCE - 1):
        await worker.pass_time()
        assert worker.tracker.of(KEY) == {"p": FULL}
    await worker.pass_time()
    assert (worker.tracker.of(KEY), worker.changed) == ({"p": NOTHING_WRONG}, [KEY, KEY])
    worker.tracker.stop()


async def test_pods_and_deployments_that_are_gone_are_not_asked() -> None:
    worker = Worker(ILL)
    await worker.note(WORKERS)
    await worker.note({"q": "http://10.0.0.8:8080/faults"})
    assert worker.tracker.of(KEY) == {}
    await worker.pass_time()
    assert worker.asked[-1] == ("http://10.0.0.8:8080/faults",)
    worker.tracker.forget_all_but(())
    assert worker.tracker.of(KEY) == {}
    before = len(worker.asked)
    await worker.pass_time()
    assert len(worker.asked) == before
    await worker.note(WORKERS)
    assert worker.tracker.of(KEY) == {"p": FULL}, "it is followed anew"
    worker.tracker.stop()
