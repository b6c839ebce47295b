"""What having somebody else's operator takes, whose files come inside its Go module."""

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
    """Return where a Go module's files are; downloads it where need be."""
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
    # Client-side apply keeps a copy in an annotation, and kinds' definitions do not fit into one.
    server_side = [*kubectl, "apply", "--server-side", "--force-conflicts", "-f", "-"]
    run(server_side, input_text=yaml.safe_dump_all(objects))


def apply_kinds(kubectl: list[str], what: str, namespace: str, kinds: list[Json]) -> None:
    """Make a namespace and kinds, and wait until objects of those can be."""
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    apply(kubectl, [made, *kinds])
    names = [f"crd/{kind['metadata']['name']}" for kind in kinds]
    # Asked right after they were made, kubectl stumbles over conditions that are not there yet.
    established = [*kubectl, "wait", "--for=condition=Established", *names, "--timeout=5s"]
    wait_for(f"{what}'s kinds", lambda: succeeds(established), seconds=PATIENCE)


def run_ours(pod: Json, image: str, program: str) -> None:
    """Have a pod's first container run the image of one program that was built here."""
    pod["containers"][0] |= {"image": image, "imagePullPolicy": "Never", "command": [program]}
    # Such an image names no user.
    pod["securityContext"]["runAsUser"] = 65532
