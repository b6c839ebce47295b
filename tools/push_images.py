"""Builds the images and pushes them to a registry, with Docker, Podman or Buildah.

The builds use this machine's package index: the settings of pip and uv are secrets of the build.
Prints the ``helm install`` that uses them. The tag is by default the chart's version, which the
chart uses where its values name none.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from tools.cluster import hostconfig

ROOT = Path(__file__).parents[1]
DOCKERFILE = "runtimes/images/Dockerfile"
TARGETS = ("operator", "runtime", "ray")
DEFAULT = ("operator", "runtime")
"""Ray is needed for ``batch.engine: Ray`` only."""

PROGRAMS = ("docker", "podman", "buildah")
_REGISTRY = re.compile(r"[a-z0-9][a-z0-9.-]*(:[0-9]+)?(/[a-z0-9][a-z0-9._-]*)*")


def version() -> str:
    """Return the chart's version of the program."""
    text = (ROOT / "charts" / "fourways" / "Chart.yaml").read_text("utf-8")
    found = re.search(r'^appVersion: "?([^"\n]+)"?$', text, re.MULTILINE)
    if found is None:
        raise LookupError("Chart.yaml has no appVersion")
    return found[1]


def commands(
    program: str, registry: str, tag: str, targets: list[str], secrets: Mapping[str, Path]
) -> list[list[str]]:
    """Return the commands that build the images, and push them once all are built.

    ``secrets`` are files by the names that the Dockerfile mounts them by.
    """
    names = {target: f"{registry}/fourways-{target}:{tag}" for target in targets}
    given = [word for key, file in secrets.items() for word in ("--secret", f"id={key},src={file}")]
    builds = [
        [program, "build", "--target", target, "--file", DOCKERFILE, *given, "--tag", name, "."]
        for target, name in names.items()
    ]
    return [*builds, *([program, "push", name] for name in names.values())]


def helm_install(registry: str, tag: str, targets: list[str]) -> str:
    """Return the command that installs with these images."""
    values = [f"imageRegistry={registry}"]
    if tag != version():
        values += [f"{t}.image.tag={tag}" for t in targets]
    chosen = " ".join(f"--set {value}" for value in values)
    return f"helm install fourways charts/fourways -n NAMESPACE --create-namespace {chosen}"


def main() -> int:
    """Build and push; return 1 if a command fails and 2 for wrong arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("registry", help="such as registry.example.com/team")
    parser.add_argument("--tag", default="", help="default: the chart's version")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(DEFAULT))
    options = parser.parse_args()
    if not _REGISTRY.fullmatch(options.registry):
        parser.error("REGISTRY is a host and a path, such as registry.example.com/team")
    program = next(filter(shutil.which, PROGRAMS), None)
    if program is None:
        print(f"one of {', '.join(PROGRAMS)} has to be installed", file=sys.stderr)
        return 1
    tag = options.tag or version()
    with TemporaryDirectory(prefix="fourways-images-") as folder:
        secrets = hostconfig.secrets(Path(folder))
        for command in commands(program, options.registry, tag, options.targets, secrets):
            print(" ".join(command), file=sys.stderr)
            if subprocess.run(command, cwd=ROOT).returncode:
                return 1
    print(helm_install(options.registry, tag, options.targets))
    return 0


if __name__ == "__main__":
    sys.exit(main())
