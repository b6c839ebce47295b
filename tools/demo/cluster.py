"""``make demo-cluster``: images, helm install, kubectl apply, and the same output as ``make demo``.

Batch and edge run on any cluster. Real-time needs KServe, and the streaming example needs the Kafka
broker that its manifest names. Our own cluster gets both. If a given cluster lacks one, the mode is
skipped with a message.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from fourways_api.audience import EVERY_DEPLOYMENT
from fourways_cli.embedded.given import PUBLIC_KEY, SIGNING_KEY, make_signing_key
from fourways_cli.targets import API_KEY_VARIABLE
from tools import brokers
from tools.cluster.config import this_checkout
from tools.cluster.detect import Kind, detect
from tools.installation import Cluster, build_images, claim, cluster_up

from .device import Device
from .questions import (
    ARTIFACTS,
    EXAMPLES,
    SHOP_SECRET,
    Answered,
    ask_batch,
    ask_realtime,
    ask_stream,
    console,
    document_of,
    mode_of,
    show,
)

NAMESPACE = "fourways-demo"
KSERVE = "inferenceservices.serving.kserve.io"
TOPIC = "water-readings"
"""The topic that examples/kafka/water-flow.yaml names."""


def main() -> int:
    """Run the demo on the cluster, which keeps running so that you can inspect it."""
    started = time.monotonic()
    subprocess.run([sys.executable, EXAMPLES / "prepare.py"], check=True)
    cluster = Cluster(cluster_up(), build_images("ray"))
    console.print(f"$ export KUBECONFIG={cluster.kubeconfig}")
    _bring(cluster)
    cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=90s")
    cluster.make_namespace(NAMESPACE)
    console.print(f"$ helm install fourways charts/fourways -n {NAMESPACE}")
    # Devices fetch their bundles without credentials here; backends show a token.
    cluster.install(NAMESPACE, "--set", "gateway.auth.anonymous={bundles:*,features:*}")
    with tempfile.TemporaryDirectory() as folder:
        key = _give(cluster, Path(folder))
        modes = _apply(cluster)
        console.print(f"$ kubectl -n {NAMESPACE} get modeldeployments")
        print(cluster.kubectl("-n", NAMESPACE, "get", "modeldeployments"))
        os.environ[API_KEY_VARIABLE] = cluster.gateway_token(NAMESPACE, "default")
        with cluster.forwarded(NAMESPACE, "svc/fourways-gateway", 80) as url:
            show(_answers(url, modes, Device(Path(folder, "device"), key)))
    console.print(f"done in {time.monotonic() - started:.0f} s; make cluster-down removes it")
    return 0


def _bring(cluster: Cluster) -> None:
    """Install KServe and the broker on our own cluster; skip modes that a given cluster cannot
    run."""
    if detect(this_checkout()) is Kind.GIVEN:
        return
    cluster.install_kserve()
    if "kafka" in cluster.images:
        brokers.deploy(cluster, "kafka")
        brokers.make_topic(cluster, TOPIC)


def _give(cluster: Cluster, folder: Path) -> Path:
    """Create what the manifests refer to: claims, Secrets, the shop's table; return the public
    key."""
    cluster.fill_claim(NAMESPACE, ARTIFACTS)
    cluster.kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=claim("fourways-bundles", "256Mi"))
    make_signing_key(folder)
    key = (folder / SIGNING_KEY).read_text("ascii")
    cluster.give_secret(NAMESPACE, "device-signing", {SIGNING_KEY: key}, EVERY_DEPLOYMENT)
    # The shop's table is in the trial database, so its connection string is the store's.
    cluster.sql(NAMESPACE, (ARTIFACTS / "come-back" / "shop.sql").read_text("utf-8"))
    cluster.share_store(NAMESPACE, SHOP_SECRET, "come-back")
    return folder / PUBLIC_KEY


def _apply(cluster: Cluster) -> set[str]:
    """Apply an example of each mode that the cluster can run, until each is Ready; return the
    modes."""
    modes = set()
    # One after the other: a small node has no room for a build beside all other workloads.
    for path in _manifests(cluster):
        console.print(f"$ kubectl -n {NAMESPACE} apply -f {path.relative_to(EXAMPLES.parent)}")
        cluster.kubectl("-n", NAMESPACE, "apply", "-f", str(path))
        name = document_of(path)["metadata"]["name"]
        if mode_of(path) == "batch":
            made = ("--for=create", f"cronjob/{name}-batch", "--timeout=30s")
            cluster.kubectl("-n", NAMESPACE, "wait", *made)
            _fourways(cluster, "run", name, "--wait", "0")
        cluster.await_ready(NAMESPACE, name, seconds=180)
        modes.add(mode_of(path))
    return modes


def _manifests(cluster: Cluster) -> Iterator[Path]:
    yield EXAMPLES / "churn.yaml"
    yield EXAMPLES / "file-type-on-device.yaml"
    if _has(cluster, "crd", KSERVE):
        yield EXAMPLES / "come-back.yaml"
    else:
        console.print("skipped: real-time; the cluster has no KServe")
    if _has(cluster, "--namespace", brokers.NAMESPACE, "service", "kafka"):
        yield EXAMPLES / "kafka" / "water-flow.yaml"
    else:
        console.print(f"skipped: streaming; the cluster has no Service at {brokers.KAFKA}")


def _has(cluster: Cluster, *what: str) -> bool:
    return bool(cluster.kubectl("get", *what, "--ignore-not-found", "--output=name").strip())


def _answers(url: str, modes: set[str], device: Device) -> Iterator[Answered]:
    yield ask_batch(url)
    if "realtime" in modes:
        yield ask_realtime(url)
    if "streaming" in modes:
        yield ask_stream(url)
    device.fetch(url)
    yield device.ask()


def _fourways(cluster: Cluster, *args: str) -> None:
    command = [sys.executable, "-m", "fourways_cli", *args, "-n", NAMESPACE, "--cluster"]
    console.print(f"$ fourways {' '.join(args)} -n {NAMESPACE}")
    environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
    subprocess.run(command, check=True, env=environment)


if __name__ == "__main__":
    sys.exit(main())
