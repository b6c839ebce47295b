"""The sample policy of the chart: what an author may name in a deployment, on an API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import yaml

from tests.kit.waiting import until
from tools.installation import CHART, Cluster

pytestmark = pytest.mark.cluster

SAMPLE = CHART / "samples" / "authors.yaml"
NAMESPACE = f"fw-test-authors-{uuid4().hex[:6]}"
AUTHOR = "alice"
ALLOWED = {
    "fourways.dev/allowed-hosts": "models.example.com *.kafka.svc",
    "fourways.dev/allowed-images": "registry.example.com/shop/*",
}
DIGEST = "sha256:" + "0" * 64

Json = dict[str, Any]


def deployment(name: str = "one", **spec: Any) -> Json:
    batch = {"schedule": "0 3 * * 1", "source": {"uri": "s3://bucket/rows.parquet"}}
    return {
        "apiVersion": "fourways.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "mode": "batch",
            "model": model(),
            "contract": {
                "entityKey": {"name": "id"},
                "inputs": [{"name": "x", "type": "float32"}],
                "outputs": [{"name": "y", "type": "float32"}],
            },
            "batch": batch,
            **spec,
        },
    }


def model(uri: str = "s3://bucket/model.onnx", **more: Any) -> Json:
    return {"uri": uri, "version": "1", "digest": DIGEST, **more}


def streaming(**source: Any) -> Json:
    return {"mode": "streaming", "streaming": {"source": source}}


def golden(uri: str, **more: Any) -> Json:
    contract = deployment()["spec"]["contract"]
    return {"contract": {**contract, "goldenVectors": {"uri": uri, "digest": DIGEST, **more}}}


def batch(**more: Any) -> Json:
    return {"batch": {**deployment()["spec"]["batch"], **more}}


SECRET = {"secretName": "shop"}
KAFKA = {"bootstrapServers": "a.kafka.svc:9092,b.kafka.svc:9092", "topic": "t"}
NATS = {"servers": "nats://x.kafka.svc:4222", "stream": "S", "subject": "s"}
NAMES: dict[str, Json] = {
    "model's Secret": {"model": model(credentials=SECRET)},
    "golden vectors' Secret": golden("s3://bucket/g.jsonl", credentials=SECRET),
    "source's Secret": batch(source={"uri": "s3://bucket/rows.parquet", "credentials": SECRET}),
    "source's database": batch(source={"query": {"database": SECRET, "sql": "SELECT 1 AS id"}}),
    "sink's Secret": batch(sink={"files": {"uri": "s3://bucket/out", "credentials": SECRET}}),
    "Kafka's Secret": streaming(kafka={**KAFKA, "credentials": SECRET}),
    "NATS' Secret": streaming(nats={**NATS, "credentials": SECRET}),
    "model's claim": {"model": model("pvc://shop/model.onnx")},
    "source's claim": batch(source={"uri": "pvc://shop/a/*.parquet"}),
    "golden vectors' claim": golden("pvc://shop/g.jsonl"),
    "image pull Secret": {"pod": {"imagePullSecrets": ["shop"]}},
    "pods' PriorityClass": {"pod": {"priorityClassName": "shop"}},
    "PriorityClass": batch(priorityClassName="shop"),
}
"""What names something called ``shop``."""

PLACES: dict[str, tuple[Json, Json]] = {
    "model": (
        {"model": model("https://stranger.example/m.onnx")},
        {"model": model("https://models.example.com:8443/m.onnx")},
    ),
    "registry": (
        {"model": model("oci://stranger.example/m:1")},
        {"model": model("oci://models.example.com/m:1")},
    ),
    "upper case": (
        {"model": model("https://models.example.com.stranger.example/m.onnx")},
        {"model": model("https://MODELS.example.com/m.onnx")},
    ),
    "source": (
        batch(source={"uri": "http://stranger.example/rows.parquet"}),
        batch(source={"uri": "http://models.example.com/rows.parquet"}),
    ),
    "Kafka": (
        streaming(kafka={**KAFKA, "bootstrapServers": "a.kafka.svc:9092,stranger.example:9092"}),
        streaming(kafka=KAFKA),
    ),
    "NATS": (
        streaming(nats={**NATS, "servers": "nats://stranger.example:4222"}),
        streaming(nats=NATS),
    ),
    "image": (
        {
            "image": "stranger.example/shop/m:1",
            "model": model(format="python", pythonClass="shop:Model"),
        },
        {
            "image": "registry.example.com/shop/m:1",
            "model": model(format="python", pythonClass="shop:Model"),
        },
    ),
}
"""A place that is not listed, and one that is."""


@pytest.fixture(scope="module")
def policed(cluster: Cluster) -> Iterator[Cluster]:
    documents = list(yaml.safe_load_all(SAMPLE.read_text()))
    for one in documents:
        if one["kind"] == "ValidatingAdmissionPolicyBinding":
            # Other tests of this cluster name what they like.
            here = {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}}
            one["spec"]["matchResources"] = {"namespaceSelector": here}
    given = yaml.safe_dump_all([*_given(), *documents])
    cluster.kubectl("apply", "-f", "-", stdin=given)
    until(
        lambda: "you may not use" in refusal(cluster, deployment(**NAMES["model's Secret"])),
        "the policy is in force",
        seconds=60,
    )
    allowed(cluster, deployment())
    yield cluster
    cluster.kubectl("delete", "-f", "-", "--ignore-not-found", "--wait=false", stdin=given)


def _given() -> list[Json]:
    """Return a namespace with its list of places, and an author who only writes deployments."""
    role = {"apiGroups": ["fourways.dev"], "resources": ["modeldeployments"]}
    return [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "annotations": ALLOWED},
        },
        _rbac("Role", "author", rules=[{**role, "verbs": ["get", "create", "update", "patch"]}]),
        _bound("author"),
    ]


def _named(version: str, kind: str, name: str, **more: Any) -> Json:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **more}


def _rbac(kind: str, name: str, **more: Any) -> Json:
    return _named("rbac.authorization.k8s.io/v1", kind, name, **more)


def _bound(role: str, kind: str = "Role") -> Json:
    subject = {"kind": "User", "name": AUTHOR, "apiGroup": "rbac.authorization.k8s.io"}
    to = {"kind": kind, "name": role, "apiGroup": "rbac.authorization.k8s.io"}
    bound = _rbac(f"{kind}Binding", role, subjects=[subject], roleRef=to)
    if kind == "ClusterRole":
        del bound["metadata"]["namespace"]
    return bound


@pytest.fixture
def granted(policed: Cluster) -> Iterator[Cluster]:
    """The author may use what is called ``shop``."""
    names = {"verbs": ["use"], "resourceNames": ["shop"]}
    core = {**names, "apiGroups": [""], "resources": ["secrets", "persistentvolumeclaims"]}
    priority = {**names, "apiGroups": ["scheduling.k8s.io"], "resources": ["priorityclasses"]}
    everywhere = _rbac("ClusterRole", "fw-test-priority", rules=[priority])
    del everywhere["metadata"]["namespace"]
    objects = [
        _rbac("Role", "shop", rules=[core]),
        _bound("shop"),
        everywhere,
        _bound("fw-test-priority", "ClusterRole"),
    ]
    text = yaml.safe_dump_all(objects)
    policed.kubectl("apply", "-f", "-", stdin=text)
    yield policed
    policed.kubectl("delete", "-f", "-", stdin=text)


def refusal(cluster: Cluster, document: Json, who: str = AUTHOR) -> str:
    """Ask to create a deployment, without keeping it; return why not, empty if it may be."""
    try:
        cluster.kubectl(
            "create", "--dry-run=server", "--as", who, "-f", "-", stdin=json.dumps(document)
        )
    except RuntimeError as error:
        return str(error)
    return ""


def allowed(cluster: Cluster, document: Json) -> None:
    # What a grant changes is seen a moment later.
    until(lambda: refusal(cluster, document) == "", lambda: refusal(cluster, document), seconds=20)


def test_what_names_nothing_is_allowed(policed: Cluster) -> None:
    assert refusal(policed, deployment()) == ""


@pytest.mark.parametrize("what", NAMES)
def test_a_name_that_was_not_given_is_refused(policed: Cluster, what: str) -> None:
    said = refusal(policed, deployment(**NAMES[what]))
    assert "you may not use" in said
    assert "shop" in said


def test_a_name_that_was_given_is_allowed(granted: Cluster) -> None:
    for document in NAMES.values():
        allowed(granted, deployment(**document))
    other = {"model": model("pvc://shop/m.onnx", credentials={"secretName": "other"})}
    said = refusal(granted, deployment(**other))
    assert "the Secrets other:" in said


@pytest.mark.parametrize("what", PLACES)
def test_a_place_is_refused_unless_it_is_listed(policed: Cluster, what: str) -> None:
    stranger, listed = PLACES[what]
    assert "fourways.dev/allowed-" in refusal(policed, deployment(**stranger))
    assert refusal(policed, deployment(**listed)) == ""


def test_an_update_is_held_to_the_same(policed: Cluster) -> None:
    policed.kubectl("create", "--as", AUTHOR, "-f", "-", stdin=json.dumps(deployment("kept")))
    changed = json.dumps(deployment("kept", **NAMES["model's Secret"]))
    with pytest.raises(RuntimeError, match="the Secrets shop:"):
        policed.kubectl("apply", "--as", AUTHOR, "-f", "-", stdin=changed)
    policed.kubectl("-n", NAMESPACE, "delete", "modeldeployment", "kept")


def test_the_admin_may_name_everything_that_is_listed(policed: Cluster) -> None:
    for spec in NAMES.values():
        document = json.dumps(deployment(**spec))
        policed.kubectl("create", "--dry-run=server", "-f", "-", stdin=document)


def test_without_a_list_no_place_is_allowed(policed: Cluster) -> None:
    listed = deployment(**PLACES["model"][1])
    policed.kubectl("annotate", "namespace", NAMESPACE, "fourways.dev/allowed-hosts-")
    try:
        until(lambda: "models.example.com" in refusal(policed, listed), "refused", seconds=20)
        assert refusal(policed, deployment()) == ""
    finally:
        hosts = f"fourways.dev/allowed-hosts={ALLOWED['fourways.dev/allowed-hosts']}"
        policed.kubectl("annotate", "--overwrite", "namespace", NAMESPACE, hosts)


def test_the_policy_is_what_the_api_server_understands(policed: Cluster) -> None:
    status = policed.get("validatingadmissionpolicy", "fourways-authors").get("status", {})
    assert not status.get("typeChecking", {}).get("expressionWarnings"), status
    # Applied as a user applies it.
    policed.kubectl("apply", "--dry-run=server", "-f", str(SAMPLE))
