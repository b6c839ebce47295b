"""A workload never runs without its guards: its own ServiceAccount and its NetworkPolicy."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Any

import pytest

from fourways_operator.errors import Forbidden, HookFailed, Invalid, OperatorError
from fourways_operator.facts import Json
from tests.kit.waiting import turns

from .changes import BLOCKS, apply, in_mode
from .fake_cluster import FakeCluster
from .rig import NAMESPACE, Rig, Step, play, state_of

WORKLOADS = frozenset({"CronJob", "Deployment", "InferenceService", "Job", "RayJob"})
GUARDS = ("ServiceAccount", "NetworkPolicy")
FAULTS = (
    Forbidden("networkpolicies is forbidden: exceeded quota"),
    Invalid("spec.egress.ports.port: Invalid value: 99999"),
    HookFailed("failed calling webhook"),
)
MODES = ("batch", "realtime", "streaming", "edge")


class RefusingCluster(FakeCluster):
    """Refuses guards while a fault is set; notes what workloads exist without their guards."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: dict[str, OperatorError] = {}
        self.unguarded: list[str] = []

    async def apply(self, obj: Json, uid: str | None) -> None:
        if fault := self.refused.get(obj["kind"]):
            raise fault
        await super().apply(obj, uid)
        self.unguarded += [w for w in self.workloads() if not self._is_guarded(w)]

    def workloads(self) -> list[str]:
        """Return KIND/NAME of each workload."""
        found = (f"{kind}/{name}" for kind, _, name in self.objects if kind in WORKLOADS)
        return sorted(found)

    def _is_guarded(self, workload: str) -> bool:
        kind, _, name = workload.partition("/")
        obj = self.objects[kind, NAMESPACE, name]
        accounts = set(_values(obj["spec"], "serviceAccountName"))
        policies = {n for k, _, n in self.objects if k == "NetworkPolicy"}
        ours = {
            n
            for (k, _, n), account in self.objects.items()
            if k == "ServiceAccount" and account["metadata"].get("ownerReferences")
        }
        return accounts <= ours and accounts <= policies


def _values(obj: Any, field: str) -> Iterator[str]:
    if isinstance(obj, dict):
        if field in obj:
            yield obj[field]
        for value in obj.values():
            yield from _values(value, field)
    elif isinstance(obj, list):
        for value in obj:
            yield from _values(value, field)


async def _wait(cluster: FakeCluster, rounds: int = 300) -> None:
    for _ in range(rounds):
        await turns()


def _said(cluster: FakeCluster, kind: str) -> tuple[str, str, str]:
    status = cluster.objects["ModelDeployment", NAMESPACE, "churn"]["status"]
    found = next(c for c in status["conditions"] if c["type"] == kind)
    return found["status"], found["reason"], found["message"]


def _each_fault_in_each_mode() -> Iterator[Any]:
    """All faults in one mode and one fault in all of them; the others take long."""
    for mode, kind, fault in product(MODES, GUARDS, FAULTS):
        repeats = mode != MODES[0] and fault is not FAULTS[0]
        name = f"{mode}-{kind}-{type(fault).__name__}"
        yield pytest.param(
            mode, kind, fault, id=name, marks=[pytest.mark.thorough] if repeats else []
        )


@cache
def _undisturbed(mode: str) -> set[Any]:
    return set(state_of(asyncio.run(play(FakeCluster(), [in_mode(mode)]))))


@pytest.mark.parametrize(("mode", "kind", "fault"), list(_each_fault_in_each_mode()))
def test_nothing_starts_without_its_guards(mode: str, kind: str, fault: OperatorError) -> None:
    async def run() -> RefusingCluster:
        cluster = RefusingCluster()
        cluster.refused[kind] = fault
        rig = Rig(cluster)
        await rig.settle()
        in_mode(mode)(cluster)
        await _wait(cluster)
        assert cluster.workloads() == []
        assert _said(cluster, "Degraded") == ("True", "ApplyFailed", str(fault))
        assert _said(cluster, "Ready")[0] == "False"
        cluster.refused.clear()
        await rig.settle()
        await rig.resync()
        await rig.stop()
        return cluster

    healed = asyncio.run(run())
    assert healed.unguarded == []
    assert set(state_of(healed)) == _undisturbed(mode)


@pytest.mark.parametrize("kind", GUARDS)
def test_a_running_workload_does_not_go_on_changed(kind: str) -> None:
    async def run() -> None:
        cluster = RefusingCluster()
        rig = Rig(cluster)
        await rig.settle()
        in_mode("streaming")(cluster)
        await rig.settle()
        before = cluster.objects["Deployment", NAMESPACE, "churn-streaming"]["spec"]
        cluster.user_unlabel(kind, NAMESPACE, "churn-streaming", "fourways.dev/mode")
        cluster.refused[kind] = FAULTS[0]
        apply(mode="streaming", **BLOCKS["streaming"], resources={"cpu": "3"})(cluster)
        await _wait(cluster)
        assert cluster.objects["Deployment", NAMESPACE, "churn-streaming"]["spec"] == before
        assert _said(cluster, "Degraded")[:2] == ("True", "ApplyFailed")
        cluster.refused.clear()
        await rig.settle()
        assert cluster.objects["Deployment", NAMESPACE, "churn-streaming"]["spec"] != before
        await rig.stop()

    asyncio.run(run())


def _of_somebody(kind: str, name: str) -> Json:
    meta = {"name": name, "namespace": NAMESPACE, "annotations": {"role": "etl-admin"}}
    if kind == "ServiceAccount":
        return {"apiVersion": "v1", "kind": kind, "metadata": meta}
    spec = {"podSelector": {}, "policyTypes": []}
    return {"apiVersion": "networking.k8s.io/v1", "kind": kind, "metadata": meta, "spec": spec}


@pytest.mark.parametrize("kind", GUARDS)
@pytest.mark.parametrize("mode", MODES)
def test_no_pod_runs_under_somebody_elses_guard(mode: str, kind: str) -> None:
    name = f"churn-{mode}"

    async def run() -> RefusingCluster:
        cluster = RefusingCluster()
        cluster.user_apply(_of_somebody(kind, name))
        rig = Rig(cluster)
        await rig.settle()
        in_mode(mode)(cluster)
        await rig.settle()
        assert not [w for w in cluster.workloads() if name in w]
        assert _said(cluster, "Degraded")[:2] == ("True", "NameTaken")
        assert f"{kind}/{name}" in _said(cluster, "Degraded")[2]
        assert "role" in cluster.objects[kind, NAMESPACE, name]["metadata"]["annotations"]
        cluster.user_delete(kind, NAMESPACE, name)
        await rig.settle()
        await rig.resync()
        assert [w for w in cluster.workloads() if name in w]
        await rig.stop()
        return cluster

    assert asyncio.run(run()).unguarded == []


@pytest.mark.parametrize("kind", GUARDS)
def test_the_gateway_waits_for_its_guards(kind: str) -> None:
    async def run() -> None:
        cluster = RefusingCluster()
        cluster.user_apply(_of_somebody(kind, "fourways-gateway"))
        rig = Rig(cluster)
        await rig.settle()
        apply()(cluster)
        await _wait(cluster)
        assert "Deployment/fourways-gateway" not in cluster.workloads()
        assert _said(cluster, "Degraded")[:2] == ("True", "NameTaken")
        await rig.stop()

    asyncio.run(run())


def test_guards_are_deleted_after_what_they_guard() -> None:
    steps: tuple[Step, ...] = (in_mode("streaming"), in_mode("batch"))

    async def run() -> list[str]:
        cluster = FakeCluster()
        rig = Rig(cluster)
        await rig.settle()
        for step in steps:
            cluster.writes.clear()
            step(cluster)
            await rig.settle()
        await rig.stop()
        return cluster.writes

    deletes = [w for w in asyncio.run(run()) if "delete" in w.lower()]
    order = [any(kind in w for kind in GUARDS) for w in deletes]
    assert order == sorted(order)
    assert set(order) == {True, False}
