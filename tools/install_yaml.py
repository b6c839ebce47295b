"""Renders the chart as one file: ``kubectl apply --server-side -f install.yaml``.

The file is made for a release, from the registry and the digests of its images, and not committed:
it repeats the chart. Its operator watches the whole cluster, because a file has no values to say
else.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from fourways_api import dump_yaml
from tools.installation import program

ROOT = Path(__file__).parents[1]
CHART = ROOT / "charts" / "fourways"
NAMESPACE = "fourways-system"
IMAGES = ("operator", "runtime", "ray")
_DIGEST = re.compile(r"([a-z]+)=(sha256:[0-9a-f]{64})")
_RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def rendered(helm: str, *options: str, skip_tests: bool = True) -> list[dict[str, Any]]:
    """Return the objects of the chart with these options, by default without its tests."""
    command = [helm, "template", "fourways", str(CHART), "-n", NAMESPACE, *options]
    command += ["--skip-tests"] if skip_tests else []
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def install_objects(
    helm: str, registry: str = "", digests: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """Return the objects of an installation, its namespace first.

    ``registry`` is where the images are; ``digests`` are theirs by image.
    """
    options = ["--set", "watch.cluster=true"]
    for name in IMAGES:
        if registry:
            options += ["--set", f"{name}.image.repository={registry}/fourways-{name}"]
        if digest := (digests or {}).get(name):
            options += ["--set", f"{name}.image.digest={digest}"]
    metadata = {"name": NAMESPACE, "labels": _RESTRICTED}
    objects = [_without_helm(each) for each in rendered(helm, *options)]
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}, *objects]


def images_of(objects: list[dict[str, Any]]) -> list[str]:
    """Return the images that objects name: of containers, and in the operator's environment."""
    found: set[str] = set()
    for each in objects:
        template = (each.get("spec") or {}).get("template") or {}
        for container in (template.get("spec") or {}).get("containers") or []:
            found.add(container["image"])
            variables = {v["name"]: v.get("value", "") for v in container.get("env") or []}
            found |= {v for name, v in variables.items() if name.endswith("_IMAGE") and v}
    return sorted(found)


def pinned(values: str, registry: str, digests: dict[str, str]) -> str:
    """Return the text of the chart's values with the images of a release as the defaults."""
    for name in IMAGES:
        old = f'repository: fourways-{name}, tag: "", digest: ""'
        new = f'repository: {registry}/fourways-{name}, tag: "", digest: "{digests[name]}"'
        if values.count(old) != 1:
            raise LookupError(f"values.yaml has no {old}")
        values = values.replace(old, new)
    return values


def _without_helm(document: dict[str, Any]) -> dict[str, Any]:
    labels = document["metadata"].get("labels") or {}
    labels.pop("helm.sh/chart", None)
    annotations = document["metadata"].get("annotations") or {}
    annotations.pop("helm.sh/resource-policy", None)
    if not annotations:
        document["metadata"].pop("annotations", None)
    return document


def _digest(text: str) -> tuple[str, str]:
    found = _DIGEST.fullmatch(text)
    if found is None or found[1] not in IMAGES:
        raise argparse.ArgumentTypeError(f"write {'|'.join(IMAGES)}=sha256:HEX, not {text}")
    return found[1], found[2]


def main() -> int:
    """Write the file, the list of images that it and trials pull, or the chart's values."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--registry", default="", help="registry and path of the images")
    parser.add_argument(
        "--digest", type=_digest, action="append", default=[], metavar="NAME=DIGEST"
    )
    parser.add_argument("--images", action="store_true", help="list the images instead")
    parser.add_argument(
        "--pin", action="store_true", help="write them into the chart's values instead"
    )
    parser.add_argument("--out", type=Path, default=None, help="file; default: standard output")
    options = parser.parse_args()
    if options.pin:
        values = CHART / "values.yaml"
        text = pinned(values.read_text("utf-8"), options.registry, dict(options.digest))
        values.write_text(text, encoding="utf-8")
        return 0
    helm = program("helm")
    objects = install_objects(helm, options.registry, dict(options.digest))
    if options.images:
        trials = ("trialPostgresql.enabled=true", "trialNats.enabled=true")
        every = rendered(helm, *(word for trial in trials for word in ("--set", trial)))
        servers = [each for each in every if "-trial-" in each["metadata"]["name"]]
        text = "\n".join(images_of([*objects, *servers])) + "\n"
    else:
        text = dump_yaml(*objects)
    if options.out is None:
        sys.stdout.write(text)
    else:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
