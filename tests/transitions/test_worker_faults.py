"""What a running worker reports gets into status once, and leaves it with its cause."""

from __future__ import annotations

import asyncio

from fourways_api.worker_faults import WorkerFaults, worker_fault
from fourways_operator.errors import GatewaySilent
from fourways_operator.facts import Json
from tests.kit.waiting import turns

from .changes import delete, in_mode
from .fake_cluster import FakeCluster
from .rig import NAMESPACE, Rig


class Worker:
    """A stream worker: what it says, or silence."""

    def __init__(self) -> None:
        self.fault: str | None = None
        self.silent = False
        self.asked: list[str] = []

    async def ask(self, url: str) -> bytes:
        self.asked.append(url)
        if self.silent:
            raise GatewaySilent("no answer")
        found = (worker_fault(self.fault, "no room"),) if self.fault else ()
        return WorkerFaults(faults=found).model_dump_json().encode()


def start_worker(cluster: FakeCluster) -> None:
    """Make a pod as the controllers do, and start it as the kubelet does."""
    workload = cluster.objects["Deployment", NAMESPACE, "churn-streaming"]
    template = workload["spec"]["template"]
    meta = {"name": "churn-x", "namespace": NAMESPACE, "labels": template["metadata"]["labels"]}
    status = {
        "phase": "Running",
        "podIP": "10.0.0.7",
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]}
    cluster.user_apply(pod | {"status": status})


def degraded(cluster: FakeCluster) -> str:
    status: Json = cluster.objects["ModelDeployment", NAMESPACE, "churn"]["status"]
    found = next(c for c in status["conditions"] if c["type"] == "Degraded")
    return f"{found['status']} {found['reason']}"


async def until_asked(rig: Rig, worker: Worker, times: int = 5) -> None:
    """Let the worker be asked a few times more, and what it told be worked on."""
    before = len(worker.asked)
    for _ in range(1_000):
        await turns()
        if len(worker.asked) >= before + times:
            break
    else:
        raise AssertionError("nobody asks the worker")
    await rig.settle()


def test_a_fault_is_written_once_and_goes_with_its_cause_or_its_worker() -> None:
    async def play() -> None:
        worker, cluster = Worker(), FakeCluster()
        rig = Rig(cluster, ask_worker=worker.ask)
        await rig.settle()
        in_mode("streaming")(cluster)
        await rig.settle()
        start_worker(cluster)
        await until_asked(rig, worker)
        assert set(worker.asked) == {"http://10.0.0.7:8080/faults"}
        assert degraded(cluster) == "False AsExpected"
        cluster.writes.clear()

        worker.fault = "StoreFull"
        await until_asked(rig, worker)
        assert degraded(cluster) == "True StoreFull"
        assert cluster.writes == ["status churn", "event StoreFull"]
        cluster.writes.clear()
        await until_asked(rig, worker)
        await rig.resync()
        await rig.restart()
        await until_asked(rig, worker)
        assert degraded(cluster) == "True StoreFull"
        assert cluster.writes == []

        worker.fault = None
        await until_asked(rig, worker)
        assert degraded(cluster) == "False AsExpected"

        worker.fault = "BrokerUnavailable"
        await until_asked(rig, worker)
        assert degraded(cluster) == "True BrokerUnavailable"
        worker.silent = True
        await until_asked(rig, worker)
        assert degraded(cluster) == "False AsExpected"

        delete()(cluster)
        await rig.settle()
        asked = len(worker.asked)
        await rig.resync()
        assert len(worker.asked) <= asked + 1
        await rig.stop()

    asyncio.run(play())
