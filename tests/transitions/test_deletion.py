"""What a deployment leaves when it is deleted, and what one made anew under its name gets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fourways_api import PurgeConfig
from fourways_api.deployment import CONTINUES
from fourways_operator.facts import Json
from fourways_operator.plan.purge import PURGE_LABEL, UID_ANNOTATION
from fourways_operator.plan.routes import config_of
from fourways_operator.pods import config_text

from .changes import apply, deployment
from .fake_cluster import FakeCluster
from .faults import Faults
from .rig import NAMESPACE, Step, play, second_look

KIND = "ModelDeployment"


def _settled(*steps: Step, cluster: FakeCluster | None = None) -> FakeCluster:
    return asyncio.run(play(cluster or FakeCluster(), steps))


def delete(name: str = "churn") -> Step:
    return lambda cluster: cluster.user_delete(KIND, NAMESPACE, name)


def continues(uid: str) -> Step:
    def step(cluster: FakeCluster) -> None:
        made = deployment()
        made["metadata"]["annotations"] = {CONTINUES: uid}
        cluster.user_apply(made)

    return step


def _uid(cluster: FakeCluster, name: str = "churn") -> str:
    uid: str = cluster.objects[KIND, NAMESPACE, name]["metadata"]["uid"]
    return uid


def _owners(cluster: FakeCluster) -> dict[str, str] | None:
    config = config_of(cluster.objects["Deployment", NAMESPACE, "fourways-gateway"])
    assert config is not None
    return config.owners


def _purges(cluster: FakeCluster) -> dict[str, bool]:
    """Return whether each purge has started, by the uid whose data it removes."""
    jobs = [o for o in cluster.objects.values() if PURGE_LABEL in o["metadata"].get("labels", {})]
    for job in jobs:
        assert "ownerReferences" not in job["metadata"] or not job["metadata"]["ownerReferences"]
        assert job["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
    return {j["metadata"]["annotations"][UID_ANNOTATION]: not j["spec"]["suspend"] for j in jobs}


def _purge_config(cluster: FakeCluster) -> PurgeConfig:
    (job,) = [o for o in cluster.objects.values() if PURGE_LABEL in o["metadata"].get("labels", {})]
    return PurgeConfig.model_validate_json(config_text(job))


def test_the_gateway_answers_for_the_uids_that_exist_now() -> None:
    cluster = _settled(apply("a"), apply("b"))
    assert _owners(cluster) == {"a": _uid(cluster, "a"), "b": _uid(cluster, "b")}
    before = _uid(cluster, "a")
    _settled(delete("a"), cluster=cluster)
    assert _owners(cluster) == {"b": _uid(cluster, "b")}
    _settled(apply("a"), cluster=cluster)
    assert _uid(cluster, "a") != before
    assert _owners(cluster) == {"a": _uid(cluster, "a"), "b": _uid(cluster, "b")}


def test_a_worker_writes_for_its_deployment_s_uid() -> None:
    cluster = _settled(apply())
    cron = cluster.objects["CronJob", NAMESPACE, "churn-batch"]
    template: Json = cron["spec"]["jobTemplate"]
    assert f'"uid":"{_uid(cluster)}"' in config_text(template)


def test_an_annotation_continues_the_data_of_a_former_uid() -> None:
    cluster = _settled(continues("former"))
    assert _owners(cluster) == {"churn": "former"}
    cron = cluster.objects["CronJob", NAMESPACE, "churn-batch"]
    assert '"uid":"former"' in config_text(cron["spec"]["jobTemplate"])


def test_an_annotation_that_is_no_uid_is_refused_by_name() -> None:
    cluster = _settled(continues("no uid"))
    conditions = cluster.objects[KIND, NAMESPACE, "churn"]["status"]["conditions"]
    (valid,) = [c for c in conditions if c["type"] == "SpecValid"]
    assert valid["status"] == "False"
    assert CONTINUES in valid["message"]


def test_retained_data_has_no_purge() -> None:
    assert _purges(_settled(apply())) == {}
    assert _purges(_settled(apply(deletionPolicy="Delete"), apply())) == {}


def test_a_purge_waits_for_the_deletion_and_then_starts() -> None:
    cluster = _settled(apply(deletionPolicy="Delete"))
    uid = _uid(cluster)
    assert _purges(cluster) == {uid: False}
    assert _purge_config(cluster) == PurgeConfig(namespace=NAMESPACE, name="churn", uids=(uid,))
    assert asyncio.run(second_look(cluster)) == []
    _settled(delete(), cluster=cluster)
    assert _purges(cluster) == {uid: True}


def test_a_deployment_made_anew_at_once_keeps_its_own_data() -> None:
    cluster = _settled(apply(deletionPolicy="Delete"))
    old = _uid(cluster)

    def anew(cluster: FakeCluster) -> None:
        delete()(cluster)
        apply(deletionPolicy="Delete")(cluster)

    _settled(anew, cluster=cluster)
    assert _purges(cluster) == {old: True, _uid(cluster): False}


def test_what_a_deployment_continues_is_not_removed_beneath_it() -> None:
    cluster = _settled(apply(deletionPolicy="Delete"))
    old = _uid(cluster)

    def anew(cluster: FakeCluster) -> None:
        delete()(cluster)
        continues(old)(cluster)

    _settled(anew, cluster=cluster)
    assert _purges(cluster) == {}


def _at_every_write(*steps: Step) -> list[int]:
    played = FakeCluster()
    _settled(*steps, cluster=played)
    return list(range(1, len(played.writes) + 1))


@pytest.mark.parametrize("at", _at_every_write(apply(deletionPolicy="Delete"), delete()))
def test_an_operator_killed_at_any_write_still_purges(at: int) -> None:
    cluster = FakeCluster()
    cluster.faults = Faults(kill_before=at)
    _settled(apply(deletionPolicy="Delete"), delete(), cluster=cluster)
    assert list(_purges(cluster).values()) == [True]


def test_a_running_purge_is_left_alone() -> None:
    cluster = _settled(apply(deletionPolicy="Delete"), delete())
    before: Any = dict(_purges(cluster))
    writes = len(cluster.writes)
    _settled(apply("other"), cluster=cluster)
    assert _purges(cluster) == before
    assert not [w for w in cluster.writes[writes:] if "purge" in w]
