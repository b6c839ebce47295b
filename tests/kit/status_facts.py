"""Batch deployments, Jobs and pods as the API server shows them, and their facts and conditions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson

from fourways_api import Problem, parse
from fourways_operator.facts import Facts, Json
from fourways_operator.status import status_of

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


DIGEST = "sha256:" + "a" * 64


GATEWAY = {"status": {"availableReplicas": 1}}


def deployment(**changes: Any) -> dict:
    spec = {
        "mode": "batch",
        "model": {"uri": "pvc://models/m.onnx", "version": "2"},
        "contract": {
            "entityKey": {"name": "id"},
            "inputs": [{"name": "x", "type": "float32"}],
            "outputs": [{"name": "score", "type": "float32"}],
        },
        "batch": {"schedule": "0 3 * * *", "source": {"uri": "pvc://t/rows.parquet"}},
    }
    return {
        "apiVersion": "fourways.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "m", "namespace": "demo", "uid": "u", "generation": 4},
        "spec": spec | changes,
    }


def job(name: str, at: str, outcome: str | None = None, reason: str = "") -> dict:
    status: dict = {"startTime": at}
    if outcome == "Complete":
        status["completionTime"] = at
    if outcome:
        status["conditions"] = [
            {"type": outcome, "status": "True", "reason": reason, "lastTransitionTime": at}
        ]
    meta = {"name": name, "creationTimestamp": at}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "status": status}


def pod(run: str, state: dict, **more: Any) -> dict:
    return {
        "metadata": {
            "name": f"{run}-x",
            "creationTimestamp": "2026-03-01T03:00:00Z",
            "labels": {"batch.kubernetes.io/job-name": run},
        },
        "status": {
            "containerStatuses": [{"state": state, "image": "registry.test/runtime:1"}],
            **more,
        },
    }


def ended(code: int, **report: Any) -> dict:
    return {"terminated": {"exitCode": code, "message": orjson.dumps(report).decode()}}


def conditions(facts: Facts, *problems: Problem) -> dict[str, dict]:
    parsed = None if problems else parse(facts.deployment)
    status = status_of(facts, problems, parsed)
    return {c["type"]: c for c in status["conditions"]}


GOOD_RUN = (
    job("m-1", "2026-03-01T03:00:00Z", "Complete"),
    pod("m-1", ended(0, outcome="Succeeded", rows=10, rejects=1, digest=DIGEST, version="2")),
)


FAILED_RUN = (
    job("m-2", "2026-03-02T03:00:00Z", "Failed", "PodFailurePolicy"),
    pod("m-2", ended(3, outcome="Failed", reason="DigestMismatch", message="not the same bytes")),
)


def facts(*runs: tuple[dict, dict], gateway: dict | None = GATEWAY, **changes: Any) -> Facts:
    return Facts(
        deployment=changes.pop("raw", None) or deployment(**changes),
        children=tuple(j for j, _ in runs),
        pods=tuple(p for _, p in runs),
        gateway=gateway,
        now=NOW,
    )


WRONG = Problem("spec.batch.timeZone", "'Europe/Atlantis' is no time zone", "use another")


def by_type(status: Json) -> dict[str, Json]:
    return {c["type"]: c for c in status["conditions"]}


def status_at(found: Facts, *problems: Problem) -> Json:
    document = {k: v for k, v in found.deployment.items() if k != "status"}
    return status_of(found, problems, None if problems else parse(document))


def later(document: Json, status: Json, **spec: Any) -> Json:
    """Return the document edited once more, with the status it had before."""
    meta = {**document["metadata"], "generation": document["metadata"]["generation"] + 1}
    return {**document, "metadata": meta, "spec": document["spec"] | spec, "status": status}


def cron_job(last: str | None, created: str = "2026-01-01T00:00:00Z", **spec: Any) -> Json:
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "m-batch", "creationTimestamp": created},
        "spec": {"schedule": "0 3 * * *", "timeZone": "Etc/UTC", **spec},
        "status": {"lastScheduleTime": last} if last else {},
    }
