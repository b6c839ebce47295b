"""The chart's own servers: a Cluster of CloudNativePG, and NATS for trials."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from fourways_api.audience import DEPLOYMENTS_KEY, HOSTS_KEY, host_is_listed, listed
from fourways_runtime.io.brokers.nats_client import _NAMES as NATS_KEYS
from tools.install_yaml import CHART, rendered

pytestmark = pytest.mark.thorough

CNPG = ("--api-versions", "postgresql.cnpg.io/v1", "--set", "cloudnativePg.enabled=true")
NATS = ("--set", "trialNats.enabled=true")
Json = dict[str, Any]


def only(objects: list[Json], kind: str, name: str = "") -> Json:
    (found,) = (
        each for each in objects if each["kind"] == kind and name in ("", each["metadata"]["name"])
    )
    return found


def refused(helm: str, *options: str) -> str:
    """Return what Helm says of values that it does not render."""
    done = subprocess.run([helm, "template", "x", CHART, *options], capture_output=True, text=True)
    assert done.returncode != 0
    return done.stderr


def store_secret(objects: list[Json]) -> str:
    (container,) = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    values = {each["name"]: each.get("value") for each in container["env"]}
    return str(values["FOURWAYS_STORE_SECRET"])


def test_the_secret_of_a_cluster_of_cloudnativepg_is_the_store(helm: str) -> None:
    options = ("--set", "cloudnativePg.instances=2", "--set", "cloudnativePg.storageClass=fast")
    objects = rendered(helm, *CNPG, *options)
    cluster = only(objects, "Cluster")
    assert cluster["apiVersion"] == "postgresql.cnpg.io/v1"
    assert cluster["spec"]["instances"] == 2
    assert cluster["spec"]["storage"] == {"size": "10Gi", "storageClass": "fast"}
    assert cluster["spec"]["bootstrap"]["initdb"] == {"database": "fourways", "owner": "fourways"}
    assert cluster["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    # CloudNativePG names it so, and gives it the key `uri`.
    assert store_secret(objects) == f"{cluster['metadata']['name']}-app"
    assert store_secret(rendered(helm)) == "fourways-store"


def test_without_its_operator_helm_says_what_to_install(helm: str) -> None:
    said = refused(helm, "--set", "cloudnativePg.enabled=true")
    assert "Install CloudNativePG's operator first" in said


def test_two_stores_are_refused(helm: str) -> None:
    said = refused(helm, *CNPG, "--set", "trialPostgresql.enabled=true")
    assert "disable the other" in said


def test_nats_has_credentials_that_its_clients_understand(helm: str) -> None:
    objects = rendered(helm, *NATS)
    data = only(objects, "Secret", "fourways-trial-nats")["stringData"]
    assert data.keys() <= NATS_KEYS | {DEPLOYMENTS_KEY, HOSTS_KEY}
    pod = only(objects, "StatefulSet")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert data["password"] not in json.dumps(pod), "only the Secret holds it"
    assert container["args"][-4:] == ["--user", data["username"], "--pass", "$(PASSWORD)"]
    # The chart renders the same each time where Helm sees no cluster.
    assert rendered(helm, *NATS) == objects


@pytest.mark.parametrize("end", ["", ".shop", ".shop.svc", ".shop.svc.cluster.local"])
def test_the_password_of_nats_may_be_sent_to_it_and_to_no_other(helm: str, end: str) -> None:
    objects = rendered(helm, *NATS, "--namespace", "shop")
    hosts = listed(only(objects, "Secret", "fourways-trial-nats")["stringData"][HOSTS_KEY])
    service = only(objects, "Service", "fourways-trial-nats")["metadata"]["name"]
    assert host_is_listed(f"{service}{end}", 4222, hosts)
    assert not host_is_listed(f"{service}{end}", 80, hosts)
    assert not host_is_listed(f"nats{end}", 4222, hosts)


def test_streams_are_made_by_the_runtime_s_image(helm: str) -> None:
    streams = [{"name": "READINGS", "subjects": ["readings", "readings.*"]}]
    objects = rendered(helm, *NATS, "--set-json", f"trialNats.streams={json.dumps(streams)}")
    (container,) = only(objects, "Job")["spec"]["template"]["spec"]["containers"]
    values = {each["name"]: each.get("value") for each in container["env"]}
    assert json.loads(values["STREAMS"]) == streams
    assert "fourways-runtime" in container["image"]
    code = (CHART / "files" / "make_streams.py").read_text("utf-8")
    assert container["command"] == ["python", "-c", code]
    assert not [each for each in rendered(helm, *NATS) if each["kind"] == "Job"]


@pytest.mark.parametrize(
    "value",
    [
        'trialNats.streams=[{"name": "A B", "subjects": ["a"]}]',
        'trialNats.streams=[{"name": "A", "subjects": []}]',
        'trialNats.streams=[{"name": "A", "subjects": ["a b"]}]',
        'trialNats.password="p@ss"',
        'cloudnativePg.name="Store"',
        'cloudnativePg.storage="10"',
    ],
)
def test_values_that_a_server_would_refuse_are_refused_by_name(helm: str, value: str) -> None:
    assert value.partition("=")[0].split(".")[1] in refused(helm, "--set-json", value)
