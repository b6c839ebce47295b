"""KubeRay's operator on the cluster, from its Go module.

On our own cluster the operator is the program built here; on kind it is the image that its files
name.
"""

from pathlib import Path

from tools.cluster import node, operators
from tools.cluster.config import KUBERAY_VERSION, Checkout
from tools.cluster.detect import Kind
from tools.cluster.errors import ClusterError
from tools.cluster.gobuild import Binaries, build
from tools.cluster.operators import PATIENCE, Json
from tools.cluster.shell import run, step, succeeds

NAMESPACE = "kuberay"
_MODULE = f"github.com/ray-project/kuberay/ray-operator@v{KUBERAY_VERSION}"
_IMAGE = f"localhost/fourways-kuberay:{KUBERAY_VERSION}"
_DEPLOYMENT = "kuberay-operator"


def install(checkout: Checkout, which: Kind, kubeconfig: Path) -> None:
    """Install KubeRay's operator and wait for it. A given cluster must already have it."""
    if which is Kind.GIVEN:
        if not succeeds(["kubectl", "--kubeconfig", kubeconfig, "get", "rayjobs", "-A"]):
            raise ClusterError(f"this cluster has no KubeRay: install {KUBERAY_VERSION} or newer")
        return
    binaries = build(("kuberay",) if which is Kind.LOCAL else ())
    kubectl = [str(binaries.kubectl), "--kubeconfig", str(kubeconfig)]
    if operators.rolled_out(kubectl, NAMESPACE, _DEPLOYMENT):
        return
    with step(f"KubeRay {KUBERAY_VERSION}"):
        image = None
        if which is Kind.LOCAL:
            image = _IMAGE
            node.load_binary(checkout, image, binaries.path("kuberay"))
        _apply(kubectl, binaries, image)
        operators.await_operator(kubectl, "KubeRay", NAMESPACE, _DEPLOYMENT, PATIENCE)


def _apply(kubectl: list[str], binaries: Binaries, image: str | None) -> None:
    folder = operators.module_folder(_MODULE) / "config" / "default"
    rendered = operators.documents(run([str(binaries.kubectl), "kustomize", folder]))
    objects = _fitted(rendered, image)
    kinds = [obj for obj in objects if obj["kind"] == "CustomResourceDefinition"]
    operators.apply_kinds(kubectl, "KubeRay", NAMESPACE, kinds)
    operators.apply(kubectl, [obj for obj in objects if obj not in kinds])


def _fitted(objects: list[Json], image: str | None) -> list[Json]:
    """Move it into its own namespace, and use the program built here."""
    for obj in objects:
        if "namespace" in obj["metadata"]:
            obj["metadata"]["namespace"] = NAMESPACE
        for subject in obj.get("subjects", []):
            subject["namespace"] = NAMESPACE
        if obj["kind"] == "Deployment" and image is not None:
            operators.run_ours(obj["spec"]["template"]["spec"], image, "/kuberay")
    return objects
