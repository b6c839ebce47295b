"""The kind of cluster for this machine, and why the others are not possible."""

import os
import shutil
from enum import StrEnum
from pathlib import Path

from tools.cluster import debian, gobuild
from tools.cluster.config import Checkout
from tools.cluster.errors import CannotHaveCluster, ClusterError
from tools.cluster.shell import run, succeeds


class Kind(StrEnum):
    """The kinds of cluster, in the order they are tried."""

    GIVEN = "given"
    KIND = "kind"
    LOCAL = "local"


def detect(checkout: Checkout) -> Kind:
    """Return the kind of cluster to use here; raise CannotHaveCluster with the reason if there
    is none."""
    if given_kubeconfig(checkout) is not None:
        return Kind.GIVEN
    if docker_engine():
        return Kind.KIND
    if reason := _local_is_impossible():
        raise CannotHaveCluster(f"no Docker engine responds, and {reason}")
    return Kind.LOCAL


def given_kubeconfig(checkout: Checkout) -> Path | None:
    """The kubeconfig from the environment, unless this package wrote it.

    If users export the path that `up` printed, the cluster is still ours, and we may load images
    into it and end it.
    """
    for name in ("FOURWAYS_KUBECONFIG", "KUBECONFIG"):
        if value := os.environ.get(name):
            path = Path(value)
            return None if path in (checkout.kubeconfig, checkout.kind_kubeconfig) else path
    return None


def docker_engine() -> bool:
    """Whether an engine responds; a docker client on the PATH alone proves nothing."""
    return shutil.which("docker") is not None and succeeds(
        ["docker", "version", "--format", "{{.Server.Version}}"], timeout=10
    )


def _local_is_impossible() -> str:
    if os.geteuid() != 0:
        return "a local cluster needs root: start Docker, or run this as root"
    if shutil.which("apt-get") is None:
        return "a local cluster needs Debian's packages, and there is no apt-get"
    try:
        run([gobuild.go_program(), "version"])
    except ClusterError as error:
        return f"a local cluster is built with Go: {error}"
    if absent := _not_to_be_had():
        return f"apt-get knows no {', '.join(absent)}: add Debian's main archive, apt-get update"
    return ""


def _not_to_be_had() -> list[str]:
    """Missing packages that apt does not know; empty package lists prove nothing."""
    absent = debian.missing_packages()
    if not absent or not any(Path("/var/lib/apt/lists").glob("*_Packages*")):
        return []
    return [package for package in absent if not succeeds(["apt-cache", "show", package])]
