"""What workers find of drift becomes the status, the condition Drifted, an event and a gauge."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fourways_api import DriftStatus, parse
from fourways_api.worker_faults import WorkerFaults
from fourways_operator import worker_faults
from fourways_operator.events import events_of
from fourways_operator.facts import Facts, Json
from fourways_operator.metrics import Metrics
from fourways_operator.plan.worker import PORT
from fourways_operator.work_queue import Key
from fourways_operator.worker_faults import urls_of_workers
from tests.kit import status_facts
from tests.kit.mode_facts import deployment, ended, facts, gateway, pod, said, status

MONITORING = {"profile": {"uri": "pvc://models/profile.json"}}
SERVED = ["realtime", "streaming"]


def found(drifted: int = 0, psi: float = 0.01, **more: Any) -> DriftStatus:
    field = {"name": "x", "side": "input", "psi": psi, "ks": 0.1, "drifted": drifted > 0}
    document = {"fields": [field], "drifted": drifted, "records": 400, **more}
    return DriftStatus.model_validate({"measuredAt": "2026-03-01T11:00:00Z", **document})


def monitored(mode: str) -> Json:
    return deployment(mode, monitoring=MONITORING)


def told(drift: DriftStatus | None) -> WorkerFaults:
    return WorkerFaults(drift=drift)


@pytest.mark.parametrize("mode", SERVED)
def test_the_worker_that_differs_most_decides(mode: str) -> None:
    document = monitored(mode)
    pods = pod(document, ready=True), pod(document, ready=True, name="q")
    known = {"p": told(found(psi=0.3)), "q": told(found(1, psi=0.25))}
    both = replace(facts(document, *pods), worker_faults=known)
    assert said(both)["Drifted"] == (
        "True DriftDetected: input x: distributed otherwise than in training, status.drift has the "
        "figures"
    )
    assert said(both)["Ready"].startswith("True")
    assert said(both)["Degraded"].startswith("False")
    assert status(both)["drift"]["fields"][0]["psi"] == 0.25
    quiet = replace(both, worker_faults={"p": told(found()), "q": told(None)})
    assert said(quiet)["Drifted"].startswith("False NoDrift")
    assert status(quiet)["drift"]["records"] == 400


@pytest.mark.parametrize("mode", SERVED)
def test_without_enough_records_it_is_unknown(mode: str) -> None:
    document = monitored(mode)
    nothing = replace(facts(document, pod(document, ready=True)), worker_faults={"p": told(None)})
    assert said(nothing)["Drifted"].startswith("Unknown TooFewRecords")
    assert "drift" not in status(nothing)


@pytest.mark.parametrize("mode", [*SERVED, "batch", "edge"])
def test_a_deployment_without_a_profile_has_no_such_condition(mode: str) -> None:
    document = deployment(mode)
    known = replace(facts(document), worker_faults={"p": told(found(1))})
    assert "Drifted" not in said(known)
    assert "drift" not in status(known)


def test_until_a_worker_is_heard_the_last_comparison_counts() -> None:
    document = monitored("streaming")
    ill = replace(facts(document, pod(document, ready=True)), worker_faults={"p": told(found(1))})
    restarted = replace(
        ill,
        deployment={**document, "status": status(ill)},
        worker_faults={},
        unheard=frozenset({"p"}),
    )
    assert said(restarted)["Drifted"] == said(ill)["Drifted"]
    heard = replace(restarted, unheard=frozenset(), worker_faults={"p": told(None)})
    assert said(heard)["Drifted"].startswith("Unknown")


def run(document: Json, drift: DriftStatus | None) -> Facts:
    report: Json = {"outcome": "Succeeded", "rows": 10, "version": "1"}
    if drift is not None:
        report["drift"] = drift.to_json()
    at = "2026-03-01T11:00:00Z"
    worker = status_facts.pod("m-1", ended(0, **report))
    return replace(facts(document, worker), children=(status_facts.job("m-1", at, "Complete"),))


def test_a_run_tells_and_the_status_keeps_it_after_its_job() -> None:
    document = monitored("batch")
    assert said(facts(document))["Drifted"].startswith("Unknown TooFewRecords")
    done = run(document, found(1, psi=2.5))
    assert said(done)["Drifted"].startswith("True DriftDetected: input x")
    kept = replace(facts({**document, "status": status(done)}))
    assert status(kept)["drift"] == status(done)["drift"]
    assert said(run(document, found()))["Drifted"].startswith("False NoDrift")


def test_a_drift_is_an_event_once_and_a_gauge_while_it_lasts() -> None:
    document = monitored("streaming")
    quiet = replace(facts(document, pod(document, ready=True)), worker_faults={"p": told(found())})
    ill = replace(quiet, worker_faults={"p": told(found(1, psi=0.5))})
    worse = replace(quiet, worker_faults={"p": told(found(1, psi=0.7))})
    before, after = status(quiet), status(ill)
    assert [(e.type, e.reason) for e in events_of(before, after)] == [("Warning", "DriftDetected")]
    assert events_of(after, status(worse)) == []
    assert [(e.type, e.reason) for e in events_of(after, before)] == [("Normal", "NoDrift")]
    assert not [e for e in events_of(None, before) if e.reason == "NoDrift"]
    unknown = status(replace(quiet, worker_faults={"p": told(None)}))
    assert events_of(unknown, before) == events_of(before, unknown) == []
    metrics, key = Metrics(), Key("demo", "m")
    labels = {"namespace": "demo", "name": "m", "mode": "streaming"}
    for now, value in ((before, 0.0), (after, 1.0)):
        metrics.seen(key, now)
        assert metrics.registry.get_sample_value("fourways_deployment_drifted", labels) == value


def test_ready_model_servers_are_asked_if_records_are_compared() -> None:
    for document, asked in ((deployment("realtime"), []), (monitored("realtime"), ["p"])):
        ready = pod(document, ready=True)
        ready["status"] |= {"phase": "Running", "podIP": "10.0.0.1"}
        urls = urls_of_workers(parse(document), [ready])
        assert list(urls) == asked
        assert all(f":{PORT}/" in url for url in urls.values())


def test_names_of_a_worker_are_made_safe() -> None:
    document = monitored("streaming")
    field = {"name": "a\x1b[31m\nb", "side": "input", "psi": 1, "drifted": True}
    nonsense = told(found(1, fields=[field]))
    shown = said(replace(facts(document, pod(document, ready=True)), worker_faults={"p": nonsense}))
    assert shown["Drifted"].isprintable()


def test_what_devices_told_gateways_is_the_status_of_an_edge_deployment() -> None:
    document = monitored("edge")
    ill = replace(facts(document), worker_faults={"g": told(found(1, psi=0.4))})
    assert said(ill)["Drifted"].startswith("True DriftDetected: input x")
    assert status(ill)["drift"]["records"] == 400
    two = {"g": told(found(psi=0.1)), "h": told(found(1, psi=0.3))}
    _, other = gateway(document)
    other["metadata"]["name"] = "h"
    both = replace(facts(document, other), worker_faults=two)
    assert status(both)["drift"]["fields"][0]["psi"] == 0.3
    nothing = replace(facts(document), worker_faults={"g": told(None)})
    assert said(nothing)["Drifted"].startswith("Unknown TooFewRecords")
    # A gateway that was restarted, or an operator: until it answers, the last comparison counts.
    before = {**document, "status": status(ill)}
    restarted = replace(ill, deployment=before, worker_faults={}, unheard=frozenset({"g"}))
    assert said(restarted)["Drifted"] == said(ill)["Drifted"]
    assert "Drifted" not in said(replace(facts(deployment("edge")), worker_faults=two))


def test_ready_gateways_are_asked_for_what_devices_told() -> None:
    for document, asked in ((deployment("edge"), []), (monitored("edge"), ["g"])):
        _, ready = gateway(document)
        ready["status"] |= {"phase": "Running", "podIP": "10.0.0.1"}
        starting = {**ready, "metadata": {**ready["metadata"], "name": "h"}}
        starting["status"] = {"podIP": "10.0.0.2", "conditions": []}
        urls = urls_of_workers(parse(document), [ready, starting])
        assert list(urls) == asked
        assert list(urls.values()) == [f"http://10.0.0.1:{PORT}/deployments/m/drift"] * len(asked)


async def test_only_gateways_get_the_operators_token(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    async def ask(url: str, seconds: float, credentials: Any = None) -> bytes:
        asked[url] = credentials is None
        return b"{}"

    monkeypatch.setattr(worker_faults, "ask", ask)
    for url in ("http://10.0.0.1:8080/faults", "http://10.0.0.2:8080/deployments/m/drift"):
        await worker_faults.ask_worker(url)
    assert list(asked.values()) == [False, True]
