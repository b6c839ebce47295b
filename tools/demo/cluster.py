"""``make demo-cluster``: images, helm install, kubectl apply, and the table of ``make demo``."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import yaml

from tools.installation import Cluster, build_images, cluster_up

from .questions import ARTIFACTS, EXAMPLES, console, manifests, show

NAMESPACE = "fourways-demo"


def main() -> int:
    """Run the demo on the cluster, which is left running for a look around."""
    started = time.monotonic()
    subprocess.run([sys.executable, EXAMPLES / "prepare.py"], check=True)
    cluster = Cluster(cluster_up(), build_images())
    console.print(f"$ export KUBECONFIG={cluster.kubeconfig}")
    _clean(cluster)
    cluster.make_namespace(NAMESPACE)
    console.print(f"$ helm install fourways charts/fourways -n {NAMESPACE}")
    cluster.install(NAMESPACE)
    cluster.fill_claim(NAMESPACE, ARTIFACTS)
    names = _apply(cluster)
    for name in names:
        _fourways(cluster, "run", name, "--wait", "0")
    cluster.await_ready(NAMESPACE, *names, seconds=180)
    console.print(f"$ kubectl -n {NAMESPACE} get modeldeployments")
    print(cluster.kubectl("-n", NAMESPACE, "get", "modeldeployments"))
    with cluster.forwarded(NAMESPACE, "svc/fourways-gateway", 80) as url:
        show(url)
    console.print(f"done in {time.monotonic() - started:.0f} s; make cluster-down takes it away")
    return 0


def _apply(cluster: Cluster) -> list[str]:
    names = []
    for path in manifests():
        console.print(f"$ kubectl -n {NAMESPACE} apply -f {path.relative_to(EXAMPLES.parent)}")
        cluster.kubectl("-n", NAMESPACE, "apply", "-f", str(path))
        names.append(yaml.safe_load(path.read_text())["metadata"]["name"])
    for name in names:
        _await_cron_job(cluster, f"{name}-batch")
    return names


def _await_cron_job(cluster: Cluster, name: str) -> None:
    cluster.kubectl("-n", NAMESPACE, "wait", "--for=create", f"cronjob/{name}", "--timeout=30s")


def _fourways(cluster: Cluster, *args: str) -> None:
    command = [sys.executable, "-m", "fourways_cli", *args, "-n", NAMESPACE, "--cluster"]
    console.print(f"$ fourways {' '.join(args)} -n {NAMESPACE}")
    environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
    subprocess.run(command, check=True, env=environment)


def _clean(cluster: Cluster) -> None:
    """Take away what an earlier demo left."""
    cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=90s")


if __name__ == "__main__":
    sys.exit(main())
