"""The cluster the suite runs on, and a namespace of its own for each test that asks.

`make test` sets the variables; by hand: eval "$(python -m tools.cluster up)".
"""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.installation import ROOT, Cluster, build_images

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
    cluster.kubectl("wait", "--for=condition=Established", "-f", str(CRD), "--timeout=30s")
    return cluster


@pytest.fixture(scope="session")
def cluster_with_images(cluster: Cluster) -> Cluster:
    return Cluster(cluster.kubeconfig, build_images())


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A fresh namespace that enforces Pod Security `restricted`; gone afterwards."""
    name = f"fw-test-{uuid.uuid4().hex[:8]}"
    cluster.make_namespace(name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")
