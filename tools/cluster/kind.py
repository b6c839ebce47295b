"""The cluster on machines with Docker: kind, with the project's kind-config.yaml."""

import os
import shutil
from pathlib import Path

import yaml

from tools.cluster.config import Checkout, cache_root
from tools.cluster.errors import ClusterError
from tools.cluster.gobuild import go_program
from tools.cluster.shell import run, step

_KIND = "sigs.k8s.io/kind@v0.30.0"


def up(checkout: Checkout) -> None:
    """Start the cluster; use it unchanged if it exists."""
    kind, name = _program(), _name(checkout)
    checkout.kind_kubeconfig.parent.mkdir(parents=True, exist_ok=True)
    to_kubeconfig = ["--name", name, "--kubeconfig", str(checkout.kind_kubeconfig)]
    if running(checkout):
        run([kind, "export", "kubeconfig", *to_kubeconfig])
        return
    with step("kind create cluster"):
        config = ["--config", str(checkout.root / "kind-config.yaml"), "--wait", "180s"]
        run([kind, "create", "cluster", *to_kubeconfig, *config])


def down(checkout: Checkout) -> None:
    """Delete the cluster and its kubeconfig."""
    with step("kind delete cluster"):
        run([_program(), "delete", "cluster", "--name", _name(checkout)])
    checkout.kind_kubeconfig.unlink(missing_ok=True)


def running(checkout: Checkout) -> bool:
    """Whether kind has a cluster of our name."""
    return _name(checkout) in run([_program(), "get", "clusters"]).split()


def load(checkout: Checkout, references: list[str]) -> None:
    """Copy images from Docker to the cluster's node."""
    run([_program(), "load", "docker-image", "--name", _name(checkout), *references])


def _name(checkout: Checkout) -> str:
    config = yaml.safe_load((checkout.root / "kind-config.yaml").read_text(encoding="utf-8"))
    return str(config["name"])


def _program() -> Path:
    """The kind on the PATH, or one built with Go into the cache."""
    if found := shutil.which("kind"):
        return Path(found)
    folder = cache_root() / "bin" / _KIND.replace("/", "_")
    if not (folder / "kind").exists():
        if shutil.which("go") is None:
            raise ClusterError("kind is missing: install it, or Go for this command to build it")
        with step(f"go install {_KIND}"):
            env = {
                "GOBIN": str(folder),
                "CGO_ENABLED": "0",
                "GOFLAGS": os.environ.get("GOFLAGS", ""),
            }
            run([go_program(), "install", _KIND], env=env)
    return folder / "kind"
