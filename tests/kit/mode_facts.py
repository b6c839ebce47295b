"""Deployments of each mode, their pods and objects, and what is said of them."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from fourways_api import Problem, parse
from fourways_operator import planning as planner
from fourways_operator.facts import Facts, Json, OperatorSettings
from fourways_operator.plan import routes
from fourways_operator.status import status_of

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


DIGEST = "sha256:" + "a" * 64


SETTINGS = OperatorSettings(runtime_image="runtime:1")


URL = "http://m-realtime-predictor.demo.svc.cluster.local"


BUDGET = {"sizeMiB": 8, "memoryMiB": 64, "latencyMs": 5}


BLOCKS: dict[str, Json] = {
    "batch": {
        "batch": {"schedule": "@daily", "source": {"uri": "pvc://t/rows.parquet"}},
    },
    "realtime": {"realtime": {"minReplicas": 1}},
    "streaming": {
        "streaming": {"source": {"kafka": {"bootstrapServers": "kafka:9092", "topic": "t"}}}
    },
    "edge": {
        "edge": {
            "targets": [{"name": "till", "budget": BUDGET}],
            "signing": {"secretName": "signing"},
            "publish": "pvc://models/bundles",
        }
    },
}


def deployment(mode: str, version: str = "1", status: Json | None = None, **spec: Any) -> Json:
    document = {
        "apiVersion": "fourways.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "m", "namespace": "demo", "uid": "u", "generation": 4},
        "spec": {
            "mode": mode,
            "model": {"uri": "pvc://models/m.onnx", "version": version},
            "contract": {
                "entityKey": {"name": "id"},
                "inputs": [{"name": "x", "type": "float32"}],
                "outputs": [{"name": "score", "type": "float32"}],
                "goldenVectors": {"uri": "pvc://models/golden.jsonl"},
            },
            **deepcopy(BLOCKS[mode]),
            **spec,
        },
    }
    return document | ({"status": status} if status else {})


def planned(document: Json) -> tuple[Json, ...]:
    return planner.plan(parse({k: v for k, v in document.items() if k != "status"}), SETTINGS)


def main_of(document: Json) -> Json:
    kinds = ("InferenceService", "Deployment", "Job")
    return next(o for o in planned(document) if o["kind"] in kinds)


def pod(document: Json, *, ready: bool = False, state: Json | None = None, **meta: Any) -> Json:
    """Return a pod of what a document plans, in a state."""
    main = main_of(document)
    spec = main["spec"].get("predictor") or main["spec"]["template"]["spec"]
    labels = dict(main["metadata"]["labels"])
    if main["kind"] == "Job":
        labels["batch.kubernetes.io/job-name"] = main["metadata"]["name"]
    return {
        "metadata": {"name": "p", "labels": labels, "creationTimestamp": before(5), **meta},
        "spec": spec,
        "status": {
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [{"state": state or {"running": {}}, "image": "runtime:1"}],
        },
    }


def before(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def gateway(*documents: Json, before: tuple[Any, ...] = ()) -> tuple[Json, Json]:
    """Return a gateway's live Deployment and its one pod, which knows of these documents."""
    observed = routes.Observed({}, None, before)
    objects = planner.plan_gateway("demo", documents, SETTINGS, observed)
    live = {**next(o for o in objects if o["kind"] == "Deployment")}
    live["status"] = {"availableReplicas": 1}
    labels = live["spec"]["template"]["metadata"]["labels"]
    return live, {
        "metadata": {"name": "g", "labels": labels},
        "spec": live["spec"]["template"]["spec"],
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }


READY_SERVICE = {
    "address": {"url": URL},
    "conditions": [{"type": kind, "status": "True"} for kind in ("PredictorReady", "Ready")],
}


def service(document: Json, status: Json | None = None, age: float = 60) -> Json:
    live = deepcopy(main_of(document))
    live["metadata"]["creationTimestamp"] = before(age)
    return live | ({"status": status} if status else {})


def facts(document: Json, *pods: Json, known: Json | None = None, **more: Any) -> Facts:
    """Return facts: these pods, and a gateway that knows of a document (else of this one)."""
    live, gateway_pod = gateway(known or document)
    children = more.pop("children", None)
    if children is None and document["spec"]["mode"] == "realtime":
        children = (service(document, READY_SERVICE),)
    return Facts(
        document,
        wanted=planned(document),
        children=children or (),
        pods=(*pods, gateway_pod),
        gateway=live,
        now=NOW,
        **more,
    )


def said(found: Facts, *problems: Problem) -> dict[str, str]:
    """Return "status reason: message" of each condition."""
    document = {k: v for k, v in found.deployment.items() if k != "status"}
    status = status_of(found, problems, None if problems else parse(document))
    conditions = status["conditions"]
    return {c["type"]: f"{c['status']} {c['reason']}: {c['message']}" for c in conditions}


def status(found: Facts) -> Json:
    document = {k: v for k, v in found.deployment.items() if k != "status"}
    return status_of(found, (), parse(document))


def ended(code: int, **report: Any) -> Json:
    return {"terminated": {"exitCode": code, "message": orjson.dumps(report).decode()}}


def failed(reason: str, message: str) -> Json:
    return ended(3, outcome="Failed", reason=reason, message=message)
