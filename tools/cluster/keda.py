"""KEDA on the cluster, from its Go module: the operator and the server of external metrics.

On our own cluster they are the programs built here; on kind they are the images that its files
name. Its webhooks, which only refuse wrong ScaledObjects, are left out.
"""

from pathlib import Path

from tools.cluster import gobuild, node, operators
from tools.cluster.config import KEDA_VERSION, Checkout
from tools.cluster.detect import Kind
from tools.cluster.errors import ClusterError
from tools.cluster.operators import Json
from tools.cluster.shell import run, step, succeeds, wait_for

NAMESPACE = "keda"
_API = "apiservice/v1beta1.external.metrics.k8s.io"
_PROGRAMS = {"keda-operator": "keda", "keda-metrics-apiserver": "keda-adapter"}
"""The program of each Deployment."""

# The kubelet mounts the certificates up to a minute after the operator has made them.
_PATIENCE = 300.0
_LEFT_OUT = "keda-admission"


def install(checkout: Checkout, which: Kind, kubeconfig: Path) -> None:
    """Install KEDA and wait for it. A given cluster must already have it."""
    binaries = gobuild.build()
    kubectl = [str(binaries.kubectl), "--kubeconfig", str(kubeconfig)]
    if which is Kind.GIVEN:
        if not succeeds([*kubectl, "get", "scaledobjects", "-A"]):
            raise ClusterError(f"this cluster has no KEDA: install {KEDA_VERSION} or newer")
        return
    ready = [*kubectl, "wait", "--for=condition=Available", _API, "--timeout=5s"]
    if succeeds(ready):
        return
    local = which is Kind.LOCAL
    programs = gobuild.build_own(gobuild.KEDA) if local else None
    with step(f"KEDA {KEDA_VERSION}"):
        if programs is not None:
            for name in gobuild.KEDA.programs:
                node.load_binary(checkout, _image(name), programs.path(name))
        folder = gobuild.source_of(gobuild.KEDA) / "config" / "default"
        objects = operators.documents(run([str(binaries.kubectl), "kustomize", folder]))
        objects = [obj for obj in objects if not obj["metadata"]["name"].startswith(_LEFT_OUT)]
        for obj in objects:
            if obj["kind"] == "Deployment":
                _fit(obj, local)
        kinds = [obj for obj in objects if obj["kind"] == "CustomResourceDefinition"]
        operators.apply_kinds(kubectl, "KEDA", NAMESPACE, kinds)
        operators.apply(kubectl, [obj for obj in objects if obj not in kinds])
        wait_for("KEDA", lambda: succeeds(ready), seconds=_PATIENCE, hint=f"pods of {NAMESPACE}")


def _fit(deployment: Json, local: bool) -> None:
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    if "--enable-cert-rotation=true" in container["args"]:
        # It would wait for the webhooks that are left out.
        container["args"].append("--enable-webhook-patching=false")
    container["resources"] = {"requests": {"cpu": "50m", "memory": "128Mi"}}
    for probe in ("readinessProbe", "livenessProbe"):
        container[probe] |= {"initialDelaySeconds": 1, "periodSeconds": 2}
    if local:
        name = _PROGRAMS[deployment["metadata"]["name"]]
        operators.run_ours(pod, _image(name), f"/{name}")
    else:
        container["image"] = f"{container['image'].rpartition(':')[0]}:{KEDA_VERSION}"


def _image(name: str) -> str:
    return f"localhost/fourways-{name}:{KEDA_VERSION}"
