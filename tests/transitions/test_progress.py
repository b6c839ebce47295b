"""How far a run is gets into status, and writes nothing when there is nothing new."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import orjson
import pytest

from fourways_operator.errors import GatewaySilent
from fourways_operator.facts import Json
from tests.kit.waiting import turns

from .changes import apply
from .fake_cluster import FakeCluster
from .rig import NAMESPACE, Rig


def start_run(cluster: FakeCluster) -> None:
    """Make a Job as the CronJob controller does."""
    cron = cluster.objects["CronJob", NAMESPACE, "churn-batch"]
    owner = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "name": "churn-batch",
        "uid": cron["metadata"]["uid"],
        "controller": True,
    }
    template = cron["spec"]["jobTemplate"]
    meta = {
        "name": "churn-1",
        "namespace": NAMESPACE,
        "labels": template["metadata"]["labels"],
        "ownerReferences": [owner],
    }
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": template["spec"]}
    cluster.user_apply(job)


@dataclass
class Gateway:
    """What the gateway answers: ``rows`` recorded, or nothing of use."""

    rows: int = 1_000
    says: bytes | None = None
    asked: int = field(default=0)

    async def ask(self, namespace: str) -> bytes:
        self.asked += 1
        if self.says is not None:
            return self.says
        if self.rows < 0:
            raise GatewaySilent("no answer")
        figures = {"rows": self.rows, "total_rows": 9_000, "rejects": 0, "rows_per_second": 10.0}
        return orjson.dumps(
            {"runs": [{"deployment": "churn", "run": "churn-1", "progress": figures}]}
        )


def status(cluster: FakeCluster) -> Json:
    found: Json = cluster.objects["ModelDeployment", NAMESPACE, "churn"]["status"]
    return found


async def running(gateway: Gateway) -> Rig:
    cluster = FakeCluster()
    cluster.builds_take_time = True
    rig = Rig(cluster, gateway.ask)
    await rig.settle()
    apply()(cluster)
    await rig.settle()
    start_run(cluster)
    await until_asked(rig, gateway)
    return rig


async def until_asked(rig: Rig, gateway: Gateway, times: int = 3) -> None:
    """Let the gateway be asked a few times more, and what it told be worked on."""
    before = gateway.asked
    for _ in range(1_000):
        await turns()
        if gateway.asked >= before + times:
            break
    await rig.settle()


def test_what_the_gateway_tells_is_written_once_and_again_when_it_changes() -> None:
    async def play() -> None:
        gateway = Gateway()
        rig = await running(gateway)
        assert status(rig.cluster)["lastRun"]["progress"]["rows"] == 1_000
        rig.cluster.writes.clear()
        await until_asked(rig, gateway)
        await rig.resync()
        assert rig.cluster.writes == []
        gateway.rows = 5_000
        await until_asked(rig, gateway)
        assert status(rig.cluster)["lastRun"]["progress"]["rows"] == 5_000
        assert rig.cluster.writes == ["status churn", "event RunProgress"]
        await rig.restart()
        await until_asked(rig, gateway)
        assert rig.cluster.writes == ["status churn", "event RunProgress"]
        await rig.stop()

    asyncio.run(play())


@pytest.mark.parametrize("says", [None, b"", b"{}", b'{"runs": [{"deployment": 1}]}'])
def test_a_gateway_that_does_not_tell_keeps_nothing_from_being_done(says: bytes | None) -> None:
    async def play() -> None:
        gateway = Gateway(rows=-1, says=says)
        rig = await running(gateway)
        assert "progress" not in status(rig.cluster)["lastRun"]
        assert status(rig.cluster)["lastRun"]["outcome"] == "Running"
        rig.cluster.user_delete("Job", NAMESPACE, "churn-1")
        await rig.settle()
        assert status(rig.cluster)["lastRun"]["outcome"] == "Failed"
        asked = gateway.asked
        await rig.resync()
        assert gateway.asked <= asked + 1  # nobody is asked when nothing runs
        await rig.stop()

    asyncio.run(play())
