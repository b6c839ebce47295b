"""The chart's Secrets through install, upgrade, uninstall and install: an API server is enough."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest

from tools.installation import CHART, Cluster

pytestmark = pytest.mark.cluster

NAMESPACE = "fw-test-secrets"
TRIAL, STORE = "fourways-trial-postgresql", "fourways-store"
OWN = "postgresql://me:p%40ss'\"PASSWORD@db.example:6432/mine"


@pytest.fixture
def namespaced(cluster: Cluster) -> Iterator[Cluster]:
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(_namespace()))
    _remove(cluster)
    # The controller that makes it may not be there; the chart looks for it.
    cluster.kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=json.dumps(_service_account()))
    yield cluster
    _remove(cluster)


def _namespace() -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}


def _service_account() -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}


def _remove(cluster: Cluster) -> None:
    cluster.helm("uninstall", "fourways", "-n", NAMESPACE, "--ignore-not-found")
    cluster.kubectl("-n", NAMESPACE, "delete", "secret", STORE, TRIAL, "--ignore-not-found")


def install(cluster: Cluster, *options: str) -> tuple[str, str]:
    """Install or upgrade the chart; return the trial database's password and the address."""
    chart = ("upgrade", "--install", "fourways", str(CHART), "-n", NAMESPACE, "--take-ownership")
    cluster.helm(*chart, "--set", "trialPostgresql.enabled=true", *options)
    return secret(cluster, TRIAL, "password"), secret(cluster, STORE, "uri")


def secret(cluster: Cluster, name: str, key: str) -> str:
    data = cluster.get("-n", NAMESPACE, "secret", name)["data"]
    return base64.b64decode(data[key]).decode()


def test_a_kept_claim_and_a_new_install_have_one_password(namespaced: Cluster) -> None:
    password, address = install(namespaced)
    assert f"fourways:{password}@{TRIAL}.{NAMESPACE}.svc:5432" in address
    assert install(namespaced) == (password, address), "an upgrade changes nothing"
    namespaced.helm("uninstall", "fourways", "-n", NAMESPACE)
    assert install(namespaced) == (password, address), "nor does an install over kept Secrets"


def test_two_installs_have_two_passwords(namespaced: Cluster) -> None:
    first, _ = install(namespaced)
    _remove(namespaced)
    assert install(namespaced)[0] != first
    _remove(namespaced)
    assert install(namespaced, "--set", "trialPostgresql.password=given1")[0] == "given1"


def test_an_upgrade_keeps_an_address_that_was_edited(namespaced: Cluster) -> None:
    password, _ = install(namespaced)
    patch = json.dumps({"stringData": {"uri": OWN}})
    namespaced.kubectl("-n", NAMESPACE, "patch", "secret", STORE, "--patch", patch)
    assert install(namespaced) == (password, OWN)
    namespaced.helm("upgrade", "fourways", str(CHART), "-n", NAMESPACE, "--take-ownership")
    assert secret(namespaced, STORE, "uri") == OWN, "it stays without the trial database"


def test_a_store_secret_of_somebody_else_is_left_alone(namespaced: Cluster) -> None:
    namespaced.give_secret(NAMESPACE, STORE, {"uri": OWN})
    assert install(namespaced)[1] == OWN


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("fetch.hosts", ["$(KUBERNETES_SERVICE_HOST)"]),
        ("fetch.hosts", ["a,b"]),
        ("runtime.image.repository", "r: {x: y}"),
        ("runtime.image.tag", "1\n2"),
        ("store.secretName", "{{ .Release.Name }}"),
        ("trialPostgresql.password", "p@ss:w/rd"),
    ],
)
def test_text_that_a_layer_would_rewrite_is_refused_by_name(
    cluster: Cluster, option: str, value: object
) -> None:
    values = f"{option}={json.dumps(value)}"
    with pytest.raises(RuntimeError, match=option.rpartition(".")[2]):
        cluster.helm("template", "x", str(CHART), "--set-json", values)


def test_a_chart_rendered_twice_is_the_same(cluster: Cluster) -> None:
    options = ("--set", "trialPostgresql.enabled=true", "-n", NAMESPACE)
    first = cluster.helm("template", "x", str(CHART), *options)
    assert first == cluster.helm("template", "x", str(CHART), *options)
