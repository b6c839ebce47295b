"""Nothing is written when nothing changed, and what is not ours is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import permutations

import pytest

from fourways_operator.errors import Forbidden
from fourways_operator.facts import Json
from tests.kit.waiting import turns

from .changes import BAD, BLOCKS, CHANGES, HOURLY, STREAMING, apply, delete, in_mode, recreate
from .fake_cluster import FakeCluster
from .rig import NAMESPACE, Rig, Step, play, second_look


def _settled(*steps: Step, cluster: FakeCluster | None = None) -> FakeCluster:
    return asyncio.run(play(cluster or FakeCluster(), steps))


def _names(cluster: FakeCluster) -> set[str]:
    return {f"{kind}/{name}" for kind, _, name in cluster.objects}


def _conditions(cluster: FakeCluster, name: str = "churn") -> dict[str, Json]:
    status = cluster.objects["ModelDeployment", NAMESPACE, name]["status"]
    return {c["type"]: c for c in status["conditions"]}


@pytest.mark.parametrize("change", CHANGES)
def test_a_second_look_and_a_restart_write_nothing(change: str) -> None:
    cluster = _settled(*CHANGES[change][0], *CHANGES[change][1])
    assert asyncio.run(second_look(cluster)) == []


def test_a_deployment_gets_its_objects_and_its_status() -> None:
    cluster = _settled(apply())
    assert _names(cluster) == {
        "ModelDeployment/churn",
        "CronJob/churn-batch",
        "NetworkPolicy/churn-batch",
        "ServiceAccount/churn-batch",
        "Deployment/fourways-gateway",
        "NetworkPolicy/fourways-gateway",
        "Service/fourways-gateway",
        "ServiceAccount/fourways-gateway",
    }
    conditions = _conditions(cluster)
    assert conditions["SpecValid"]["status"] == "True"
    assert conditions["Ready"]["reason"] == "WaitingForFirstRun"
    assert conditions["Ready"]["observedGeneration"] == 1


def test_an_invalid_spec_leaves_the_last_good_one_at_work_and_is_not_retried() -> None:
    before = _settled(apply(batch=HOURLY))
    cron_job = before.objects["CronJob", NAMESPACE, "churn-batch"]
    cluster = _settled(apply(batch=BAD), cluster=before)
    assert cluster.objects["CronJob", NAMESPACE, "churn-batch"] == cron_job
    condition = _conditions(cluster)["SpecValid"]
    assert condition["status"] == "False"
    assert condition["observedGeneration"] == 2
    assert "spec.batch.schedule" in condition["message"]


def test_an_edit_by_somebody_else_is_undone() -> None:
    cluster = _settled(apply())
    edit = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "churn-batch", "namespace": NAMESPACE},
        "spec": {"schedule": "* * * * *"},
    }
    _settled(lambda c: c.user_apply(edit), cluster=cluster)
    assert cluster.objects["CronJob", NAMESPACE, "churn-batch"]["spec"]["schedule"] == "0 3 * * *"


def test_a_deleted_child_comes_back() -> None:
    cluster = _settled(apply())
    _settled(lambda c: c.user_delete("CronJob", NAMESPACE, "churn-batch"), cluster=cluster)
    assert "CronJob/churn-batch" in _names(cluster)


def _foreign(kind: str, api_version: str, name: str) -> Json:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"team": "other"}},
    }


def test_somebody_elses_object_is_never_taken_over() -> None:
    foreign = _foreign("ServiceAccount", "v1", "churn-batch")
    cluster = _settled(lambda c: c.user_apply(foreign))
    before = cluster.objects["ServiceAccount", NAMESPACE, "churn-batch"]
    _settled(apply(), cluster=cluster)
    assert cluster.objects["ServiceAccount", NAMESPACE, "churn-batch"] == before
    ready = _conditions(cluster)["Ready"]
    assert ready["reason"] == "NameTaken"
    assert "ServiceAccount/churn-batch" in ready["message"]


def test_an_object_with_our_labels_but_another_controller_is_somebody_elses() -> None:
    owner = _foreign("ServiceAccount", "v1", "boss")
    cluster = _settled(lambda c: c.user_apply(owner))
    uid = cluster.objects["ServiceAccount", NAMESPACE, "boss"]["metadata"]["uid"]
    foreign = _foreign("ServiceAccount", "v1", "churn-batch")
    foreign["metadata"] |= {
        "labels": {
            "app.kubernetes.io/managed-by": "fourways",
            "fourways.dev/deployment": "churn",
        },
        "ownerReferences": [
            {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "name": "boss",
                "uid": uid,
                "controller": True,
            }
        ],
    }
    other = {**foreign, "metadata": {**foreign["metadata"], "name": "not-planned"}}
    for obj in (foreign, other):
        _settled(lambda c, obj=obj: c.user_apply(obj), cluster=cluster)
    names = ("churn-batch", "not-planned")
    before = [cluster.objects["ServiceAccount", NAMESPACE, name] for name in names]
    _settled(apply(), delete(), cluster=cluster)
    assert [cluster.objects["ServiceAccount", NAMESPACE, name] for name in names] == before


def test_the_objects_of_a_dead_predecessor_are_not_inherited() -> None:
    cluster = _settled(apply())
    # So that the operator finds them, as it may where the garbage collector is slower than it.
    cluster.collector_sleeps = True
    _settled(recreate(), cluster=cluster)
    uid = cluster.objects["ModelDeployment", NAMESPACE, "churn"]["metadata"]["uid"]
    owners = cluster.objects["CronJob", NAMESPACE, "churn-batch"]["metadata"]["ownerReferences"]
    assert [o["uid"] for o in owners] == [uid]


def test_the_excess_goes_before_anything_new_comes() -> None:
    cluster = _settled(apply())
    cluster.writes.clear()
    _settled(apply(mode="streaming", streaming=STREAMING), cluster=cluster)
    kinds = [w.split()[0] for w in cluster.writes]
    assert kinds.index("delete") < kinds.index("status")


def test_an_event_is_told_once_a_transition() -> None:
    cluster = _settled(apply(), apply(batch=BAD))
    reasons = [e.reason for e in cluster.events]
    assert reasons.count("Invalid") == 1
    _settled(cluster=cluster)
    assert [e.reason for e in cluster.events] == reasons


def test_a_missing_kind_is_waited_for_and_the_others_are_there() -> None:
    cluster = FakeCluster(absent=frozenset({"CronJob"}))

    async def scenario() -> tuple[set[str], set[str]]:
        rig = Rig(cluster)
        apply()(cluster)
        await turns(200)
        without = _names(cluster)
        cluster.absent = frozenset()
        await rig.resync()
        await rig.stop()
        return without, _names(cluster)

    without, with_kind = asyncio.run(scenario())
    assert "ServiceAccount/churn-batch" in without
    assert "CronJob/churn-batch" in with_kind


def test_one_that_fails_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    from fourways_operator import intent as module

    real: Callable[..., object] = module.plan

    def plan(deployment: object, *rest: object) -> object:
        if deployment.metadata.name == "bad":  # type: ignore[attr-defined]
            raise ZeroDivisionError("a bug")
        return real(deployment, *rest)

    monkeypatch.setattr(module, "plan", plan)
    cluster = FakeCluster()

    async def scenario() -> None:
        rig = Rig(cluster)
        apply("bad")(cluster)
        apply("good")(cluster)
        await turns(500)
        await rig.stop()

    asyncio.run(scenario())
    assert "CronJob/good-batch" in _names(cluster)
    assert "CronJob/bad-batch" not in _names(cluster)


@pytest.mark.parametrize("order", [*permutations(("deployment", "operator", "namespace"))], ids=str)
def test_deletion_in_every_order_leaves_nothing(order: tuple[str, ...]) -> None:
    cluster = FakeCluster()

    async def scenario() -> None:
        rig = Rig(cluster)
        apply()(cluster)
        await rig.settle()
        stopped = False

        async def operator() -> None:
            nonlocal stopped
            stopped = True
            await rig.stop()

        async def gone() -> None:
            delete()(cluster)

        async def namespace() -> None:
            cluster.user_delete_namespace(NAMESPACE)

        actions: dict[str, Callable[[], Awaitable[None]]] = {
            "deployment": gone,
            "operator": operator,
            "namespace": namespace,
        }
        for what in order:
            await actions[what]()
            if not stopped:
                await rig.settle()

    asyncio.run(scenario())
    assert cluster.objects == {}


@pytest.mark.parametrize("mode", BLOCKS)
def test_a_first_apply_warns_of_nothing(mode: str) -> None:
    cluster = _settled(in_mode(mode))
    assert cluster.events
    assert [e for e in cluster.events if e.type == "Warning"] == []


def test_pods_that_the_api_server_refuses_are_reported_with_its_words() -> None:
    def quota(cluster: FakeCluster) -> None:
        (job,) = (name for kind, _, name in cluster.objects if kind == "Job")
        cluster.warnings[job, "FailedCreate"] = "pods is forbidden: exceeded quota: none"

    cluster = FakeCluster()
    cluster.builds_take_time = True
    _settled(in_mode("edge"), quota, cluster=cluster)
    degraded = _conditions(cluster)["Degraded"]
    assert (degraded["status"], degraded["reason"]) == ("True", "PodRefused")
    assert "exceeded quota: none" in degraded["message"]


def test_an_update_that_is_refused_is_not_taken_for_a_success() -> None:
    cluster = _settled(in_mode("realtime"), in_mode("realtime", contract={"inputs": []}))
    conditions = _conditions(cluster)
    assert conditions["Stalled"]["status"] == conditions["Degraded"]["status"] == "True"
    generation = cluster.objects["ModelDeployment", NAMESPACE, "churn"]["metadata"]["generation"]
    assert conditions["Stalled"]["observedGeneration"] == generation == 2


def test_a_gateway_that_the_api_server_refuses_is_reported_by_its_deployments() -> None:
    class Quota(FakeCluster):
        refuses = True

        async def apply(self, obj: Json, uid: str | None) -> None:
            if self.refuses and obj["metadata"]["name"] == "fourways-gateway":
                raise Forbidden("patch services/fourways-gateway: exceeded quota: none")
            await super().apply(obj, uid)

    async def play_quota() -> None:
        cluster = Quota()
        rig = Rig(cluster)
        await rig.settle()
        apply()(cluster)
        await turns(3_000)  # the gateway is retried again and again: nothing settles
        conditions = _conditions(cluster)
        for kind in ("Ready", "Degraded"):
            assert conditions[kind]["reason"] == "ApplyFailed"
            assert "exceeded quota: none" in conditions[kind]["message"]
        cluster.refuses = False
        await rig.settle()
        assert _conditions(cluster)["Degraded"]["status"] == "False"
        assert _conditions(cluster)["Ready"]["reason"] == "WaitingForFirstRun"
        await rig.stop()

    asyncio.run(play_quota())


@pytest.mark.parametrize(
    ("kind", "name", "label"),
    [
        ("CronJob", "churn-batch", "fourways.dev/deployment"),
        ("CronJob", "churn-batch", "app.kubernetes.io/managed-by"),
        ("NetworkPolicy", "churn-batch", "fourways.dev/mode"),
        ("Deployment", "fourways-gateway", "app.kubernetes.io/managed-by"),
        ("Service", "fourways-gateway", "fourways.dev/component"),
    ],
)
def test_a_label_that_was_removed_by_hand_is_put_back(kind: str, name: str, label: str) -> None:
    cluster = _settled(apply())
    labels = cluster.objects[kind, NAMESPACE, name]["metadata"]["labels"]
    _settled(lambda c: c.user_unlabel(kind, NAMESPACE, name, label), cluster=cluster)
    assert cluster.objects[kind, NAMESPACE, name]["metadata"]["labels"] == labels
    assert _conditions(cluster)["Ready"]["reason"] == "WaitingForFirstRun"
    assert asyncio.run(second_look(cluster)) == []
