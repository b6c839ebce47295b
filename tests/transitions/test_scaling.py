"""A deployment goes to sleep and wakes by what the gateway's pods say, across restarts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from fourways_api.demand import DeploymentDemand, GatewayDemand
from fourways_operator.errors import GatewaySilent
from fourways_operator.facts import Json
from fourways_operator.pods import config_text
from tests.kit.waiting import turns

from .changes import SECOND, apply, delete
from .fake_cluster import FakeCluster
from .rig import NAMESPACE, Rig

PREDICTOR = "churn-realtime-predictor"
SPEC = {"mode": "realtime", "realtime": {"minReplicas": 0}}
QUALITY = {
    "truth": {"uri": "pvc://data/truth.parquet"},
    "label": "happened",
    "time": "at",
    "output": "probability",
    "metrics": ["MAE"],
}


class Gateways:
    """What the pods of the gateway say, by address; others are silent."""

    def __init__(self) -> None:
        self.told: dict[str, DeploymentDemand] = {}
        self.news = asyncio.Event()

    def tell(self, address: str, *, waiting: int = 0, idle: bool = False) -> None:
        self.told[address] = DeploymentDemand(deployment="churn", waiting=waiting, idle=idle)
        self.news.set()
        self.news = asyncio.Event()

    async def ask(self, url: str) -> bytes:
        address = url.removeprefix("http://").partition(":8080/demand?")[0]
        while True:
            if address not in self.told:
                raise GatewaySilent("no answer")
            told = self.told[address]
            mark = f"{told.waiting}{told.idle}"
            if f"mark={mark}&" not in url:
                return GatewayDemand(mark=mark, deployments=(told,)).model_dump_json().encode()
            await self.news.wait()


def kserve(cluster: FakeCluster) -> None:
    """Make the Deployment, its pod and the status of the InferenceService, as controllers do."""
    service = cluster.objects["InferenceService", NAMESPACE, "churn-realtime"]
    labels = service["metadata"]["labels"]
    meta = {"namespace": NAMESPACE, "labels": labels}
    conditions = [{"type": kind, "status": "True"} for kind in ("PredictorReady", "Ready")]
    told = {"address": {"url": f"http://{PREDICTOR}"}, "conditions": conditions}
    identity = {k: service[k] for k in ("apiVersion", "kind")}
    name = {"name": "churn-realtime", "namespace": NAMESPACE}
    cluster.user_apply({**identity, "metadata": name, "status": told})
    predictor = service["spec"]["predictor"]
    pod = {"containers": predictor["containers"]}
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "spec": spec}
    cluster.user_apply({**deployment, "metadata": {**meta, "name": PREDICTOR}})
    run_pod(cluster, "churn-x", "10.0.0.7", labels, pod)


def run_gateway(cluster: FakeCluster, name: str, address: str) -> None:
    template = cluster.objects["Deployment", NAMESPACE, "fourways-gateway"]["spec"]["template"]
    run_pod(cluster, name, address, template["metadata"]["labels"], template["spec"])
    meta = {"name": "fourways-gateway", "namespace": NAMESPACE}
    available = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta}
    cluster.user_apply({**available, "status": {"availableReplicas": 1}})


def run_pod(
    cluster: FakeCluster,
    name: str,
    address: str,
    labels: Json,
    spec: Json,
    status: Json | None = None,
) -> None:
    meta = {"name": name, "namespace": NAMESPACE, "labels": labels}
    ready = [{"type": "Ready", "status": "True"}]
    status = status or {"phase": "Running", "podIP": address, "conditions": ready}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": status}
    cluster.user_apply(pod)


def end_replica(cluster: FakeCluster) -> None:
    cluster.user_delete("Pod", NAMESPACE, "churn-x")


def replicas(cluster: FakeCluster) -> int:
    count: int = cluster.objects["Deployment", NAMESPACE, PREDICTOR]["spec"]["replicas"]
    return count


def ready(cluster: FakeCluster) -> str:
    status: Json = cluster.objects["ModelDeployment", NAMESPACE, "churn"]["status"]
    found = next(c for c in status["conditions"] if c["type"] == "Ready")
    return f"{found['status']} {found['reason']}"


async def until(rig: Rig, condition: Callable[[], bool], what: str) -> None:
    for _ in range(2_000):
        await turns()
        if condition():
            await rig.settle()
            return
    raise AssertionError(f"not {what}: {replicas(rig.cluster)}, {ready(rig.cluster)}")


def test_it_sleeps_when_idle_and_wakes_for_a_request() -> None:
    async def play() -> None:
        gateways, cluster = Gateways(), FakeCluster()
        rig = Rig(cluster, ask_demand=gateways.ask)
        await rig.settle()
        apply(**SPEC)(cluster)
        await rig.settle()
        kserve(cluster)
        await rig.settle()
        run_gateway(cluster, "g-1", "10.0.0.1")
        run_gateway(cluster, "g-2", "10.0.0.2")
        await rig.settle()
        assert (replicas(cluster), ready(cluster)) == (1, "True Answering")

        gateways.tell("10.0.0.1", idle=True)
        await rig.settle()
        assert replicas(cluster) == 1, "the other gateway may be busy"
        gateways.tell("10.0.0.2", idle=True)
        await until(rig, lambda: replicas(cluster) == 0, "asleep")
        end_replica(cluster)
        await rig.settle()
        assert ready(cluster) == "True Asleep"
        cluster.writes.clear()
        await rig.resync()
        await rig.restart()
        assert cluster.writes == [], "a new operator leaves it asleep"

        gateways.tell("10.0.0.2", waiting=1)
        await until(rig, lambda: replicas(cluster) == 1, "awake")
        assert ready(cluster) == "True Waking"
        assert [w for w in cluster.writes if w.startswith("scale")] == [f"scale {PREDICTOR}"]

        # A gateway that came anew is asked as well, and knows nothing yet.
        kserve(cluster)
        gateways.tell("10.0.0.2", idle=True)
        cluster.user_delete("Pod", NAMESPACE, "g-1")
        run_gateway(cluster, "g-3", "10.0.0.3")
        await rig.settle()
        assert replicas(cluster) == 1
        gateways.tell("10.0.0.3", idle=True)
        await until(rig, lambda: replicas(cluster) == 0, "asleep again")

        delete()(cluster)
        await rig.settle()
        await rig.stop()

    asyncio.run(play())


def test_it_sleeps_though_its_gateway_was_idle_before_it_was_ready() -> None:
    """A model that loads for longer than an idle one is kept: no event follows its readiness."""

    async def play() -> None:
        gateways, cluster = Gateways(), FakeCluster()
        rig = Rig(cluster, ask_demand=gateways.ask)
        await rig.settle()
        apply(**SPEC)(cluster)
        await rig.settle()
        kserve(cluster)
        loading = {"phase": "Running", "podIP": "10.0.0.7", "conditions": []}
        pod = cluster.objects["Pod", NAMESPACE, "churn-x"]
        cluster.user_apply({**pod, "status": loading})
        service = cluster.objects["InferenceService", NAMESPACE, "churn-realtime"]
        waits = [{"type": kind, "status": "False"} for kind in ("PredictorReady", "Ready")]
        cluster.user_apply({**service, "status": {**service["status"], "conditions": waits}})
        await rig.settle()
        run_gateway(cluster, "g-1", "10.0.0.1")
        gateways.tell("10.0.0.1", idle=True)
        await rig.settle()
        assert (replicas(cluster), ready(cluster)[:5]) == (1, "False")
        kserve(cluster)
        await until(rig, lambda: replicas(cluster) == 0, "asleep")
        await rig.stop()

    asyncio.run(play())


def served_version(cluster: FakeCluster) -> str:
    """Return the model's version in the InferenceService."""
    service = cluster.objects["InferenceService", NAMESPACE, "churn-realtime"]
    version: str = json.loads(config_text(service))["model"]["version"]
    return version


async def put_to_sleep(rig: Rig, gateways: Gateways, **more: Json) -> None:
    """Apply version 1, have it ready once, and let it fall asleep."""
    cluster = rig.cluster
    await rig.settle()
    apply(**SPEC, **more)(cluster)
    await rig.settle()
    kserve(cluster)
    if more:
        template = cluster.objects["Deployment", NAMESPACE, "churn-quality"]["spec"]["template"]
        run_pod(cluster, "q-1", "10.0.0.9", template["metadata"]["labels"], template["spec"])
    await rig.settle()
    run_gateway(cluster, "g-1", "10.0.0.1")
    gateways.tell("10.0.0.1", idle=True)
    await until(rig, lambda: replicas(cluster) == 0, "asleep")
    end_replica(cluster)
    await rig.settle()


@pytest.mark.parametrize("more", [{}, {"quality": QUALITY}], ids=["plain", "quality"])
def test_a_sleeping_version_is_ready_before_a_new_one_replaces_it(more: Json) -> None:
    async def play() -> None:
        gateways, cluster = Gateways(), FakeCluster()
        rig = Rig(cluster, ask_demand=gateways.ask)
        await put_to_sleep(rig, gateways, **more)
        apply(**SPEC, **more, model=SECOND)(cluster)
        await until(rig, lambda: replicas(cluster) == 1, "started")
        await rig.resync()
        await rig.restart()
        assert (served_version(cluster), ready(cluster)) == ("1", "True Waking")
        kserve(cluster)
        await rig.settle()
        assert (served_version(cluster), ready(cluster)) == ("2", "True Answering")
        assert replicas(cluster) == 1, "the new version has not been ready yet"
        await rig.stop()

    asyncio.run(play())


def test_a_sleeping_version_that_fails_is_not_waited_for() -> None:
    async def play() -> None:
        gateways, cluster = Gateways(), FakeCluster()
        rig = Rig(cluster, ask_demand=gateways.ask)
        await put_to_sleep(rig, gateways)
        apply(**SPEC, model=SECOND)(cluster)
        await until(rig, lambda: replicas(cluster) == 1, "started")
        last_words = json.dumps({"outcome": "Failed", "reason": "SourceError", "message": "gone"})
        ended = {"terminated": {"exitCode": 3, "message": last_words}}
        failed = {"phase": "Running", "containerStatuses": [{"state": ended}]}
        service = cluster.objects["InferenceService", NAMESPACE, "churn-realtime"]
        pod = {"containers": service["spec"]["predictor"]["containers"]}
        run_pod(cluster, "churn-y", "10.0.0.8", service["metadata"]["labels"], pod, failed)
        await rig.settle()
        assert served_version(cluster) == "2"
        await rig.stop()

    asyncio.run(play())
