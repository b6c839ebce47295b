"""The sample policy looks at every field that names a Secret, claim, host, image or priority."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.kit.yaml_files import load_every_yaml, load_yaml

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
    version = load_yaml(CRD.read_text())["spec"]["versions"][0]
    for path in _fields(version["schema"]["openAPIV3Schema"]["properties"]["spec"]):
        if path[-2:] == ("[]", "image"):
            continue  # the settings of an input that is a picture
        uses = PLACES.get(path[-1], (NAMES[path[-1]],) if path[-1] in NAMES else ())
        for use in uses:
            yield use, "object.spec" + "".join(f".?{part}" for part in path)


def test_the_policy_looks_at_every_name() -> None:
    variables = {
        one["name"]: "".join(one["expression"].split())
        for document in load_every_yaml(SAMPLE.read_text())
        for one in document["spec"].get("variables", ())
    }
    named = list(_named())
    assert len(named) > 20
    assert [
        f"{use}: {expression}"
        for use, expression in named
        if f"?{expression}" not in variables[use] and f"+{expression}" not in variables[use]
    ] == []
