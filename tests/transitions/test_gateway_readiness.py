"""A gateway that cannot answer for a deployment ends its Ready until it can again."""

from __future__ import annotations

import asyncio

from fourways_operator.errors import GatewaySilent
from fourways_operator.plan.parts import GATEWAY
from tests.kit.waiting import turns

from .changes import delete, in_mode
from .fake_cluster import FakeCluster
from .rig import NAMESPACE, Rig


class Gateway:
    def __init__(self) -> None:
        self.code = 200
        self.asked: list[tuple[str, str]] = []

    async def ask(self, namespace: str, deployment: str) -> bytes:
        self.asked.append((namespace, deployment))
        if self.code != 200:
            raise GatewaySilent(f"HTTP {self.code}", self.code)
        return b"{}"


def start_pod(cluster: FakeCluster, deployment: str) -> None:
    """Make a ready pod as the controllers and the kubelet do."""
    workload = cluster.objects["Deployment", NAMESPACE, deployment]
    template = workload["spec"]["template"]
    meta = {"name": deployment + "-x", "namespace": NAMESPACE}
    meta["labels"] = template["metadata"]["labels"]
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]}
    cluster.user_apply(pod | {"status": status})


def ready(cluster: FakeCluster) -> str:
    status = cluster.objects["ModelDeployment", NAMESPACE, "churn"]["status"]
    found = next(c for c in status["conditions"] if c["type"] == "Ready")
    return f"{found['status']} {found['reason']}"


async def until_asked(rig: Rig, gateway: Gateway, times: int = 4) -> None:
    before = len(gateway.asked)
    for _ in range(1_000):
        await turns()
        if len(gateway.asked) >= before + times:
            break
    else:
        raise AssertionError("nobody asks the gateway")
    await rig.settle()


def test_ready_follows_what_the_gateway_says() -> None:
    async def play() -> None:
        gateway, cluster = Gateway(), FakeCluster()
        rig = Rig(cluster, ask_ready=gateway.ask)
        await rig.settle()
        in_mode("streaming")(cluster)
        await rig.settle()
        assert gateway.asked == [], "nothing serves yet"
        start_pod(cluster, "churn-streaming")
        start_pod(cluster, GATEWAY)
        live = cluster.objects["Deployment", NAMESPACE, GATEWAY]
        cluster.user_apply({**live, "status": {"availableReplicas": 1}})
        await until_asked(rig, gateway)
        assert set(gateway.asked) == {(NAMESPACE, "churn")}
        assert ready(cluster) == "True Answering"
        cluster.writes.clear()

        gateway.code = 503
        await until_asked(rig, gateway)
        assert ready(cluster) == "False GatewayNotAnswering"
        assert cluster.writes == ["status churn", "event GatewayNotAnswering"]
        await rig.restart()
        await until_asked(rig, gateway)
        assert ready(cluster) == "False GatewayNotAnswering"
        assert len(cluster.writes) == 2

        gateway.code = 200
        await until_asked(rig, gateway)
        assert ready(cluster) == "True Answering"

        delete()(cluster)
        await rig.settle()
        asked = len(gateway.asked)
        await rig.resync()
        assert len(gateway.asked) <= asked + 1
        await rig.stop()

    asyncio.run(play())


def serve_realtime(cluster: FakeCluster) -> None:
    """Make a ready model server as KServe and the kubelet do."""
    service = cluster.objects["InferenceService", NAMESPACE, "churn-realtime"]
    meta = {"name": "churn-realtime-x", "namespace": NAMESPACE}
    meta["labels"] = service["metadata"]["labels"]
    spec = {"containers": service["spec"]["predictor"]["containers"]}
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}
    cluster.user_apply(pod | {"status": status})


def test_the_first_ready_of_a_realtime_deployment_is_the_gateways_word() -> None:
    async def play() -> None:
        gateway, cluster = Gateway(), FakeCluster()
        gateway.code = 504  # its node does not know the Service yet
        rig = Rig(cluster, ask_ready=gateway.ask)
        await rig.settle()
        in_mode("realtime")(cluster)
        await rig.settle()
        serve_realtime(cluster)
        await rig.settle()
        start_pod(cluster, GATEWAY)
        live = cluster.objects["Deployment", NAMESPACE, GATEWAY]
        cluster.user_apply({**live, "status": {"availableReplicas": 1}})
        await until_asked(rig, gateway, 1)
        assert ready(cluster).startswith("False")
        assert "event WaitingForGateway" in cluster.writes
        assert "event Answering" not in cluster.writes, "it was never Ready"
        gateway.code = 200
        await until_asked(rig, gateway)
        assert ready(cluster) == "True Answering"
        cluster.writes.clear()

        await rig.restart()
        await until_asked(rig, gateway)
        assert (ready(cluster), cluster.writes) == ("True Answering", []), "it does not flap"
        await rig.stop()

    asyncio.run(play())
