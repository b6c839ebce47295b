"""What Flux and Argo CD make of every status on the way: ready only when it is."""

from __future__ import annotations

import asyncio

import pytest

from fourways_operator.facts import Json
from tools.cluster.errors import ClusterError
from tools.gitops import Verdicts, judged

from .changes import CHANGES, deployment
from .fake_cluster import FakeCluster
from .rig import play

pytestmark = pytest.mark.thorough

IN_PROGRESS = ("Progressing", "InProgress")


def words(objects: list[Json]) -> list[tuple[str, str]]:
    return [(each.argocd.word, each.flux.word) for each in verdicts(objects)]


def verdicts(objects: list[Json]) -> list[Verdicts]:
    try:
        return judged(objects)
    except ClusterError as error:
        pytest.skip(str(error))


def every_state(change: str) -> list[Json]:
    """Return what a watch sees of the deployments while a change is made, in order."""
    cluster, seen = FakeCluster(), list[Json]()
    before, then = CHANGES[change]

    def listen(obj: Json, gone: bool) -> None:
        if obj["kind"] == "ModelDeployment" and not gone:
            seen.append(obj)

    cluster.listeners.append(listen)
    asyncio.run(play(cluster, (*before, *then)))
    return seen


def of(obj: Json, kind: str) -> Json:
    return next((c for c in obj["status"].get("conditions", []) if c["type"] == kind), {})


@pytest.mark.parametrize("change", CHANGES)
def test_it_is_ready_only_when_the_status_of_this_spec_says_so(change: str) -> None:
    states = every_state(change)
    for state, said in zip(states, verdicts(states), strict=True):
        found = (said.argocd.word, said.flux.word)
        if state["status"]["observedGeneration"] != state["metadata"]["generation"]:
            assert found == IN_PROGRESS
        elif stalled := of(state, "Stalled"):
            assert found == ("Degraded", "Failed")
            assert stalled["message"] in said.argocd.message
            assert stalled["message"] in said.flux.message
        elif of(state, "Reconciling"):
            assert found == IN_PROGRESS
        elif of(state, "Ready")["status"] == "True":
            assert found == ("Healthy", "Current")
        else:
            assert found == IN_PROGRESS
    assert of(states[0], "Ready") == {}, "the first state is that before the operator saw it"


def with_conditions(spec: Json, **conditions: str) -> Json:
    told = [
        {"type": kind, "status": status, "reason": f"Reason{kind}", "message": f"about {kind}"}
        for kind, status in conditions.items()
    ]
    made = deployment(**spec)
    made["metadata"]["generation"] = 1
    return {**made, "status": {"observedGeneration": 1, "conditions": told}}


def test_a_failure_beside_answers_is_seen_by_argo_cd() -> None:
    batch = deployment()["spec"]["batch"]
    paused = {"batch": {**batch, "suspend": True}}
    states = [
        with_conditions({}, Ready="True", Degraded="True"),
        with_conditions({}, Ready="True", Degraded="False", Drifted="True"),
        with_conditions(paused, Ready="True", Degraded="False"),
        with_conditions(paused, Ready="True", Degraded="True"),
        with_conditions({}, Ready="Unknown", Degraded="False"),
    ]
    assert words(states) == [
        ("Degraded", "Current"),
        ("Healthy", "Current"),
        ("Suspended", "Current"),
        ("Degraded", "Current"),
        IN_PROGRESS,
    ]
    (first, *_) = verdicts(states)
    assert first.argocd.message == "ReasonDegraded: about Degraded"


def test_an_object_without_a_status_is_in_progress() -> None:
    """Argo CD may read one that was stored before the CRD had its default."""
    made = deployment()
    made["metadata"]["generation"] = 1
    (said,) = verdicts([made])
    assert said.argocd.word == "Progressing"
