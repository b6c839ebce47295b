"""The sample policy looks at every field that names a Secret, claim, host, image or priority."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "charts/fourways/samples/authors.yaml"
CRD = ROOT / "crds/fourways.dev_modeldeployments.yaml"
NAMES = {
    "secretName": "secrets",
    "imagePullSecrets": "secrets",
    "priorityClassName": "priorityClasses",
}
PLACES = {
    "uri": ("claims", "hosts"),
    "publish": ("claims", "hosts"),
    "bootstrapServers": ("hosts",),
    "servers": ("hosts",),
    "image": ("refusedImages",),
}


def _fields(schema: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, below in schema.get("properties", {}).items():
        yield (*path, name)
        yield from _fields(below, (*path, name))
    if "items" in schema:
        yield from _fields(schema["items"], (*path, "[]"))


def _named() -> Iterator[tuple[str, str]]:
    version = yaml.safe_load(CRD.read_text())["spec"]["versions"][0]
    for path in _fields(version["schema"]["openAPIV3Schema"]["properties"]["spec"]):
        if path[-2:] == ("[]", "image"):
            continue  # the settings of an input that is a picture
        uses = PLACES.get(path[-1], (NAMES[path[-1]],) if path[-1] in NAMES else ())
        for use in uses:
            yield use, "object.spec" + "".join(f".?{part}" for part in path)


@pytest.mark.parametrize(("use", "expression"), sorted(_named()))
def test_the_policy_looks_at_every_name(use: str, expression: str) -> None:
    variables = {
        one["name"]: "".join(one["expression"].split())
        for document in yaml.safe_load_all(SAMPLE.read_text())
        for one in document["spec"].get("variables", ())
    }
    assert f"?{expression}" in variables[use] or f"+{expression}" in variables[use]


def test_there_are_names_to_look_at() -> None:
    assert len(list(_named())) > 20
