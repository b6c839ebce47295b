"""What a live operator writes about a deployment holds no password, key or cell.

Canaries stand in the addresses of manifests, in Secrets, and in the tables of real runs whose
reports the operator reads. They are looked for in each status, each event and the log.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fourways_operator.facts import Json
from fourways_runtime.errors import WorkloadError
from fourways_runtime.logs import JsonFormatter
from fourways_runtime.process import failure
from tests.kit.batch_world import World

from .changes import BLOCKS, GOLDEN, apply, deployment
from .fake_cluster import FakeCluster
from .rig import NAMESPACE, Rig

CANARY = "c4n4ry"
LOGIN = f"u:{CANARY}@"
REMOTE = {"version": "1", "digest": "sha256:" + "a" * 64}


def source(**told: Any) -> dict[str, Any]:
    return {"batch": {"schedule": "@daily", "source": told}}


def stream(**told: Any) -> dict[str, Any]:
    return {"mode": "streaming", "streaming": {"source": told}}


def edge(**told: Any) -> dict[str, Any]:
    return {"mode": "edge", "contract": GOLDEN, "edge": {**BLOCKS["edge"]["edge"], **told}}


NATS = {"stream": "S", "subject": "s"}
MANIFESTS: dict[str, dict[str, Any]] = {
    "a login in a model's URI": {"model": {"uri": f"https://{LOGIN}h.example/m.onnx", **REMOTE}},
    "keys in a bucket's URI": {"model": {"uri": f"s3://{LOGIN}bucket/m.onnx", **REMOTE}},
    "a login in a database's URI": {"model": {"uri": f"postgresql://{LOGIN}h/d", **REMOTE}},
    "a signature in a URI": {"model": {"uri": f"https://h.example/m.onnx?sig={CANARY}", **REMOTE}},
    "a signature in a wrong URI": {"model": {"uri": f"http_s://h/m?sig={CANARY}", **REMOTE}},
    "a port that is a password": {"model": {"uri": f"https://h.example:{CANARY}/m", **REMOTE}},
    "a password that has a slash": {"model": {"uri": f"ftp://u:a/{CANARY}@h/m", **REMOTE}},
    "a password beside a Secret": {
        "model": {"uri": "pvc://models/m", "version": "1", "credentials": {"password": CANARY}}
    },
    "a login in a source": source(uri=f"https://{LOGIN}h.example/t.csv", format="CSV"),
    "an address for a Secret": source(
        query={"database": f"postgresql://{LOGIN}h/d", "sql": "SELECT 1"}
    ),
    "an address in a Secret's place": source(
        query={"database": {"uri": f"postgresql://{LOGIN}h/d"}, "sql": "SELECT 1"}
    ),
    "SQL that is too long": source(
        query={"database": {"secretName": "s"}, "sql": f"SELECT '{CANARY}'" * 2000}
    ),
    "SQL that holds a password": source(
        query={"database": {"secretName": "s"}, "sql": f"SELECT dblink('password={CANARY}')"}
    ),
    "a login in a sink": {
        "batch": {
            **deployment()["spec"]["batch"],
            "sink": {"files": {"uri": f"s3://{LOGIN}bucket/out"}},
        }
    },
    "a login in brokers": stream(kafka={"bootstrapServers": f"{LOGIN}kafka:9092", "topic": "t"}),
    "a login in NATS": stream(nats={"servers": f"nats://{LOGIN}n:4222", **NATS}),
    "a token in NATS": stream(nats={"servers": f"nats://{CANARY}@n:4222", **NATS}),
    "logins of two brokers": stream(
        kafka={"bootstrapServers": f"a:b@k1:1,{LOGIN}k2:1", "topic": "t"}
    ),
    "a login in the place of bundles": edge(publish=f"s3://{LOGIN}bucket/out"),
    "a login in an image": {"image": f"{LOGIN}registry.example/i:1"},
    "a variable": {"pod": {"env": [{"name": "PASSWORD", "value": CANARY}]}},
    "a variable of a wrong name": {"pod": {"env": [{"name": "A B", "value": CANARY}]}},
    "variables that are no list": {"pod": {"env": {"PASSWORD": CANARY}}},
    "an annotation": {"pod": {"annotations": {"iam.example/x": 7, "y": CANARY}}},
}


def watched(cluster: FakeCluster) -> list[str]:
    """Return the list that every status to come is put into."""
    told: list[str] = []
    write = cluster.write_status

    async def noted(document: Json, status: Json) -> None:
        told.append(json.dumps(status, ensure_ascii=False))
        await write(document, status)

    cluster.write_status = noted  # type: ignore[method-assign]
    return told


def log_of(caplog: pytest.LogCaptureFixture) -> str:
    ours = [record for record in caplog.records if record.name.startswith("fourways")]
    return "\n".join(map(JsonFormatter().format, ours))


def play(*steps: Callable[[FakeCluster], object]) -> str:
    """Take steps under a live operator; return every status and event that it wrote."""
    cluster = FakeCluster()
    cluster.builds_take_time = True  # a Job ends as the test says
    told = watched(cluster)
    secret = {"apiVersion": "v1", "kind": "Secret", "data": {"uri": CANARY}}
    cluster.user_apply({**secret, "metadata": {"name": "s", "namespace": NAMESPACE}})

    async def run() -> None:
        rig = Rig(cluster)
        await rig.settle()
        for step in steps:
            step(cluster)
            await rig.settle()
        await rig.resync()
        await rig.restart()
        await rig.stop()

    asyncio.run(run())
    assert told, "a status was written"
    assert cluster.events, "and an event"
    return "\n".join([*told, *(f"{e.type} {e.reason} {e.message}" for e in cluster.events)])


@pytest.mark.parametrize("name", MANIFESTS)
def test_no_password_of_a_manifest_is_told(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    told = play(apply(**MANIFESTS[name]))
    assert CANARY not in told
    assert CANARY not in log_of(caplog)


FAULTS: dict[str, Callable[[random.Random], Any]] = {
    "text": lambda r: f"{CANARY} {r.random()}",
    "quotes": lambda r: f"' is below 0; {CANARY}\" is above \\'",
    "long": lambda r: CANARY * r.randrange(2, 60),
    "pretends": lambda r: f"3 is below {CANARY}",
    "lines": lambda r: f"1\n{CANARY} is missing",
    "list": lambda r: [CANARY, 1],
    "hidden": lambda r: f"\u202e{CANARY}\0",
}


def report_of(world: World, fault: Any) -> str:
    """Run a table with a bad cell, and keys that are canaries; return what the worker leaves."""
    rows = [{"id": f"{CANARY}-{n}", "age": 30, "spend": 0.5} for n in range(3)]
    rows[1]["age"] = fault
    world.file("t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = {"batch__source": {"uri": "pvc://data/t.jsonl", "format": "JSONLines"}}
    with pytest.raises(WorkloadError) as caught:
        world.run("r1", **changes)
    found, _ = failure(caught.value, world.config(**changes), logging.getLogger("fourways"))
    return found.model_dump_json(by_alias=True)


def fail_run(report: str) -> Callable[[FakeCluster], None]:
    """Return the step in which a run fails with a worker's report."""

    def step(cluster: FakeCluster) -> None:
        cron = cluster.objects["CronJob", NAMESPACE, "churn-batch"]
        template = cron["spec"]["jobTemplate"]
        owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": "churn-batch"}
        owner |= {"uid": cron["metadata"]["uid"]}
        labels = template["metadata"]["labels"]
        meta = {"name": "churn-1", "namespace": NAMESPACE, "labels": labels}
        failed = {"type": "Failed", "status": "True", "reason": "PodFailurePolicy"}
        job = {"apiVersion": "batch/v1", "kind": "Job", "spec": template["spec"]}
        job |= {
            "metadata": {**meta, "ownerReferences": [owner]},
            "status": {"conditions": [failed]},
        }
        cluster.user_apply(job)
        pod = template["spec"]["template"]
        labels = {**pod["metadata"]["labels"], "batch.kubernetes.io/job-name": "churn-1"}
        ended = {"terminated": {"exitCode": 3, "message": report}}
        status = {"phase": "Failed", "containerStatuses": [{"state": ended, "image": "runtime:1"}]}
        found = {"apiVersion": "v1", "kind": "Pod", "spec": pod["spec"], "status": status}
        found["metadata"] = {"name": "churn-1-0", "namespace": NAMESPACE, "labels": labels}
        cluster.user_apply(found)

    return step


@pytest.mark.parametrize("name", FAULTS)
def test_no_cell_and_no_key_of_a_run_is_told(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    world = World(tmp_path, f"sqlite:///{tmp_path}/store.db", NAMESPACE)
    report = report_of(world, FAULTS[name](random.Random(7)))
    told = play(apply(), fail_run(report))
    assert "row 1: age" in told, "the operator tells what the worker left"
    assert CANARY not in told
    assert CANARY not in log_of(caplog)
