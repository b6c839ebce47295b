"""KubeRay's operator on the cluster, as its Go module has it.

Where the cluster is ours the operator is the program built here; on kind it is the image its files
name.
"""

import json
from pathlib import Path
from typing import Any

import yaml

from tools.cluster import node
from tools.cluster.config import KUBERAY_VERSION, PACKAGE, Checkout
from tools.cluster.detect import Kind
from tools.cluster.errors import ClusterError
from tools.cluster.gobuild import Binaries, build, go_program
from tools.cluster.shell import run, step, succeeds, wait_for

NAMESPACE = "kuberay"
_MODULE = f"github.com/ray-project/kuberay/ray-operator@v{KUBERAY_VERSION}"
_IMAGE = f"localhost/fourways-kuberay:{KUBERAY_VERSION}"
_DEPLOYMENT = "kuberay-operator"
_PATIENCE = 120.0

Json = dict[str, Any]


def install(checkout: Checkout, which: Kind, kubeconfig: Path) -> None:
    """Have KubeRay answer on the cluster. On a given cluster it must be there already."""
    if which is Kind.GIVEN:
        if not succeeds(["kubectl", "--kubeconfig", kubeconfig, "get", "rayjobs", "-A"]):
            raise ClusterError(f"this cluster has no KubeRay: install {KUBERAY_VERSION} or newer")
        return
    binaries = build(("kuberay",) if which is Kind.LOCAL else ())
    kubectl = [str(binaries.kubectl), "--kubeconfig", str(kubeconfig)]
    rollout = [*kubectl, "-n", NAMESPACE, "rollout", "status", f"deployment/{_DEPLOYMENT}"]
    if succeeds([*rollout, "--timeout=1s"]):
        return
    with step(f"KubeRay {KUBERAY_VERSION}"):
        image = None
        if which is Kind.LOCAL:
            image = _IMAGE
            node.load_binary(checkout, image, binaries.path("kuberay"))
        _apply(kubectl, binaries, image)
        wait_for("KubeRay", lambda: succeeds([*rollout, "--timeout=5s"]), seconds=_PATIENCE,
                 hint=f"pods of {NAMESPACE}")  # fmt: skip


def _apply(kubectl: list[str], binaries: Binaries, image: str | None) -> None:
    objects = _fitted(_rendered(binaries), image)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    crds = [obj for obj in objects if obj["kind"] == "CustomResourceDefinition"]
    others = [obj for obj in objects if obj["kind"] != "CustomResourceDefinition"]
    # Client-side apply keeps a copy in an annotation, and these definitions do not fit into one.
    server_side = [*kubectl, "apply", "--server-side", "--force-conflicts", "-f", "-"]
    run(server_side, input_text=yaml.safe_dump_all([namespace, *crds]))
    names = [f"crd/{obj['metadata']['name']}" for obj in crds]
    established = [*kubectl, "wait", "--for=condition=Established", *names, "--timeout=5s"]
    wait_for("KubeRay's kinds", lambda: succeeds(established), seconds=_PATIENCE)
    run(server_side, input_text=yaml.safe_dump_all(others))


def _rendered(binaries: Binaries) -> list[Json]:
    told = run(
        [go_program(), "mod", "download", "-json", _MODULE],
        cwd=PACKAGE / "go",
        env={"GOWORK": "off", "GOFLAGS": ""},
    )
    folder = Path(json.loads(told)["Dir"]) / "config" / "default"
    text = run([str(binaries.kubectl), "kustomize", folder])
    return [document for document in yaml.safe_load_all(text) if document]


def _fitted(objects: list[Json], image: str | None) -> list[Json]:
    """Put it into a namespace of its own, and have it run what was built here."""
    for obj in objects:
        if "namespace" in obj["metadata"]:
            obj["metadata"]["namespace"] = NAMESPACE
        for subject in obj.get("subjects", []):
            subject["namespace"] = NAMESPACE
        if obj["kind"] == "Deployment" and image is not None:
            pod = obj["spec"]["template"]["spec"]
            # An image of one program names no user.
            pod["securityContext"]["runAsUser"] = 65532
            program = {"image": image, "imagePullPolicy": "Never", "command": ["/kuberay"]}
            pod["containers"][0] |= program
    return objects
