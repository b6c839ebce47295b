"""Measure the time from `kubectl apply` to an existing CronJob, on the current kubeconfig's
cluster.

A real operator process on this machine works with the real API server. COUNT deployments are
applied one after another. Each is timed from the request until a watch reports the CronJob.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import uuid
from queue import Queue
from typing import Any

from benchmarks.figures import figure, percentile
from tools.installation import ROOT, Cluster, cluster_up

COUNT = 100
WARM_UP = 5
GOAL_P95_SECONDS = 1.0
CRD = ROOT / "crds" / "fourways.dev_modeldeployments.yaml"


def main() -> int:
    """Measure and print; return 1 if a goal is missed."""
    cluster = Cluster(cluster_up())
    os.environ["KUBECONFIG"] = str(cluster.kubeconfig)
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRD))
    cluster.kubectl("wait", "--for=condition=Established", "-f", str(CRD), "--timeout=30s")
    namespace = f"fw-bench-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", namespace)
    operator = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "fourways_operator",
            "--namespaces",
            namespace,
            "--port",
            "0",
            "--log-level",
            "WARNING",
        ],
    )
    try:
        seconds = measure(namespace)[WARM_UP:]
    finally:
        operator.terminate()
        operator.wait()
        cluster.kubectl("delete", "namespace", namespace, "--wait=false")
    print(f"{len(seconds)} applies, median {percentile(seconds, 0.5):.3f} s")
    met = figure("apply_to_cronjob_p95_seconds", percentile(seconds, 0.95), GOAL_P95_SECONDS)
    return 0 if met else 1


def measure(namespace: str) -> list[float]:
    """Apply deployments one by one; return the time until each CronJob existed, in seconds."""
    from kubernetes import client, config

    config.load_kube_config()  # type: ignore[no-untyped-call]
    seen: Queue[str] = Queue()
    watcher = threading.Thread(target=_watch, args=(namespace, seen), daemon=True)
    watcher.start()
    api = client.CustomObjectsApi()
    seconds = []
    for index in range(COUNT + WARM_UP):
        name = f"bench-{index}"
        started = time.monotonic()
        api.create_namespaced_custom_object(
            "fourways.dev", "v1alpha1", namespace, "modeldeployments", _deployment(name)
        )
        while seen.get(timeout=30) != f"{name}-batch":
            pass
        seconds.append(time.monotonic() - started)
    return seconds


def _watch(namespace: str, seen: Queue[str]) -> None:
    from kubernetes import client, watch

    events: Any = watch.Watch().stream(  # type: ignore[no-untyped-call]
        client.BatchV1Api().list_namespaced_cron_job, namespace, timeout_seconds=600
    )
    for event in events:
        if event["type"] == "ADDED":
            seen.put(event["object"].metadata.name)


def _deployment(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "fourways.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {
            "mode": "batch",
            "model": {"uri": "pvc://models/model.onnx", "version": "1"},
            "contract": {
                "entityKey": {"name": "id"},
                "inputs": [{"name": "x", "type": "float32"}],
                "outputs": [{"name": "score", "type": "float32"}],
            },
            "batch": {"schedule": "0 3 1 1 *", "source": {"uri": "pvc://tables/rows.parquet"}},
        },
    }


if __name__ == "__main__":
    sys.exit(main())
