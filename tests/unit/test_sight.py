"""Objects seen go in, keys come out; what nobody looks at sets nobody to work."""

from __future__ import annotations

from typing import Any

from fourways_operator.facts import Json
from fourways_operator.sight import Sight
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
    sight = Sight()
    both = (Key("ns", "churn"), Key("ns"))
    assert sight.keys_of(_deployment(), gone=False) == both
    assert sight.keys_of(_deployment(), gone=False) == (), "only its status changed"
    assert sight.keys_of(_deployment(2), gone=False) == both
    assert sight.keys_of(_deployment(2, deletionTimestamp="now"), gone=False) == both
    assert sight.keys_of(_deployment(2), gone=True) == both
    assert sight.keys_of(_deployment(2), gone=False) == both, "it was forgotten"


def test_a_child_concerns_its_deployment_each_time() -> None:
    labels = {**OURS, "fourways.dev/deployment": "churn"}
    job = {
        "kind": "Job",
        "metadata": {"name": "j", "namespace": "ns", "uid": "j", "labels": labels},
    }
    sight = Sight()
    assert sight.keys_of(job, gone=False) == sight.keys_of(job, gone=True) == (Key("ns", "churn"),)


def test_what_is_not_ours_concerns_nobody() -> None:
    labels = {"fourways.dev/deployment": "churn"}
    obj = {
        "kind": "Job",
        "metadata": {"name": "j", "namespace": "ns", "uid": "j", "labels": labels},
    }
    assert Sight().keys_of(obj, gone=False) == ()


def test_a_gateway_concerns_its_deployments_only_when_it_begins_or_ceases_to_answer() -> None:
    sight = Sight()
    a, b, gateway = Key("ns", "a"), Key("ns", "b"), Key("ns")
    assert sight.keys_of(_gateway(0, "a"), gone=False) == (gateway, a)
    assert sight.keys_of(_gateway(0, "a", "b"), gone=False) == (gateway,)
    assert sight.keys_of(_gateway(1, "a", "b"), gone=False) == (gateway, a, b)
    assert sight.keys_of(_gateway(2, "a", "b"), gone=False) == (gateway,)
    assert sight.keys_of(_gateway(0, "a", "b"), gone=False) == (gateway, a, b)


def test_what_ails_a_gateways_pod_concerns_its_deployments() -> None:
    sight = Sight()
    sight.keys_of(_gateway(0, "a"), gone=False)
    assert sight.keys_of(_pod("ErrImagePull"), gone=False) == (Key("ns", "a"),)
    assert sight.keys_of(_pod("ErrImagePull"), gone=False) == ()
    assert sight.keys_of(_pod(None), gone=False) == (Key("ns", "a"),)
