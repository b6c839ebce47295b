"""When a real-time deployment sleeps and wakes, and what its status says meanwhile."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fourways_api import parse
from fourways_operator import planning as planner
from fourways_operator.demand import urls_of_gateways
from fourways_operator.facts import Demand, Facts, Json
from fourways_operator.installation import admitted_spec
from fourways_operator.plan.realtime import later_kinds, route
from fourways_operator.scaling import wanted_replicas
from tests.kit.mode_facts import (
    READY_SERVICE,
    SETTINGS,
    deployment,
    failed,
    gateway,
    main_of,
    pod,
    said,
    service,
    status,
)
from tests.kit.mode_facts import facts as facts_of

IDLE, BUSY, ASKED = Demand(idle=True), Demand(), Demand(waiting=3)


def seldom(ready: str | None = "True", generation: int = 4, **realtime: Any) -> Json:
    """Return a deployment that scales to zero, with a Ready condition of a generation."""
    document = deployment("realtime", realtime={"minReplicas": 0, **realtime})
    if ready is not None:
        condition = {
            "status": ready,
            "observedGeneration": generation,
            "lastTransitionTime": "2026-03-01T11:00:00Z",
            "reason": "Answering",
            "message": "as before",
        }
        kinds = ("Ready", "ModelResolved")
        document["status"] = {
            "mode": "realtime",
            "conditions": [{"type": kind, **condition} for kind in kinds],
        }
    return document


def scaled(replicas: int | None) -> Json:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "m-realtime-predictor", "namespace": "demo"},
        "spec": {} if replicas is None else {"replicas": replicas},
    }


def facts(document: Json, replicas: int, *pods: Json, **more: Any) -> Facts:
    plain = {k: v for k, v in document.items() if k != "status"}
    children = (service(plain, READY_SERVICE), scaled(replicas))
    found = facts_of(plain, *pods, children=children, **more)
    return Facts(**{**{k: getattr(found, k) for k in found.__slots__}, "deployment": document})


@pytest.mark.parametrize(
    ("document", "live", "demand", "wanted"),
    [
        (seldom(), 1, IDLE, 0),
        (seldom(), 3, IDLE, 0),
        (seldom(), None, IDLE, 0),
        (seldom(), 1, BUSY, None),
        (seldom(), 1, ASKED, None),
        (seldom(), 1, None, None),
        (seldom(None), 1, IDLE, None),
        (seldom("False"), 1, IDLE, None),
        (seldom(generation=3), 1, IDLE, None),
        (seldom(), 0, ASKED, 1),
        (seldom(), 0, IDLE, None),
        (seldom(), 0, BUSY, None),
        (seldom(), 0, None, None),
        (seldom(generation=3), 0, IDLE, 1),
        (seldom(minReplicas=2, maxReplicas=2), 0, None, 2),
        (seldom(minReplicas=2, maxReplicas=2), 1, IDLE, None),
    ],
)
def test_it_sleeps_if_all_gateways_say_so_and_the_spec_was_ready(
    document: Json, live: int | None, demand: Demand | None, wanted: int | None
) -> None:
    spec = parse({k: v for k, v in document.items() if k != "status"})
    assert wanted_replicas(spec, document, scaled(live), demand) == wanted


def test_a_sleeping_deployment_is_ready_to_be_asked() -> None:
    found = said(facts(seldom(), 0))
    assert found["Ready"] == (
        "True Asleep: version 1 sleeps; the next request waits for a replica to start"
    )
    assert found["Progressing"].startswith("False Idle")
    assert found["Degraded"].startswith("False")
    assert found["ModelResolved"] == "True Answering: as before"


def test_the_measured_cold_start_is_in_the_status_and_stays_there() -> None:
    demand = Demand(cold_start_seconds=1.3456, woken_at="2026-03-01T11:00:00.000Z")
    told = status(facts(seldom(), 0, demand=demand))
    assert told["coldStart"] == {"seconds": 1.35, "at": "2026-03-01T11:00:00.000Z"}
    document = seldom()
    document["status"]["coldStart"] = told["coldStart"]
    later = facts(document, 0, demand=Demand(idle=True))
    assert status(later)["coldStart"] == told["coldStart"]
    assert "(the last one took 1.35 s)" in said(later)["Ready"]


def test_while_it_wakes_it_stays_ready_unless_the_replica_fails() -> None:
    document = seldom()
    plain = {k: v for k, v in document.items() if k != "status"}
    waking = said(facts(document, 1, pod(plain), demand=ASKED))
    assert waking["Ready"] == (
        "True Waking: a replica of version 1 is starting; requests wait for it"
    )
    assert waking["Progressing"].startswith("False Idle")
    broken = pod(plain, state=failed("DigestMismatch", "another file"))
    assert said(facts(document, 1, broken))["Ready"] == "False DigestMismatch: another file"


def test_a_new_version_is_not_taken_for_ready_because_the_old_one_slept() -> None:
    document = seldom(generation=3)
    plain = {k: v for k, v in document.items() if k != "status"}
    found = said(facts(document, 1, pod(plain)))
    assert found["Ready"] == "False Starting: version 1 is starting"
    assert found["Progressing"].startswith("True RollingOut")


def test_without_a_gateway_that_knows_it_nobody_can_wake_it() -> None:
    lost = facts(seldom(), 0)
    lost = Facts(**{**{k: getattr(lost, k) for k in lost.__slots__}, "gateway": None, "pods": ()})
    assert said(lost)["Ready"].startswith("False WaitingForGateway")


def test_kserve_leaves_the_number_of_replicas_to_us_and_to_an_autoscaler() -> None:
    alone, more = seldom(None), seldom(None, maxReplicas=3)
    kept = deployment("realtime", realtime={"minReplicas": 1})
    classes = [
        main_of(d)["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"]
        for d in (alone, more, kept)
    ]
    assert classes == ["external", "hpa", "none"]
    assert main_of(alone)["spec"]["predictor"]["minReplicas"] == 0


def test_only_a_deployment_that_sleeps_has_a_route_by_which_requests_wait() -> None:
    document = seldom(None, scaleToZeroAfter="2m", wakeTimeout="20s")
    found = route(parse(document), None)
    assert found is not None
    assert found.wake is not None
    assert (found.wake.idle_seconds, found.wake.timeout_seconds) == (120, 20)
    kept = route(parse(deployment("realtime", realtime={"minReplicas": 1})), None)
    assert kept is not None
    assert kept.wake is None


def test_every_ready_pod_of_the_gateway_is_asked() -> None:
    document = seldom(None)
    _, first = gateway(document)

    def at(name: str, address: str, ready: str = "True", **meta: Any) -> Json:
        conditions = [{"type": "Ready", "status": ready}]
        return {
            **first,
            "metadata": {**first["metadata"], "name": name, **meta},
            "status": {"conditions": conditions, "podIP": address},
        }

    pods = (
        at("a", "10.0.0.1"),
        at("b", "fd00::1"),
        at("c", "10.0.0.3", "False"),
        at("d", "10.0.0.4", deletionTimestamp="2026-03-01T11:00:00Z"),
        pod(document, ready=True),
    )
    assert urls_of_gateways(parse(document), pods) == {
        "a": "http://10.0.0.1:8080/demand",
        "b": "http://[fd00::1]:8080/demand",
    }
    kept = parse(deployment("realtime", realtime={"minReplicas": 1}))
    assert not urls_of_gateways(kept, pods)


# ---------------------------------------------------------------- by requests, above one

BUSY_SPEC = {"minReplicas": 1, "maxReplicas": 4, "targetConcurrency": 8}


def test_keda_adds_replicas_by_the_requests_that_gateways_have_under_way() -> None:
    document = deployment("realtime", realtime=BUSY_SPEC)
    named = replace(SETTINGS, prometheus_url="http://prometheus:9090")
    objects = planner.plan(parse(document), named)
    (found,) = [o for o in objects if o["kind"] == "InferenceService"]
    annotations, predictor = found["metadata"]["annotations"], found["spec"]["predictor"]
    assert annotations["serving.kserve.io/autoscalerClass"] == "keda"
    (metric,) = predictor["autoScaling"]["metrics"]
    assert metric["external"]["target"] == {"type": "Value", "value": "8"}
    assert metric["external"]["metric"] == {
        "backend": "prometheus",
        "serverAddress": "http://prometheus:9090",
        "query": 'sum(fourways_requests_in_flight{namespace="demo",deployment="m"})',
    }
    assert "scaleTarget" not in predictor


def test_without_a_prometheus_it_is_refused_with_the_fix() -> None:
    document = deployment("realtime", realtime=BUSY_SPEC)
    (problem,) = admitted_spec(document, SETTINGS).problems
    assert problem.field == "spec.realtime.targetConcurrency"
    assert "autoscaling.prometheusUrl" in problem.fix
    named = replace(SETTINGS, prometheus_url="http://prometheus:9090")
    assert admitted_spec(document, named).spec is not None


def test_without_keda_it_says_so() -> None:
    document = deployment("realtime", realtime=BUSY_SPEC)
    assert [kind.kind for kind in later_kinds(parse(document))] == ["ScaledObject"]
    kept = deployment("realtime", realtime={"minReplicas": 1, "maxReplicas": 4})
    assert not later_kinds(parse(kept))
    found = said(facts_of(document, missing=("ScaledObject",)))
    assert found["Ready"].startswith("False KedaMissing: the cluster has no ScaledObjects")
