"""Objects seen go in, keys come out; what nobody looks at sets nobody to work."""

from __future__ import annotations

from typing import Any

from fourways_api import GatewayConfig, Route
from fourways_api.runtime_config import CONFIG_VARIABLE
from fourways_operator.event_filter import EventFilter
from fourways_operator.facts import Json
from fourways_operator.work_queue import Key

OURS = {"app.kubernetes.io/managed-by": "fourways"}
GATEWAY = {**OURS, "fourways.dev/component": "gateway"}


def _deployment(generation: int = 1, **meta: Any) -> Json:
    meta = {"name": "churn", "namespace": "ns", "uid": "u", "generation": generation, **meta}
    return {"kind": "ModelDeployment", "metadata": meta}


def _gateway(available: int, *owners: str) -> Json:
    references = [{"kind": "ModelDeployment", "name": name, "uid": name} for name in owners]
    meta = {"name": "g", "namespace": "ns", "uid": "g", "labels": GATEWAY}
    return {
        "kind": "Deployment",
        "metadata": {**meta, "ownerReferences": references},
        "status": {"availableReplicas": available},
    }


def _pod(reason: str | None) -> Json:
    waiting = {"waiting": {"reason": reason, "message": "m"}} if reason else {"running": {}}
    meta = {"name": "p", "namespace": "ns", "uid": "p", "labels": GATEWAY}
    return {"kind": "Pod", "metadata": meta, "status": {"containerStatuses": [{"state": waiting}]}}


def test_a_deployment_concerns_itself_and_the_gateway() -> None:
    event_filter = EventFilter()
    both = (Key("ns", "churn"), Key("ns"))
    assert event_filter.keys_of(_deployment(), gone=False) == both
    assert event_filter.keys_of(_deployment(), gone=False) == (), "only its status changed"
    assert event_filter.keys_of(_deployment(2), gone=False) == both
    assert event_filter.keys_of(_deployment(2, deletionTimestamp="now"), gone=False) == both
    assert event_filter.keys_of(_deployment(2), gone=True) == both
    assert event_filter.keys_of(_deployment(2), gone=False) == both, "it was forgotten"


def test_a_child_concerns_its_deployment_each_time() -> None:
    labels = {**OURS, "fourways.dev/deployment": "churn"}
    job = {
        "kind": "Job",
        "metadata": {"name": "j", "namespace": "ns", "uid": "j", "labels": labels},
    }
    event_filter = EventFilter()
    assert (
        event_filter.keys_of(job, gone=False)
        == event_filter.keys_of(job, gone=True)
        == (Key("ns", "churn"),)
    )


def test_what_is_not_ours_concerns_nobody() -> None:
    labels = {"fourways.dev/deployment": "churn"}
    obj = {
        "kind": "Job",
        "metadata": {"name": "j", "namespace": "ns", "uid": "j", "labels": labels},
    }
    assert EventFilter().keys_of(obj, gone=False) == ()


def test_a_gateway_concerns_its_deployments_only_when_it_begins_or_ceases_to_answer() -> None:
    event_filter = EventFilter()
    a, b, gateway = Key("ns", "a"), Key("ns", "b"), Key("ns")
    assert event_filter.keys_of(_gateway(0, "a"), gone=False) == (gateway, a)
    assert event_filter.keys_of(_gateway(0, "a", "b"), gone=False) == (gateway,)
    assert event_filter.keys_of(_gateway(1, "a", "b"), gone=False) == (gateway, a, b)
    assert event_filter.keys_of(_gateway(2, "a", "b"), gone=False) == (gateway,)
    assert event_filter.keys_of(_gateway(0, "a", "b"), gone=False) == (gateway, a, b)


def test_what_ails_a_gateways_pod_concerns_its_deployments() -> None:
    event_filter = EventFilter()
    event_filter.keys_of(_gateway(0, "a"), gone=False)
    assert event_filter.keys_of(_pod("ErrImagePull"), gone=False) == (Key("ns", "a"),)
    assert event_filter.keys_of(_pod("ErrImagePull"), gone=False) == ()
    assert event_filter.keys_of(_pod(None), gone=False) == (Key("ns", "a"),)


def _child(kind: str, mode: str, status: Json) -> Json:
    labels = {**OURS, "fourways.dev/deployment": "a", "fourways.dev/mode": mode}
    meta = {"name": "c", "namespace": "ns", "uid": "c", "labels": labels}
    return {"kind": kind, "metadata": meta, "status": status}


def test_where_a_model_server_answers_concerns_the_gateway_when_it_changes() -> None:
    event_filter = EventFilter()
    a, gateway = Key("ns", "a"), Key("ns")
    silent = _child("InferenceService", "realtime", {})
    known = _child("InferenceService", "realtime", {"address": {"url": "http://x"}})
    assert event_filter.keys_of(silent, gone=False) == (a, gateway)
    assert event_filter.keys_of(silent, gone=False) == (a,)
    assert event_filter.keys_of(known, gone=False) == (a, gateway)
    assert event_filter.keys_of(known, gone=False) == (a,)
    assert event_filter.keys_of(known, gone=True) == (a, gateway)


def test_what_was_built_concerns_the_gateway_and_a_run_does_not() -> None:
    event_filter = EventFilter()
    a, gateway = Key("ns", "a"), Key("ns")
    done = {"conditions": [{"type": "Complete", "status": "True"}]}
    assert event_filter.keys_of(_child("Job", "edge", {}), gone=False) == (a, gateway)
    assert event_filter.keys_of(_child("Job", "edge", {"active": 1}), gone=False) == (a,)
    assert event_filter.keys_of(_child("Job", "edge", done), gone=False) == (a, gateway)
    assert event_filter.keys_of(_child("Job", "batch", done), gone=False) == (a,)


def _ready_pod(uid: str, *routes: str, ready: bool = True) -> Json:
    config = GatewayConfig(
        namespace="ns",
        routes=tuple(Route(deployment=name, mode="edge", version="1") for name in routes),
    )
    variable = {"name": CONFIG_VARIABLE, "value": config.model_dump_json(by_alias=True)}
    return {
        "kind": "Pod",
        "metadata": {"name": uid, "namespace": "ns", "uid": uid, "labels": GATEWAY},
        "spec": {"containers": [{"env": [variable]}]},
        "status": {"conditions": [{"type": "Ready", "status": str(ready)}]},
    }


def test_a_gateways_roll_concerns_those_whose_route_it_changes() -> None:
    event_filter = EventFilter()
    a, b = Key("ns", "a"), Key("ns", "b")
    event_filter.keys_of(_gateway(0, "a", "b"), gone=False)
    assert event_filter.keys_of(_ready_pod("old", "a"), gone=False) == (a, b), "it answers now"
    assert event_filter.keys_of(_ready_pod("new", "a", "b", ready=False), gone=False) == ()
    assert event_filter.keys_of(_ready_pod("new", "a", "b"), gone=False) == (b,)
    assert event_filter.keys_of(_ready_pod("old", "a", ready=False), gone=False) == (b,)
    assert event_filter.keys_of(_ready_pod("old", "a"), gone=True) == ()
    assert event_filter.keys_of(_ready_pod("new", "a", "b"), gone=True) == (a, b), "nothing answers"
