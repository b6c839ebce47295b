"""The cluster the suite runs on, and a namespace of its own for each test that asks.

`make test` sets the variables; by hand: eval "$(python -m tools.cluster up)".
"""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.cluster.modes_rig import NAMESPACE, Plant, plant
from tests.kit.cluster.told import LINES
from tests.kit.waiting import until
from tools import brokers
from tools.demo.questions import EXAMPLES
from tools.installation import ROOT, Cluster, build_images
from tools.torture.cluster import fill, witnessing
from tools.torture.material import table

CRD = ROOT / "crds" / "fourways.dev_modeldeployments.yaml"


@pytest.fixture(scope="session")
def kubeconfig() -> Path:
    path = os.environ.get("FOURWAYS_KUBECONFIG") or os.environ.get("KUBECONFIG")
    if not path:
        pytest.skip("no cluster: set FOURWAYS_KUBECONFIG (make cluster prints it)")
    return Path(path)


@pytest.fixture(scope="session")
def cluster(kubeconfig: Path) -> Cluster:
    """The cluster with the CRD in place; no images."""
    cluster = Cluster(kubeconfig)
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRD))
    wait = ("wait", "--for=condition=Established", "-f", str(CRD), "--timeout=30s")
    # While the object has no conditions yet, kubectl fails at once.
    until(lambda: cluster.kubectl(*wait), "the CRD is established", ignoring=RuntimeError)
    return cluster


@pytest.fixture(scope="session")
def cluster_with_images(cluster: Cluster) -> Cluster:
    return Cluster(cluster.kubeconfig, build_images())


@pytest.fixture(scope="session")
def planted(
    cluster_with_images: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Plant]:
    """One namespace with an operator: what the tests of the modes deploy into."""
    subprocess.run([sys.executable, EXAMPLES / "prepare.py"], check=True)
    with plant(cluster_with_images, tmp_path_factory.mktemp("keys")) as built:
        yield built


@pytest.fixture(scope="session")
def modes(planted: Plant) -> Plant:
    """The same, on a cluster that has KServe."""
    if not planted.cluster.install_kserve():
        pytest.skip("this cluster has no KServe")
    return planted


@pytest.fixture(scope="session")
def tortured(planted: Plant) -> Plant:
    """The same, with a table and a model that two workers are busy with for a while."""
    whole = table(4096)
    tables = {
        "wrong/drifted.parquet": whole.drop_columns("spend"),
        "wrong/poisoned.parquet": whole.set_column(1, "age", [[-1.0] * len(whole)]),
    }
    parts = {f"going/{n}.parquet": whole for n in range(8)}
    fill(planted.cluster, NAMESPACE, tables | parts)
    with witnessing(planted.cluster, NAMESPACE):
        pass  # whoever is first makes the store's tables
    return planted


@pytest.fixture(scope="session")
def kuberay(cluster_with_images: Cluster) -> None:
    """KubeRay's operator, which makes Ray clusters."""
    if not cluster_with_images.install_kuberay():
        pytest.skip("this cluster has no KubeRay")


@pytest.fixture(scope="session")
def keda(modes: Plant) -> None:
    """KEDA, which makes HorizontalPodAutoscalers of ScaledObjects."""
    if not modes.cluster.install_keda():
        pytest.skip("this cluster has no KEDA")


@pytest.fixture(scope="session")
def flux(modes: Plant) -> None:
    """Flux's kustomize-controller, which applies what a source holds and waits for it."""
    if not modes.cluster.install_flux():
        pytest.skip("this cluster has no Flux")


@pytest.fixture(scope="session")
def messaging(cluster_with_images: Cluster) -> Iterator[Cluster]:
    """The brokers that the examples name, and a pod that speaks to them."""
    if not {"kafka", "nats"} <= cluster_with_images.images.keys():
        pytest.skip("no image of a broker can be had here")
    brokers.deploy(cluster_with_images, "kafka", "nats")
    yield cluster_with_images
    cluster_with_images.kubectl("delete", "namespace", brokers.NAMESPACE, "--wait=false")


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A fresh namespace that enforces Pod Security `restricted`; gone afterwards."""
    name = f"fw-test-{uuid.uuid4().hex[:8]}"
    cluster.make_namespace(name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests measured."""
    for line in LINES:
        terminalreporter.write_line(line)
