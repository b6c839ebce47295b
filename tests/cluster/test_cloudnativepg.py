"""The chart with a prediction store of CloudNativePG: its real operator, two instances, a failover.

Building the operator takes minutes once, so `make test` leaves this out;
tests/unit/test_chart_servers.py holds what the chart makes for it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from fourways_cli.targets import API_KEY_VARIABLE
from tests.kit.cluster.told import tell
from tests.kit.waiting import until
from tools.cluster.cnpg import INSTANCE_IMAGE
from tools.demo.questions import ARTIFACTS, EXAMPLES, ask_all
from tools.installation import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(1200)]

NAMESPACE = "fw-test-cnpg"
DATABASE = "cluster.postgresql.cnpg.io/fourways-db"
NAME = "churn"
BACK_SECONDS = 60.0
"""How soon lookups must be answered after the primary is gone: CloudNativePG promotes a standby."""

OPTIONS = {
    "trialPostgresql.enabled": "false",
    "cloudnativePg.enabled": "true",
    "cloudnativePg.instances": "2",
    "cloudnativePg.storage": "1Gi",
    "cloudnativePg.imageName": INSTANCE_IMAGE,
    "cloudnativePg.resources.requests.memory": "128Mi",
}


@pytest.fixture
def installed(cluster_with_images: Cluster) -> Iterator[Cluster]:
    """The chart with its Cluster, in a namespace of its own."""
    cluster = cluster_with_images
    if not cluster.install_cnpg():
        pytest.skip("this cluster has no CloudNativePG")
    subprocess.run([sys.executable, EXAMPLES / "prepare.py"], check=True)
    cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s")
    cluster.make_namespace(NAMESPACE)
    cluster.install(NAMESPACE, *(w for k, v in OPTIONS.items() for w in ("--set", f"{k}={v}")))
    cluster.fill_claim(NAMESPACE, ARTIFACTS)
    yield cluster
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def kubectl(cluster: Cluster, *words: str) -> str:
    return cluster.kubectl("-n", NAMESPACE, *words)


def primary(cluster: Cluster) -> str:
    """Return the name of the instance that writes."""
    return kubectl(cluster, "get", DATABASE, "-o", "jsonpath={.status.currentPrimary}")


def run(cluster: Cluster) -> None:
    """Run the deployment now and wait for its predictions."""
    subprocess.run(
        [sys.executable, "-m", "fourways_cli", "start-run", NAME, "-n", NAMESPACE, "--cluster"],
        env=cluster.environment(),
        check=True,
    )


def test_predictions_outlive_the_loss_of_the_primary(
    installed: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubectl(installed, "wait", "--for=condition=Ready", DATABASE, "--timeout=300s")
    kubectl(installed, "apply", "-f", str(EXAMPLES / f"{NAME}.yaml"))
    kubectl(installed, "wait", "--for=create", f"cronjob/{NAME}-batch", "--timeout=30s")
    run(installed)
    installed.await_ready(NAMESPACE, NAME, seconds=180)
    monkeypatch.setenv(API_KEY_VARIABLE, installed.gateway_token(NAMESPACE))

    with installed.forwarded(NAMESPACE, "svc/fourways-gateway", 80) as url:
        before = answers(url)
        lost = primary(installed)
        kubectl(installed, "delete", "pod", lost, "--grace-period=0", "--force")
        deleted = time.monotonic()
        until(
            lambda: primary(installed) not in (lost, ""),
            "CloudNativePG promotes the standby",
            seconds=BACK_SECONDS,
        )
        until(
            lambda: answers(url) == before,
            "lookups are answered by the promoted instance",
            seconds=BACK_SECONDS,
            ignoring=(httpx.HTTPError, AssertionError),
        )
        tell(f"CloudNativePG: lookups back {time.monotonic() - deleted:.1f} s after the loss")

    # Writers find the new primary as well.
    run(installed)
    assert (
        kubectl(installed, "get", "mdep", NAME, "-o", "jsonpath={.status.conditions}").count(
            "RunFailed"
        )
        == 0
    )


def answers(url: str) -> Any:
    """Return what the gateway answers for the example's keys."""
    return [list(answer["outputs"][0]["data"]) for _, answer in ask_all(url, only=NAME)]
