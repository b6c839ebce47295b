"""What the operator's tests on a real API server share: raw requests, deployments, a process."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

from kubernetes.dynamic.exceptions import NotFoundError

from fourways_cli.embedded.ports import free_port
from fourways_operator.cluster import MODEL_DEPLOYMENT
from fourways_operator.facts import Json, Kind
from fourways_operator.kinds import KINDS
from fourways_operator.kubernetes_cluster import connect
from tests.kit.waiting import until

IMAGE = "registry.invalid/fourways:test"

FULL = {
    "mode": "batch",
    "model": {
        "uri": "s3://models/churn.onnx",
        "version": "1",
        "digest": "sha256:" + "a" * 64,
        "credentials": {"secretName": "s3"},
    },
    "contract": {
        "entityKey": {"name": "customer"},
        "inputs": [{"name": "orders", "type": "int32"}],
        "outputs": [{"name": "probability", "type": "float32"}],
        "goldenVectors": {"uri": "pvc://data/golden.jsonl"},
    },
    "batch": {
        "schedule": "0 3 * * *",
        "timeZone": "Europe/Berlin",
        "backoffLimit": 0,
        "source": {"uri": "pvc://tables/customers.parquet"},
    },
    "resources": {"cpu": "0.5", "memory": "1024Mi"},
}
"""A spec with something of everything a batch plan can hold, written unlike the server would."""

_FEATURES = {"database": {"secretName": "features"}, "table": "customers"}
_BUDGET = {"sizeMiB": 8, "memoryMiB": 64, "latencyMs": 5}

MODES = {
    "batch": {},
    "realtime": {
        "mode": "realtime",
        "realtime": {"minReplicas": 2, "features": _FEATURES, "maxReplicas": 3},
    },
    "streaming": {
        "mode": "streaming",
        "streaming": {
            "source": {
                "kafka": {
                    "bootstrapServers": "kafka:9092",
                    "topic": "orders",
                    "credentials": {"secretName": "kafka"},
                }
            },
            "minReplicas": 2,
            "maxReplicas": 2,
        },
    },
    "edge": {
        "mode": "edge",
        "edge": {
            "targets": [{"name": "till", "budget": _BUDGET}],
            "signing": {"secretName": "signing"},
            "publish": "pvc://bundles/here",
            "features": _FEATURES,
        },
    },
}
"""What makes ``FULL`` a deployment of each mode, with something of everything it can plan."""


def deployment(namespace: str, name: str = "churn", **spec: Any) -> Json:
    """Return a valid deployment, with parts of its spec replaced; None takes a part away."""
    merged = {k: v for k, v in {**deepcopy(FULL), **spec}.items() if v is not None}
    return {
        "apiVersion": "fourways.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": merged,
    }


class Api:
    """The API server as a user with every right sees it, without the operator's own client."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self.client = self.connect()

    def connect(self) -> Any:
        """Return another client."""
        return connect(str(self.kubeconfig))

    def request(self, method: str, path: str, body: Any = None, **parameters: Any) -> Json:
        """Send a request and return its answer."""
        answer: Json = self.client.request(
            method, path, body=body, serializer=lambda _, data: data, **parameters
        )
        return answer

    def apply(self, obj: Json) -> Json:
        """Apply an object as kubectl does."""
        return self.request(
            "patch",
            path_of(obj),
            obj,
            field_manager="kubectl",
            force_conflicts=True,
            content_type="application/apply-patch+yaml",
        )

    def patch(self, obj: Json, body: Json) -> Json:
        """Change an object as `kubectl patch --type merge` does."""
        return self.request(
            "patch", path_of(obj), body, content_type="application/merge-patch+json"
        )

    def delete(self, obj: Json) -> None:
        """Delete an object, if it is there."""
        with suppress(NotFoundError):
            self.request("delete", path_of(obj))

    def find(self, kind: Kind, namespace: str, name: str) -> Json | None:
        """Return an object, or None."""
        try:
            return self.request("get", f"{_root(kind.api_version, namespace, kind.plural)}/{name}")
        except NotFoundError:
            return None

    def list(self, kind: Kind, namespace: str) -> list[Json]:
        """Return all objects of a kind in a namespace; none where there is no such kind."""
        try:
            items = self.request("get", _root(kind.api_version, namespace, kind.plural))["items"]
        except NotFoundError:
            return []
        return [{"apiVersion": kind.api_version, "kind": kind.kind, **item} for item in items]

    def ours(self, namespace: str) -> dict[str, Json]:
        """Return the deployments of a namespace and everything the operator made for them."""
        objects = [
            obj
            for kind in (MODEL_DEPLOYMENT, *KINDS)
            for obj in self.list(kind, namespace)
            if kind == MODEL_DEPLOYMENT
            or "app.kubernetes.io/managed-by" in obj["metadata"].get("labels", {})
        ]
        return {f"{o['kind']}/{o['metadata']['name']}": o for o in objects}

    def namespace_exists(self, name: str) -> bool:
        """Tell whether a namespace is still there."""
        items = self.request("get", "/api/v1/namespaces")["items"]
        return any(n["metadata"]["name"] == name for n in items)


def path_of(obj: Json) -> str:
    """Return the path of an object."""
    kind = next(k for k in (MODEL_DEPLOYMENT, *KINDS) if k.kind == obj["kind"])
    meta = obj["metadata"]
    return f"{_root(kind.api_version, meta['namespace'], kind.plural)}/{meta['name']}"


def _root(api_version: str, namespace: str, plural: str) -> str:
    root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    return f"{root}/namespaces/{namespace}/{plural}"


def versions(objects: dict[str, Json]) -> dict[str, str]:
    """Return what changes with every write."""
    return {name: obj["metadata"]["resourceVersion"] for name, obj in objects.items()}


class Process:
    """A running operator."""

    def __init__(self, popen: subprocess.Popen[bytes], port: int) -> None:
        self.popen, self.port = popen, port

    def text(self, path: str) -> str:
        """Return what it answers."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def metric(self, name: str) -> float:
        """Return the sum of a metric over its labels."""
        lines = self.text("/metrics").splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    def is_ready(self) -> bool:
        """Tell whether it says that it does its work."""
        assert self.popen.poll() is None, "the operator ended"
        try:
            return self.text("/readyz") == "ok\n"
        except OSError:
            return False

    def is_idle(self) -> bool:
        """Tell whether it has looked at something and has nothing left to look at."""
        waiting = self.metric("fourways_queue_depth") + self.metric("fourways_queue_delayed")
        return self.metric("fourways_reconciles_total") > 0 and waiting == 0

    def stop(self) -> None:
        """Ask it to end, and see that it does."""
        self.popen.terminate()
        assert self.popen.wait(30) == 0


@contextmanager
def operator(api: Api, namespace: str) -> Iterator[Process]:
    """Run an operator process for one namespace, on this machine.

    Its gateways have no pods, so that nothing but the operator has a say in what is written.
    """
    port = free_port()
    popen = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "fourways_operator",
            "--namespaces",
            namespace,
            "--port",
            str(port),
            "--runtime-image",
            IMAGE,
            "--gateway-replicas",
            "0",
        ],
        env={**os.environ, "KUBECONFIG": str(api.kubeconfig)},
    )
    process = Process(popen, port)
    try:
        until(process.is_ready, "the operator is ready", seconds=60)
        yield process
    finally:
        if popen.poll() is None:
            process.stop()
