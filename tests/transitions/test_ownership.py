"""Two installations on one namespace: one manages it, the other leaves it alone."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

from fourways_operator.errors import Forbidden
from fourways_operator.facts import Json

from .changes import apply
from .fake_cluster import FakeCluster
from .rig import NAMESPACE, NOW, RESYNC, SETTINGS, Rig

FIRST = replace(SETTINGS, identity="ops/first")
SECOND = replace(SETTINGS, identity="ops/second", runtime_image="registry.example/other:2")


def _image(cluster: FakeCluster) -> str:
    job = cluster.objects["CronJob", NAMESPACE, "churn-batch"]["spec"]["jobTemplate"]
    image: str = job["spec"]["template"]["spec"]["containers"][0]["image"]
    return image


def _holder(cluster: FakeCluster) -> str:
    holder: str = cluster.leases[NAMESPACE, "fourways-operator"]["spec"]["holderIdentity"]
    return holder


def _status(cluster: FakeCluster) -> Json:
    status: Json = cluster.objects["ModelDeployment", NAMESPACE, "churn"]["status"]
    return status


def test_the_second_installation_writes_nothing() -> None:
    async def play() -> None:
        cluster = FakeCluster()
        first, second = Rig(cluster, settings=FIRST), Rig(cluster, settings=SECOND)
        await first.settle()
        apply()(cluster)
        await first.settle()
        await second.settle()
        owner, image = _holder(cluster), _image(cluster)
        assert _status(cluster)["operator"] == owner
        assert image == (FIRST if owner == FIRST.identity else SECOND).runtime_image
        cluster.writes.clear()
        for rig in (first, second, second, first):
            await rig.resync()
        assert cluster.writes == []
        await second.restart()
        await first.restart()
        assert cluster.writes == []
        assert (_holder(cluster), _image(cluster)) == (owner, image)
        await first.stop()
        await second.stop()

    asyncio.run(play())


def test_a_lease_that_is_not_renewed_is_taken_over_and_one_that_is_deleted_at_once() -> None:
    async def play() -> None:
        cluster = FakeCluster()
        first = Rig(cluster, settings=FIRST)
        await first.settle()
        apply()(cluster)
        await first.settle()
        await first.stop()
        moment = [NOW]
        second = Rig(cluster, settings=SECOND, now=lambda: moment[0])
        await second.settle()
        assert (_holder(cluster), _image(cluster)) == (FIRST.identity, FIRST.runtime_image)
        moment[0] += timedelta(seconds=3 * RESYNC + 1)
        await second.resync()
        assert (_holder(cluster), _image(cluster)) == (SECOND.identity, SECOND.runtime_image)
        assert _status(cluster)["operator"] == SECOND.identity
        await second.stop()
        del cluster.leases[NAMESPACE, "fourways-operator"]
        first = Rig(cluster, settings=FIRST)
        await first.settle()
        assert (_holder(cluster), _image(cluster)) == (FIRST.identity, FIRST.runtime_image)
        await first.stop()

    asyncio.run(play())


def test_a_lease_is_renewed_before_it_ends() -> None:
    async def play() -> None:
        cluster = FakeCluster()
        moment = [NOW]
        rig = Rig(cluster, settings=FIRST, now=lambda: moment[0])
        await rig.settle()
        apply()(cluster)
        await rig.settle()
        cluster.writes.clear()
        moment[0] += timedelta(seconds=RESYNC - 1)
        await rig.resync()
        assert f"lease {NAMESPACE}" not in cluster.writes
        moment[0] += timedelta(seconds=2)
        await rig.resync()
        assert cluster.writes.count(f"lease {NAMESPACE}") == 1
        await rig.stop()

    asyncio.run(play())


def test_without_the_right_to_leases_it_goes_on() -> None:
    class Old(FakeCluster):
        async def get_lease(self, namespace: str, name: str) -> Json | None:
            raise Forbidden("leases: forbidden")

    async def play() -> None:
        cluster = Old()
        rig = Rig(cluster, settings=FIRST)
        await rig.settle()
        apply()(cluster)
        await rig.settle()
        assert _image(cluster) == FIRST.runtime_image
        await rig.stop()

    asyncio.run(play())
