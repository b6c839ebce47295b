"""Four modes in one cluster: editing ``mode``, routes of the gateway, and kinds that may lack."""

from __future__ import annotations

import asyncio
from functools import cache
from itertools import pairwise, permutations

import pytest

from fourways_api import GatewayConfig
from fourways_operator.facts import Json
from fourways_operator.plan.routes import config_of
from tests.kit.waiting import turns

from .changes import BLOCKS, SECOND, apply, delete, in_mode
from .fake_cluster import FakeCluster
from .faults import Faults
from .rig import NAMESPACE, Rig, Step, play, second_look, state_of

MAIN = {
    "batch": ["CronJob"],
    "realtime": ["InferenceService"],
    "streaming": ["Deployment"],
    "edge": ["Job"],
}


def _settled(*steps: Step, cluster: FakeCluster | None = None) -> FakeCluster:
    return asyncio.run(play(cluster or FakeCluster(), steps))


def _kinds(cluster: FakeCluster) -> list[str]:
    """Return the kinds of what makes pods, but for the gateway."""
    main = {kind for kinds in MAIN.values() for kind in kinds}
    return [k for k, _, name in cluster.objects if k in main and name != "fourways-gateway"]


def _status(cluster: FakeCluster, name: str = "churn") -> Json:
    status: Json = cluster.objects["ModelDeployment", NAMESPACE, name]["status"]
    return status


def _ready(cluster: FakeCluster, name: str = "churn") -> Json:
    ready: Json = next(c for c in _status(cluster, name)["conditions"] if c["type"] == "Ready")
    return ready


def _gateway(cluster: FakeCluster) -> GatewayConfig:
    config = config_of(cluster.objects["Deployment", NAMESPACE, "fourways-gateway"])
    assert config is not None
    return config


@cache
def _in(mode: str) -> FakeCluster:
    return _settled(in_mode(mode))


PAIRS = pytest.mark.parametrize(("before", "after"), [*permutations(BLOCKS, 2)], ids=str)

ROUND = [*pairwise((*BLOCKS, next(iter(BLOCKS))))]
"""Each mode once before and once after a change: where `make test-fast` kills the operator."""

PAIRS_KILLED = pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(*pair, marks=() if pair in ROUND else pytest.mark.thorough)
        for pair in permutations(BLOCKS, 2)
    ],
)


@PAIRS
def test_another_mode_leaves_its_objects_and_nothing_else(before: str, after: str) -> None:
    cluster = _settled(in_mode(after), cluster=_in(before).clone())
    assert _kinds(cluster) == MAIN[after]
    assert _status(cluster)["mode"] == after
    # But for what grew with the edit, it is as if it had never been otherwise.
    changed, new = state_of(cluster), state_of(_in(after))
    assert changed.keys() == new.keys()
    # Of the gateway's volumes the ones that were there before come first.
    ours = [n for n in new if "ModelDeployment" not in n and "Deployment/fourways" not in n]
    assert _gateway(cluster) == _gateway(_in(after))
    assert [changed[name] for name in ours] == [new[name] for name in ours]
    assert not {"lastRun", "bundles", "nextRun"} & (
        _status(cluster).keys() - _status(_in(after)).keys()
    )


@PAIRS_KILLED
def test_another_mode_with_the_operator_killed_at_every_write(before: str, after: str) -> None:
    undisturbed = _settled(in_mode(after), cluster=_in(before).clone())
    for number in range(len(undisturbed.writes)):
        cluster = _in(before).clone()
        cluster.faults = Faults(kill_after=number)
        assert state_of(_settled(in_mode(after), cluster=cluster)) == state_of(undisturbed)


@PAIRS
def test_another_mode_without_any_watch_event(before: str, after: str) -> None:
    cluster = _in(before).clone()
    cluster.faults = Faults(lost_events=frozenset(range(1000)))
    state = state_of(_settled(in_mode(after), cluster=cluster))
    assert state == state_of(_settled(in_mode(after), cluster=_in(before).clone()))


@pytest.mark.parametrize("mode", BLOCKS)
def test_a_second_look_writes_nothing_in_any_mode(mode: str) -> None:
    assert asyncio.run(second_look(_in(mode).clone())) == []


def test_the_gateway_is_told_of_what_is_not_batch() -> None:
    cluster = _settled(*(in_mode(mode, mode) for mode in BLOCKS))
    routes = {r.deployment: r for r in _gateway(cluster).routes}
    assert list(routes) == ["edge", "realtime", "streaming"]
    assert routes["realtime"].url == "http://realtime-realtime-predictor.shop.svc.cluster.local"
    assert routes["edge"].features is not None
    assert routes["edge"].features.inputs == ("orders",)
    pod = cluster.objects["Deployment", NAMESPACE, "fourways-gateway"]["spec"]["template"]["spec"]
    mounts = {m["mountPath"] for m in pod["containers"][0]["volumeMounts"]}
    assert {"/etc/fourways/secrets/features", "/fourways/volumes/models"} <= mounts


def test_a_deployment_that_goes_takes_its_route_along() -> None:
    cluster = _settled(in_mode("realtime", "a"), in_mode("streaming", "b"), delete("a"))
    assert [r.deployment for r in _gateway(cluster).routes] == ["b"]


def test_a_spec_that_is_not_valid_keeps_its_last_route() -> None:
    cluster = _settled(in_mode("realtime"), in_mode("realtime", contract={"inputs": []}))
    assert [r.version for r in _gateway(cluster).routes] == ["1"]


def test_bundles_are_routed_once_they_are_built_and_the_old_ones_until_then() -> None:
    cluster = FakeCluster()
    cluster.builds_take_time = True
    _settled(in_mode("edge"), cluster=cluster)
    assert _gateway(cluster).routes == ()
    assert _ready(cluster)["reason"] == "BuildInProgress"
    _settled(FakeCluster.end_builds, cluster=cluster)
    assert [r.version for r in _gateway(cluster).routes] == ["1"]
    _settled(in_mode("edge", model=SECOND), cluster=cluster)
    assert [r.version for r in _gateway(cluster).routes] == ["1"]
    _settled(FakeCluster.end_builds, cluster=cluster)
    assert [r.version for r in _gateway(cluster).routes] == ["2"]


def test_jobs_of_a_run_are_not_a_build_and_stay() -> None:
    def run(cluster: FakeCluster) -> None:
        cron_job = cluster.objects["CronJob", NAMESPACE, "churn-batch"]
        reference = {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "name": "churn-batch",
            "uid": cron_job["metadata"]["uid"],
        }
        template = cron_job["spec"]["jobTemplate"]
        for name, owner in (
            ("scheduled", {**reference, "controller": True}),
            ("by-hand", reference),
        ):
            meta = {
                "name": name,
                "namespace": NAMESPACE,
                "ownerReferences": [owner],
                "labels": template["metadata"]["labels"],
            }
            cluster.user_apply(
                {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "metadata": meta,
                    "spec": {"template": template["spec"]["template"]},
                }
            )

    cluster = _settled(apply(), run, apply(model=SECOND))
    assert {"scheduled", "by-hand"} <= {name for kind, _, name in cluster.objects if kind == "Job"}


def _on_ray(cluster: FakeCluster) -> None:
    source = {"uri": "pvc://data/customers.parquet"}
    apply(batch={"schedule": "@daily", "source": source, "engine": "Ray"})(cluster)


def _begin(name: str, **labels: str) -> Step:
    """Make a Job as the CronJob controller and `fourways start-run` do."""

    def begin(cluster: FakeCluster) -> None:
        cron_job = cluster.objects["CronJob", NAMESPACE, "churn-batch"]
        template = cron_job["spec"]["jobTemplate"]
        owner = {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "name": "churn-batch",
            "uid": cron_job["metadata"]["uid"],
            "controller": True,
        }
        meta = {
            "name": name,
            "namespace": NAMESPACE,
            "ownerReferences": [owner],
            "labels": {**template["metadata"]["labels"], **labels},
        }
        cluster.user_apply(
            {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": template["spec"]}
        )

    return begin


def test_a_run_under_ray_has_a_ray_job_for_as_long_as_its_job_lasts() -> None:
    cluster = FakeCluster()
    cluster.builds_take_time = True
    _settled(_on_ray, _begin("one"), cluster=cluster)
    assert _ray_jobs(cluster) == {"one"}
    _settled(FakeCluster.end_builds, cluster=cluster)
    assert _ray_jobs(cluster) == set()
    assert ("NetworkPolicy", NAMESPACE, "one") not in cluster.objects
    _settled(_begin("two"), cluster=cluster)
    assert _ray_jobs(cluster) == {"two"}


def test_a_way_back_needs_no_ray() -> None:
    cluster = FakeCluster()
    cluster.builds_take_time = True
    _settled(_on_ray, _begin("back", **{"fourways.dev/rollback": "true"}), cluster=cluster)
    assert _ray_jobs(cluster) == set()


def test_kuberay_may_come_later() -> None:
    cluster = FakeCluster(absent=frozenset({"RayJob"}))
    cluster.builds_take_time = True

    async def scenario() -> str:
        rig = Rig(cluster)
        _on_ray(cluster)
        await rig.settle()
        _begin("one")(cluster)
        await rig.settle()
        without = str(_ready(cluster)["reason"])
        cluster.absent = frozenset()
        await turns(100)
        await rig.settle()
        await rig.stop()
        return without

    assert asyncio.run(scenario()) == "KubeRayMissing"
    assert _ray_jobs(cluster) == {"one"}
    assert _ready(cluster)["reason"] != "KubeRayMissing"


def _ray_jobs(cluster: FakeCluster) -> set[str]:
    return {name for kind, _, name in cluster.objects if kind == "RayJob"}


def test_kserve_may_come_later() -> None:
    cluster = FakeCluster(absent=frozenset({"InferenceService"}))

    async def scenario() -> tuple[Json, list[str]]:
        rig = Rig(cluster)
        in_mode("realtime")(cluster)
        await rig.settle()
        without = _ready(cluster)
        cluster.absent = frozenset()
        # Nobody tells it: it looks by itself.
        await turns(100)
        await rig.settle()
        await rig.stop()
        return without, _kinds(cluster)

    without, kinds = asyncio.run(scenario())
    assert (without["status"], without["reason"]) == ("False", "KServeMissing")
    assert "install KServe" in without["message"]
    assert kinds == ["InferenceService"]
    assert _ready(cluster)["reason"] != "KServeMissing"
