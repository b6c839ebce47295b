"""The operator as a process beside a real API server."""

from __future__ import annotations

import statistics
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from fourways_operator.facts import Json
from fourways_operator.kinds import CRON_JOB
from tests.kit.cluster.operator_rig import Api, Process, deployment, operator, versions
from tests.kit.cluster.told import tell
from tests.kit.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

WARM_UP = 3
"""The first finds an operator that has not finished loading its watches."""

HOURLY = {"schedule": "@hourly", "source": {"uri": "pvc://tables/customers.parquet"}}
CHILDREN = {
    "CronJob/churn-batch",
    "NetworkPolicy/churn-batch",
    "ServiceAccount/churn-batch",
    "Deployment/fourways-gateway",
    "NetworkPolicy/fourways-gateway",
    "Service/fourways-gateway",
    "ServiceAccount/fourways-gateway",
}


@pytest.fixture
def api(kubeconfig: Path) -> Api:
    return Api(kubeconfig)


def _apply_and_wait(api: Api, namespace: str, process: Process) -> dict[str, Json]:
    api.apply(deployment(namespace))
    until(lambda: api.ours(namespace).keys() >= CHILDREN, "every child exists")
    _await_rest(api, namespace, process)
    return api.ours(namespace)


def _await_rest(api: Api, namespace: str, process: Process) -> None:
    """Wait until the operator and the cluster's own controllers have nothing more to say."""

    def still() -> bool:
        before = versions(api.ours(namespace)), process.metric("fourways_reconciles_total")
        time.sleep(0.5)
        after = versions(api.ours(namespace)), process.metric("fourways_reconciles_total")
        return before == after and process.is_idle()

    until(still, "the cluster comes to rest", seconds=60)


# It measures, as `make bench-operator` does.
@pytest.mark.long
def test_apply_to_cron_job(api: Api, cluster: object, namespace: str) -> None:
    seconds = []
    with operator(api, namespace):
        for number in range(WARM_UP + 30):
            name = f"model-{number}"
            api.apply(deployment(namespace, name))
            started = time.monotonic()
            until(lambda n=name: api.find(CRON_JOB, namespace, f"{n}-batch"), "CronJob", seconds=10)
            seconds.append(time.monotonic() - started)
    p95 = statistics.quantiles(seconds[WARM_UP:], n=20)[18]
    median = statistics.median(seconds[WARM_UP:])
    tell(f"apply -> CronJob exists: median {median:.3f} s, p95 {p95:.3f} s")


def test_a_restart_writes_nothing(api: Api, cluster: object, namespace: str) -> None:
    with operator(api, namespace) as first:
        before = _apply_and_wait(api, namespace, first)
    with operator(api, namespace) as second:
        _await_rest(api, namespace, second)
        assert second.metric("fourways_api_writes_total") == 0
    assert versions(api.ours(namespace)) == versions(before)


def test_nothing_of_ours_is_left_on_objects(api: Api, cluster: object, namespace: str) -> None:
    with operator(api, namespace) as process:
        objects = _apply_and_wait(api, namespace, process)
    for name, obj in objects.items():
        meta = obj["metadata"]
        assert "finalizers" not in meta, name
        annotations = meta.get("annotations", {}).keys()
        assert annotations <= {"deployment.kubernetes.io/revision"}, name
        managers = {f["manager"] for f in meta["managedFields"]}
        assert not any("kopf" in manager for manager in managers), name
    managers = {
        (f["manager"], f.get("subresource"))
        for f in objects["ModelDeployment/churn"]["metadata"]["managedFields"]
    }
    assert managers == {("kubectl", None), ("fourways-status", "status")}


def test_drift_is_repaired_and_an_edit_followed(api: Api, cluster: object, namespace: str) -> None:
    def schedule() -> Any:
        cron_job = api.find(CRON_JOB, namespace, "churn-batch")
        return cron_job and cron_job["spec"]["schedule"]

    with operator(api, namespace) as process:
        objects = _apply_and_wait(api, namespace, process)
        api.patch(objects["CronJob/churn-batch"], {"spec": {"schedule": "1 1 1 1 1"}})
        until(lambda: schedule() == "0 3 * * *", "the schedule is put back")
        uid = objects["Service/fourways-gateway"]["metadata"]["uid"]
        api.delete(objects["Service/fourways-gateway"])

        def is_back() -> bool:
            service = api.ours(namespace).get("Service/fourways-gateway")
            return service is not None and service["metadata"]["uid"] != uid

        until(is_back, "the Service is back")
        api.apply(deployment(namespace, batch=HOURLY))
        until(lambda: schedule() == "@hourly", "the edit is followed")


def test_one_of_two_deleted_and_then_the_other(api: Api, cluster: object, namespace: str) -> None:
    with operator(api, namespace) as process:
        _apply_and_wait(api, namespace, process)
        api.apply(deployment(namespace, "risk"))
        until(lambda: "CronJob/risk-batch" in api.ours(namespace), "the second's CronJob")
        api.delete(deployment(namespace))
        until(lambda: "CronJob/churn-batch" not in api.ours(namespace), "its children gone")
        assert "Deployment/fourways-gateway" in api.ours(namespace)
        api.delete(deployment(namespace, "risk"))
        until(lambda: not api.ours(namespace), "nothing is left", seconds=30)


ORDERS = list(permutations(("deployment", "operator", "namespace")))


@pytest.mark.parametrize(
    "orders", [ORDERS[::5], pytest.param(ORDERS[1:-1], marks=pytest.mark.long)]
)
def test_deletion_in_every_order_sticks_nowhere(
    api: Api, cluster: Any, orders: list[tuple[str, ...]]
) -> None:
    # Two at a time: each has an operator process of its own.
    with ThreadPoolExecutor(2) as pool:
        seconds = list(pool.map(lambda order: _delete_in(order, api, cluster), orders))
    for order, took in zip(orders, seconds, strict=True):
        tell(f"deleted {', '.join(order)}: gone after {took:.1f} s")


def _delete_in(order: tuple[str, ...], api: Api, cluster: Any) -> float:
    namespace = f"fw-test-{uuid.uuid4().hex[:8]}"
    cluster.make_namespace(namespace)
    with operator(api, namespace) as process:
        _apply_and_wait(api, namespace, process)
        actions: dict[str, Callable[[], object]] = {
            "deployment": lambda: api.delete(deployment(namespace)),
            "operator": process.stop,
            "namespace": lambda: api.request("delete", f"/api/v1/namespaces/{namespace}"),
        }
        started = time.monotonic()
        for what in order:
            actions[what]()
        until(lambda: not api.namespace_exists(namespace), f"{order}: gone", seconds=60)
        return time.monotonic() - started
