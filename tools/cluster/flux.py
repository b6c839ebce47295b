"""Flux's kustomize-controller on the cluster, from its Go module.

On our own cluster it is the program built here; on kind it is the image that its files name. The
source-controller is left out: a source is an ExternalArtifact, which anybody may write.
"""

from pathlib import Path

from tools.cluster import gobuild, node, operators
from tools.cluster.config import FLUX_SOURCE_SUM, FLUX_VERSION, Checkout
from tools.cluster.detect import Kind
from tools.cluster.errors import ClusterError
from tools.cluster.operators import Json
from tools.cluster.shell import run, step, succeeds

NAMESPACE = "flux-system"
_NAME = "kustomize-controller"
_SOURCES = "github.com/fluxcd/source-controller"
_IMAGE = f"localhost/fourways-{_NAME}:{FLUX_VERSION}"
_PATIENCE = 180.0


def install(checkout: Checkout, which: Kind, kubeconfig: Path) -> None:
    """Install the controller and wait for it. A given cluster must already have it."""
    binaries = gobuild.build()
    kubectl = [str(binaries.kubectl), "--kubeconfig", str(kubeconfig)]
    if which is Kind.GIVEN:
        if not succeeds([*kubectl, "get", "kustomizations.kustomize.toolkit.fluxcd.io", "-A"]):
            raise ClusterError("this cluster has no Flux: install 2.7 or newer")
        return
    if operators.rolled_out(kubectl, NAMESPACE, _NAME):
        return
    with step(f"Flux's {_NAME} {FLUX_VERSION}"):
        if which is Kind.LOCAL:
            node.load_binary(checkout, _IMAGE, gobuild.build_own(gobuild.FLUX).path(_NAME))
        folders = [
            gobuild.source_of(gobuild.FLUX),
            gobuild.download(_SOURCES, FLUX_VERSION, FLUX_SOURCE_SUM),
        ]
        kinds = [kind for folder in folders for kind in _kinds(folder)]
        operators.apply_kinds(kubectl, "Flux", NAMESPACE, kinds)
        operators.apply(kubectl, _objects(str(binaries.kubectl), which is Kind.LOCAL))
        operators.await_operator(kubectl, "Flux", NAMESPACE, _NAME, _PATIENCE)


def _kinds(module: Path) -> list[Json]:
    files = sorted((module / "config" / "crd" / "bases").glob("*.yaml"))
    return [kind for file in files for kind in operators.documents(file.read_text("utf-8"))]


def _objects(kubectl: str, local: bool) -> list[Json]:
    """Return the controller's Deployment and rights, in our namespace."""
    objects = [
        document
        for part in ("rbac", "manager")
        for document in operators.documents(
            run([kubectl, "kustomize", gobuild.source_of(gobuild.FLUX) / "config" / part])
        )
    ]
    for obj in objects:
        if not obj["kind"].startswith("Cluster"):
            obj["metadata"]["namespace"] = NAMESPACE
        for subject in obj.get("subjects", []):
            subject["namespace"] = NAMESPACE
        if obj["kind"] == "Deployment":
            _fit(obj["spec"]["template"]["spec"], local)
    return objects


def _fit(pod: Json, local: bool) -> None:
    (container,) = pod["containers"]
    container["args"].append("--feature-gates=ExternalArtifact=true")
    container["resources"] = {"requests": {"cpu": "20m", "memory": "64Mi"}}
    if local:
        operators.run_ours(pod, _IMAGE, f"/{_NAME}")
