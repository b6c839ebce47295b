"""Shared code for installing a third-party operator whose files are included in its Go module."""

import json
from pathlib import Path
from typing import Any

import yaml

from tools.cluster.config import PACKAGE
from tools.cluster.gobuild import go_program
from tools.cluster.shell import run, succeeds, wait_for

PATIENCE = 120.0

Json = dict[str, Any]


def module_folder(module: str) -> Path:
    """Return the folder with a Go module's files; download it if necessary."""
    told = run(
        [go_program(), "mod", "download", "-json", module],
        cwd=PACKAGE / "go",
        env={"GOWORK": "off", "GOFLAGS": ""},
    )
    return Path(json.loads(told)["Dir"])


def documents(text: str) -> list[Json]:
    """Return the objects of a rendered chart or kustomization."""
    return [document for document in yaml.safe_load_all(text) if document]


def apply(kubectl: list[str], objects: list[Json]) -> None:
    """Apply objects."""
    # Client-side apply keeps a copy in an annotation, which is too small for CRDs.
    server_side = [*kubectl, "apply", "--server-side", "--force-conflicts", "-f", "-"]
    run(server_side, input_text=yaml.safe_dump_all(objects))


def apply_kinds(kubectl: list[str], what: str, namespace: str, kinds: list[Json]) -> None:
    """Create a namespace and CRDs, and wait until objects of these kinds can be created."""
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    apply(kubectl, [made, *kinds])
    names = [f"crd/{kind['metadata']['name']}" for kind in kinds]
    # Immediately after creation, kubectl fails because the conditions do not exist yet.
    established = [*kubectl, "wait", "--for=condition=Established", *names, "--timeout=5s"]
    wait_for(f"{what}'s kinds", lambda: succeeds(established), seconds=PATIENCE)


def rolled_out(kubectl: list[str], namespace: str, name: str) -> bool:
    """Return whether a Deployment's pods are all of its present version, and ready."""
    status = ["rollout", "status", f"deployment/{name}", "--timeout=5s"]
    return succeeds([*kubectl, "-n", namespace, *status])


def await_operator(
    kubectl: list[str], what: str, namespace: str, name: str, seconds: float
) -> None:
    """Wait until an operator's Deployment is rolled out. Raises ClusterError."""
    wait_for(
        what,
        lambda: rolled_out(kubectl, namespace, name),
        seconds=seconds,
        hint=f"the pods of {namespace}",
    )


def run_ours(pod: Json, image: str, program: str) -> None:
    """Make a pod's first container run the image of a program that was built here."""
    pod["containers"][0] |= {"image": image, "imagePullPolicy": "Never", "command": [program]}
    # Such an image has no user.
    pod["securityContext"]["runAsUser"] = 65532
