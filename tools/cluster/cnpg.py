"""CloudNativePG's operator on the cluster, from its Go module.

On our own cluster it is the program built here; on kind it is the image that its files name. Its
instances run the image that a Cluster names; INSTANCE_IMAGE is one for our own cluster.
"""

from pathlib import Path

from tools.cluster import archive, gobuild, node, operators
from tools.cluster.config import CNPG_VERSION, Checkout
from tools.cluster.detect import Kind
from tools.cluster.errors import ClusterError
from tools.cluster.operators import Json
from tools.cluster.shell import step, succeeds

NAMESPACE = "cnpg-system"
INSTANCE_IMAGE = "localhost/fourways-postgres:15"
"""The image of the trial PostgreSQL, with a tag from which CloudNativePG reads the version."""

_NAME = "cnpg-controller-manager"
_KIND = "clusters.postgresql.cnpg.io"
_IMAGE = f"localhost/fourways-cloudnative-pg:{CNPG_VERSION}"
_PATIENCE = 120.0


def install(checkout: Checkout, which: Kind, kubeconfig: Path) -> None:
    """Install the operator and wait for it. A given cluster must already have it."""
    binaries = gobuild.build()
    kubectl = [str(binaries.kubectl), "--kubeconfig", str(kubeconfig)]
    if which is Kind.GIVEN:
        if not succeeds([*kubectl, "get", _KIND, "-A"]):
            raise ClusterError(f"this cluster has no CloudNativePG: install {CNPG_VERSION}")
        return
    if operators.rolled_out(kubectl, NAMESPACE, _NAME):
        return
    with step(f"CloudNativePG {CNPG_VERSION}"):
        if which is Kind.LOCAL:
            # It looks for the programs of all architectures that its instances may have.
            links = [f"operator/manager_{archive.architecture()}"]
            manager = gobuild.build_own(gobuild.CNPG).path("manager")
            node.load_binary(checkout, _IMAGE, manager, links)
            node.tag(checkout, "localhost/fourways-postgres:dev", INSTANCE_IMAGE)
        released = gobuild.source_of(gobuild.CNPG) / "releases" / f"cnpg-{CNPG_VERSION}.yaml"
        objects = operators.documents(released.read_text("utf-8"))
        kinds = [obj for obj in objects if obj["kind"] == "CustomResourceDefinition"]
        operators.apply_kinds(kubectl, "CloudNativePG", NAMESPACE, kinds)
        for obj in objects:
            if obj["kind"] == "Deployment":
                _fit(obj["spec"]["template"]["spec"], which is Kind.LOCAL)
        operators.apply(kubectl, [obj for obj in objects if obj not in kinds])
        operators.await_operator(kubectl, "CloudNativePG", NAMESPACE, _NAME, _PATIENCE)


def _fit(pod: Json, local: bool) -> None:
    (container,) = pod["containers"]
    # Its own limit of a tenth of a core is too little beside other tests.
    container["resources"] = {"requests": {"cpu": "20m", "memory": "64Mi"}}
    if local:
        operators.run_ours(pod, _IMAGE, "/manager")
        (image,) = (each for each in container["env"] if each["name"] == "OPERATOR_IMAGE_NAME")
        image["value"] = _IMAGE
