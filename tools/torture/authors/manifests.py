"""Ways that a manifest tries: refused before anything is made of it."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from fourways_operator.facts import OperatorSettings
from fourways_operator.installation import admitted_spec

from .way import Ground, Reached, Way

STORE, READER = "fourways-store", "fourways-store-gateway"
SETTINGS = OperatorSettings(
    runtime_image="fourways-runtime",
    store_secret=STORE,
    gateway_store_secret=READER,
    allowed_images=("registry.example/team/*",),
    allowed_keys=("team.example/*",),
    allowed_hosts=("models.example", "kafka.example", "nats.example"),
    allowed_schemes=("pvc", "http", "https", "s3", "gs", "az", "oci"),
)
"""An installation as an admin sets it up who lets authors do little."""

_FEATURES = {"database": {"secretName": "mine"}, "table": "t"}
_BLOCKS: dict[str, Any] = {
    "batch": {"schedule": "@daily", "source": {"uri": "pvc://data/rows.parquet"}},
    "realtime": {"features": _FEATURES},
    "streaming": {"source": {"kafka": {"bootstrapServers": "kafka.example:9092", "topic": "t"}}},
    "edge": {
        "targets": [{"name": "till", "budget": {"sizeMiB": 8, "memoryMiB": 64, "latencyMs": 5}}],
        "signing": {"secretName": "signing"},
        "publish": "pvc://bundles/out",
        "features": _FEATURES,
    },
}
PYTHON = {
    "spec.image": "registry.example/team/ranker:1",
    "spec.model.format": "python",
    "spec.model.pythonClass": "a:B",
}
"""What a model of format python sets, as a change of a manifest."""

RUNTIME = {
    "spec.realtime": {"runtime": {"modelFormat": "sklearn"}},
    "spec.model.digestPolicy": "TrustOnFirstUse",
    "spec.contract.goldenVectors": None,
}
"""What a model sets that a runtime of KServe serves."""


def base(mode: str) -> dict[str, Any]:
    """Return a manifest that is admitted."""
    golden = {"uri": "pvc://models/golden.jsonl"}
    return {
        "apiVersion": "fourways.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "mine", "namespace": "shop", "uid": "u"},
        "spec": {
            "mode": mode,
            "model": {"uri": "pvc://models/m.onnx", "version": "1"},
            "contract": {
                "entityKey": {"name": "id"},
                "inputs": [{"name": "x", "type": "float32"}],
                "outputs": [{"name": "y", "type": "float32"}],
                "goldenVectors": golden,
            },
            mode: deepcopy(_BLOCKS[mode]),
        },
    }


def admitted(mode: str, changes: dict[str, Any]) -> str:
    """Return why a changed manifest is refused; an empty text if it is admitted.

    A change to None takes the field away.
    """
    document = base(mode)
    for path, value in changes.items():
        *parents, last = path.split(".")
        node = document
        for name in parents:
            node = node.setdefault(name, {})
        if value is None:
            node.pop(last, None)
        else:
            node[last] = value
    found = admitted_spec(document, SETTINGS)
    return "; ".join(map(str, found.problems)) if found.spec is None else ""


def _way(aim: str, name: str, says: str, mode: str, changes: dict[str, Any]) -> Way:
    def refusal(ground: Ground) -> str:
        said = admitted(mode, changes)
        if not said:
            raise Reached(f"the manifest with {changes} is admitted")
        return said

    return Way(aim, name, refusal, says)


_KAFKA = "spec.streaming.source.kafka.credentials"
_NATS = {"servers": "nats://nats.example", "stream": "S", "subject": "s"}
SECRETS = (
    ("batch", "spec.model.credentials", STORE),
    ("batch", "spec.contract.goldenVectors.credentials", STORE),
    ("batch", "spec.batch.source.credentials", STORE),
    ("batch", "spec.batch.sink.files.credentials", STORE),
    ("batch", "spec.batch.sink.table.database", STORE),
    ("batch", "spec.batch.source.query.database", READER),
    ("realtime", "spec.realtime.features.database", READER),
    ("streaming", _KAFKA, STORE),
    ("streaming", "spec.streaming.source.nats.credentials", READER),
    ("edge", "spec.edge.signing", STORE),
    ("edge", "spec.edge.credentials", STORE),
    ("edge", "spec.edge.features.database", READER),
)
"""Each place of a manifest that names a Secret, with one of the store's."""

_BESIDE: dict[str, dict[str, Any]] = {
    "spec.batch.sink.files.credentials": {"spec.batch.sink.files.uri": "s3://bucket/out"},
    "spec.batch.sink.table.database": {"spec.batch.sink.table.table": "t"},
    "spec.batch.source.query.database": {
        "spec.batch.source": {},
        "spec.batch.source.query.sql": "SELECT 1",
    },
    "spec.streaming.source.nats.credentials": {"spec.streaming.source": {"nats": _NATS}},
}
SIGNED = (
    "spec.model.credentials",
    "spec.contract.goldenVectors.credentials",
    "spec.edge.credentials",
    "spec.edge.features.database",
)
FILES = {
    "a file of the node": "file:///etc/passwd",
    "a mounted Secret": "file:///var/run/secrets/fourways.dev/signing/key",
    "the store's address": "file:///etc/fourways/store/uri",
}
CLAIMS = {
    "a step up": "pvc://mine/../others/x",
    "a step up, encoded": "pvc://mine/%2e%2e/others/x",
    "a step up behind an encoded slash": "pvc://mine/a%2F%2e./x",
    "a NUL": "pvc://mine/x%00.onnx",
    "no claim": "pvc:///others/x",
}
URLS = {
    "a login before the host": ("https://models.example@evil.example/m.onnx", "spec.model.uri"),
    "an address as one number": ("https://2852039166/m.onnx", "spec.model.uri"),
    "an address with a number too large": ("https://169.254.169.510/m.onnx", "spec.model.uri"),
    "a host beyond ASCII": ("https://\uff4dodels.example/m.onnx", "spec.model.uri"),
    "a port that is none": ("https://models.example:99999/m.onnx", "spec.model.uri"),
    "another scheme": ("ftp://models.example/m.onnx", "spec.model.uri"),
}
FETCHED_BY_KSERVE = {
    "a model that is not listed": "https://evil.example/m",
    "an artifact that is not listed": "oci://evil.example/m:1",
    "metadata": "http://169.254.169.254/latest",
    "metadata in an address of IPv6": "http://[::ffff:a9fe:a9fe]/latest",
}
IMAGES = {
    "another registry": "evil.example/team/ranker:1",
    "a registry whose name goes on": "registry.example.evil/team/ranker:1",
    "a path below the allowed one": "registry.example/team/sub/ranker:1",
    "the allowed one as a path": "evil.example/registry.example/team/ranker:1",
    "a step up": "registry.example/team/../other/ranker:1",
    "Docker Hub's": "ranker:1",
    "an image id": "a" * 64,
}
PODS: dict[str, tuple[str, Any]] = {
    "its ServiceAccount": ("serviceAccountName", "admin"),
    "a token": ("automountServiceAccountToken", True),
    "the node's network": ("hostNetwork", True),
    "the node's processes": ("hostPID", True),
    "a folder of the node": ("volumes", [{"name": "v", "hostPath": {"path": "/"}}]),
    "the root user": ("securityContext", {"runAsUser": 0}),
    "a sidecar": ("containers", [{"name": "c", "image": "evil"}]),
    "an init container": ("initContainers", [{"name": "c", "image": "evil"}]),
    "a node by name": ("nodeName", "control-plane"),
    "a label of another Service": ("labels", {"app": "payments"}),
    "a label of another deployment": ("labels", {"fourways.dev/deployment": "others"}),
    "a label of the gateway": ("labels", {"app.kubernetes.io/managed-by": "fourways"}),
    "an annotation of a cloud": ("annotations", {"iam.amazonaws.com/role": "admin"}),
    "a cloud's role": ("serviceAccountAnnotations", {"eks.amazonaws.com/role-arn": "admin"}),
    "a cloud's identity": ("serviceAccountAnnotations", {"azure.workload.identity/client-id": "x"}),
    "a variable of our runtime": ("env", [{"name": "LD_PRELOAD", "value": "/x.so"}]),
    "a priority of Kubernetes": ("priorityClassName", "system-node-critical"),
}


def ways() -> Iterator[Way]:
    """Return the ways of manifests."""
    for mode, path, name in SECRETS:
        changes = {**_BESIDE.get(path, {}), f"{path}.secretName": name}
        yield _way("Secret", f"the store's as {path}", f"{path}.secretName", mode, changes)
    for path in SIGNED:
        changes = {f"{path}.secretName": "signing"}
        yield _way("Secret", f"the signing key as {path}", "a Secret of its own", "edge", changes)
    for name, uri in FILES.items():
        yield _way("Secret", f"{name} as the model", "file", "batch", {"spec.model.uri": uri})
        source = {"uri": uri, "format": "CSV"}
        yield _way("Secret", f"{name} as a source", "file", "batch", {"spec.batch.source": source})
    for name, uri in CLAIMS.items():
        yield _way("claim", f"{name} (model)", "spec.model.uri", "batch", {"spec.model.uri": uri})
        where = {"spec.edge.publish": uri}
        yield _way("claim", f"{name} (bundles)", "spec.edge.publish", "edge", where)
    for name, (uri, says) in URLS.items():
        changes = {"spec.model.uri": uri, "spec.model.digest": "sha256:" + "a" * 64}
        yield _way("host", name, says, "batch", changes)
    for name, uri in FETCHED_BY_KSERVE.items():
        changes = {**RUNTIME, "spec.model.uri": uri}
        yield _way("host", f"{name}, by KServe", "spec.model.uri", "realtime", changes)
    group = {"spec.streaming.source.kafka.consumerGroup": "fourways-shop-others"}
    yield _way("database row", "others' events by their group", "Group", "streaming", group)
    for name, image in IMAGES.items():
        yield _way("image", name, "spec.image", "batch", {**PYTHON, "spec.image": image})
    ours = {"spec.image": PYTHON["spec.image"]}
    yield _way("image", "one's own with the model parsed in ours", "spec.image", "batch", ours)
    yield _way("image", "one's own beside a signing key", "spec", "edge", PYTHON)
    for name, (key, value) in PODS.items():
        where = {f"spec.pod.{key}": value}
        yield _way("ServiceAccount", name, f"spec.pod.{key}", "batch", where)
    own = {**PYTHON, "spec.pod.env": [{"name": "FOURWAYS_CONFIG", "value": "{}"}]}
    yield _way("program", "a variable of the operator", "spec.pod.env", "batch", own)
    none = {"spec.model.format": "python", "spec.model.pythonClass": "os:system"}
    yield _way("program", "a class of ours without an image", "spec.image", "batch", none)
