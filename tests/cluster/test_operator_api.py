"""The writing half against a real API server: what it stores, refuses, and makes of our applies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fourways_api import ModelDeployment, parse
from fourways_operator.cluster import MODEL_DEPLOYMENT
from fourways_operator.difference import difference
from fourways_operator.errors import (
    ApiUnreachable,
    Conflict,
    Forbidden,
    Invalid,
    ObjectGone,
    OperatorError,
)
from fourways_operator.facts import FIELD_MANAGER, Json, Kind, OperatorSettings
from fourways_operator.kinds import CRON_JOB, INFERENCE_SERVICE, KINDS, RAY_JOB
from fourways_operator.kubernetes_cluster import GRANTS, Grant, KubernetesCluster
from fourways_operator.ownership import Ownership
from fourways_operator.planning import plan, plan_gateway, plan_runs
from fourways_operator.reconcile import reconcile
from fourways_operator.work_queue import Key
from tests.kit.cluster.operator_rig import FULL, IMAGE, MODES, Api, deployment, versions

pytestmark = pytest.mark.cluster

SETTINGS = OperatorSettings(
    runtime_image=IMAGE, gateway_replicas=2, allowed_hosts=("*.example.com",), egress_ports=(9000,)
)
ON_RAY = {"batch": {**FULL["batch"], "engine": "Ray"}}
# No pods, so that nothing but the operator has a say in what is written.
QUIET = replace(SETTINGS, gateway_replicas=0)


@pytest.fixture
def api(kubeconfig: Path) -> Api:
    return Api(kubeconfig)


class Counting(KubernetesCluster):
    """The real thing; counts writes, and dies before or after one of them when told to."""

    def __init__(self, client: Any, namespace: str) -> None:
        super().__init__(client, (namespace,))
        self.writes: list[str] = []
        self.kill_before: int | None = None
        self.kill_after: int | None = None

    async def _call(self, method: str, path: str, verb: str, kind: Kind, **more: Any) -> Json:
        if verb in ("get", "list"):
            return await super()._call(method, path, verb, kind, **more)
        number = len(self.writes)
        if number == self.kill_before:
            raise Killed
        self.writes.append(f"{verb} {path}")
        answer = await super()._call(method, path, verb, kind, **more)
        if number == self.kill_after:
            raise Killed
        return answer


class Killed(BaseException):
    """The operator's process died here."""


async def _reconcile(cluster: KubernetesCluster, namespace: str, name: str = "churn") -> None:
    for key in (Key(namespace, name), Key(namespace), Key(namespace, name)):
        await reconcile(key, cluster, QUIET, lambda: datetime.now(UTC))


def _wanted(raw: Json, settings: OperatorSettings = QUIET) -> tuple[Json, ...]:
    spec = parse({k: v for k, v in raw.items() if k != "status"})
    return (
        *plan(spec, settings),
        *plan_gateway(raw["metadata"]["namespace"], [raw], settings),
    )


def _of_a_run(spec: ModelDeployment) -> tuple[Json, ...]:
    """Return what a run needs beside its Job."""
    crons = [obj for obj in plan(spec, SETTINGS) if obj["kind"] == "CronJob"]
    templates = [cron["spec"]["jobTemplate"] for cron in crons]
    jobs = [{"metadata": {"name": "a-run"}, "spec": template["spec"]} for template in templates]
    return plan_runs(spec, SETTINGS, None, jobs)


def test_what_was_applied_is_found_equal_whatever_the_server_filled_in(
    api: Api, cluster: object, namespace: str
) -> None:
    documents = [
        api.apply(deployment(namespace, mode, **changes))
        for mode, changes in {**MODES, "ray": ON_RAY}.items()
    ]
    specs = [parse({k: v for k, v in raw.items() if k != "status"}) for raw in documents]
    wanted = [obj for spec in specs for obj in (*plan(spec, SETTINGS), *_of_a_run(spec))]
    wanted += plan_gateway(namespace, documents, SETTINGS)
    assert {o["kind"] for o in wanted} == {k.kind for k in KINDS}, "a planned kind is not tried"
    real = Counting(api.client, namespace)

    async def apply_all() -> None:
        there = await real.discover()
        # Without KServe there is no InferenceService to compare, without KubeRay no RayJob.
        wanted[:] = [obj for obj in wanted if any(kind.of(obj) for kind in there)]
        for obj in wanted:
            await real.apply(obj, None)

    asyncio.run(apply_all())
    live = api.ours(namespace)
    for obj in wanted:
        found = live[f"{obj['kind']}/{obj['metadata']['name']}"]
        if RAY_JOB.of(obj):
            continue  # KubeRay writes into it, and it is never applied again.
        assert difference(obj, found, FIELD_MANAGER) is None, obj["kind"]


@pytest.mark.parametrize("mode", ["realtime", "streaming", "edge"])
def test_a_second_reconcile_writes_nothing_in_other_modes(
    api: Api, cluster: object, namespace: str, mode: str
) -> None:
    api.apply(deployment(namespace, **MODES[mode]))
    real = Counting(api.client, namespace)

    async def scenario() -> None:
        await _reconcile(real, namespace)
        real.writes.clear()
        await _reconcile(real, namespace)

    asyncio.run(scenario())
    # What its pods do by themselves may be told, and nothing else.
    assert [w for w in real.writes if "/status" not in w and "/events" not in w] == []


def test_a_second_reconcile_writes_nothing(api: Api, cluster: object, namespace: str) -> None:
    api.apply(deployment(namespace))
    real = Counting(api.client, namespace)

    async def scenario() -> None:
        await _reconcile(real, namespace)
        assert real.writes
        real.writes.clear()
        before = versions(api.ours(namespace))
        await _reconcile(real, namespace)
        after = versions(api.ours(namespace))
        # The Deployment's own controller may write its status while we look.
        assert {n for n in before if before[n] != after[n]} <= {"Deployment/fourways-gateway"}

    asyncio.run(scenario())
    assert real.writes == []


@pytest.mark.parametrize("number", range(0, 10, 2))
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_a_write_the_end_is_the_same(
    api: Api, cluster: object, namespace: str, number: int, moment: str
) -> None:
    raw = api.apply(deployment(namespace))
    real = Counting(api.client, namespace)
    setattr(real, f"kill_{moment}", number)
    with pytest.raises(Killed):
        asyncio.run(_reconcile(real, namespace))
    asyncio.run(_reconcile(Counting(api.client, namespace), namespace))
    live = api.ours(namespace)
    wanted = {f"{o['kind']}/{o['metadata']['name']}": o for o in _wanted(raw)}
    assert live.keys() == {*wanted, "ModelDeployment/churn"}
    for name, obj in wanted.items():
        assert difference(obj, live[name], FIELD_MANAGER) is None, name
    assert live["ModelDeployment/churn"]["status"]["observedGeneration"] == 1


def test_what_is_no_longer_wanted_does_not_linger(
    api: Api, cluster: object, namespace: str
) -> None:
    api.apply(deployment(namespace))
    real = Counting(api.client, namespace)
    asyncio.run(_reconcile(real, namespace))
    simple = {"uri": "pvc://tables/churn.onnx", "version": "2"}
    api.apply(deployment(namespace, model=simple))
    asyncio.run(_reconcile(real, namespace))
    live = api.ours(namespace)["CronJob/churn-batch"]
    pod = live["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert "s3" not in {v.get("secret", {}).get("secretName") for v in pod["volumes"]}
    assert len(pod["volumes"]) == len(pod["containers"][0]["volumeMounts"])
    real.writes.clear()
    asyncio.run(_reconcile(real, namespace))
    assert real.writes == []


def _service_account(namespace: str, name: str) -> Json:
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}


def test_somebody_elses_object_is_never_taken_over(
    api: Api, cluster: object, namespace: str
) -> None:
    foreign = api.apply(_service_account(namespace, "churn-batch"))
    api.apply(deployment(namespace))
    asyncio.run(_reconcile(Counting(api.client, namespace), namespace))
    live = api.find(Kind("v1", "ServiceAccount", "serviceaccounts"), namespace, "churn-batch")
    assert live is not None
    assert live["metadata"] == foreign["metadata"]
    status = api.ours(namespace)["ModelDeployment/churn"]["status"]
    ready = next(c for c in status["conditions"] if c["type"] == "Ready")
    assert ready["reason"] == "NameTaken"


def _raises(kind: type[OperatorError], call: Callable[[], Coroutine[Any, Any, Any]]) -> str:
    with pytest.raises(kind) as caught:
        asyncio.run(call())
    return str(caught.value)


def test_the_uid_keeps_writes_from_another_object_of_that_name(
    api: Api, cluster: object, namespace: str
) -> None:
    real = Counting(api.client, namespace)
    obj = _service_account(namespace, "x")
    _raises(Conflict, lambda: real.apply(obj, "no-such-uid"))
    live = api.apply(obj)
    other = {**live, "metadata": {**live["metadata"], "uid": "no-such-uid"}}
    asyncio.run(real.delete(other))
    assert api.find(Kind("v1", "ServiceAccount", "serviceaccounts"), namespace, "x")
    _raises(Conflict, lambda: real.apply(obj, "no-such-uid"))


def test_a_new_object_does_not_overrule_one_that_came_in_between(
    api: Api, cluster: object, namespace: str
) -> None:
    real = Counting(api.client, namespace)
    wanted = next(o for o in _wanted(api.apply(deployment(namespace))) if CRON_JOB.of(o))
    api.apply({**wanted, "spec": {**wanted["spec"], "schedule": "1 1 1 1 1"}})
    _raises(Conflict, lambda: real.apply(wanted, None))


def test_what_is_not_there_is_an_answer(api: Api, cluster: object, namespace: str) -> None:
    real = Counting(api.client, namespace)
    assert (
        asyncio.run(real.list(Kind("no.such.dev/v1", "Nothing", "nothings"), namespace, {})) == ()
    )
    assert asyncio.run(real.list(Kind("batch/v1", "Nothing", "nothings"), namespace, {})) == ()
    assert asyncio.run(real.get(CRON_JOB, namespace, "none")) is None
    assert set(asyncio.run(real.discover())) >= {*KINDS} - {INFERENCE_SERVICE}


def test_faults_carry_the_servers_words(api: Api, cluster: object, namespace: str) -> None:
    real = Counting(api.client, namespace)
    wanted = next(o for o in _wanted(api.apply(deployment(namespace))) if CRON_JOB.of(o))
    broken = {**wanted, "spec": {**wanted["spec"], "schedule": "whenever"}}
    assert "spec.schedule" in _raises(Invalid, lambda: real.apply(broken, None))
    elsewhere = _service_account("no-such-namespace", "x")
    assert "no-such-namespace" in _raises(ObjectGone, lambda: real.apply(elsewhere, None))
    nobody = api.connect()
    nobody.client.set_default_header("Impersonate-User", "nobody")
    text = _raises(Forbidden, lambda: Counting(nobody, namespace).apply(wanted, None))
    assert 'cannot patch resource "cronjobs"' in text
    away = api.connect()
    away.client.configuration.host = "https://127.0.0.1:1"
    _raises(ApiUnreachable, lambda: Counting(away, namespace).get(CRON_JOB, namespace, "x"))


def test_the_grants_are_enough(api: Api, cluster: object, namespace: str) -> None:
    _bind(api, namespace, GRANTS)
    api.apply(deployment(namespace))
    client = api.connect()
    user = f"system:serviceaccount:{namespace}:operator"
    client.client.set_default_header("Impersonate-User", user)
    real = Counting(client, namespace)
    asyncio.run(_reconcile(real, namespace))
    api.apply(deployment(namespace, mode="streaming", streaming=STREAMING))
    asyncio.run(_reconcile(real, namespace))
    assert "CronJob/churn-batch" not in api.ours(namespace)
    assert any(write.startswith("delete") for write in real.writes)
    assert asyncio.run(real.everywhere(MODEL_DEPLOYMENT, {}))


def test_a_lease_is_created_respected_and_taken_over(
    api: Api, cluster: object, namespace: str
) -> None:
    real = Counting(api.client, namespace)
    begun = datetime.now(UTC)

    def installation(name: str, seconds: float) -> Ownership:
        return Ownership(real, name, lambda: begun + timedelta(seconds=seconds))

    async def scenario() -> None:
        assert await installation("ops/first", 0).holder_of(namespace) is None
        assert await installation("ops/first", 400).holder_of(namespace) is None, "renewed"
        assert await installation("ops/second", 401).holder_of(namespace) == "ops/first"
        assert await installation("ops/second", 4_000).holder_of(namespace) is None, "expired"
        assert await installation("ops/first", 4_001).holder_of(namespace) == "ops/second"

    asyncio.run(scenario())


STREAMING = {"source": {"kafka": {"bootstrapServers": "kafka:9092", "topic": "orders"}}}


def _bind(api: Api, namespace: str, grants: tuple[Grant, ...]) -> None:
    group = "rbac.authorization.k8s.io"
    root = f"/apis/{group}/v1/namespaces/{namespace}"
    meta = {"name": "operator", "namespace": namespace}
    rules = [
        {"apiGroups": [g.group], "resources": [g.resource], "verbs": list(g.verbs)} for g in grants
    ]
    api.request("post", f"{root}/roles", {"metadata": meta, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": "operator", "namespace": namespace}
    reference = {"apiGroup": group, "kind": "Role", "name": "operator"}
    api.request(
        "post",
        f"{root}/rolebindings",
        {"metadata": meta, "roleRef": reference, "subjects": [subject]},
    )
