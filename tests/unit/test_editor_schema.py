"""The schema for editors: it takes every example, and marks what is misspelled or mistyped."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from fourways_api.editor_schema import HEADER, SCHEMA_FILE, manifest_schema
from tests.kit.lazy import LazyModule

jsonschema = LazyModule("jsonschema")

EXAMPLES = Path(__file__).parents[2] / "examples"
MANIFESTS = sorted(EXAMPLES.glob("**/*.yaml"))


@pytest.fixture(scope="module")
def schema() -> Any:
    return jsonschema.Draft202012Validator(manifest_schema())


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.stem)
def test_every_example_names_the_schema_and_fits_it(manifest: Path, schema: Any) -> None:
    text = manifest.read_text("utf-8")
    first = text.partition("\n")[0]
    assert first.startswith(HEADER)
    assert (manifest.parent / first.removeprefix(HEADER)).resolve() == SCHEMA_FILE.resolve()
    for document in yaml.safe_load_all(text):
        schema.validate(document)


def changed(path: str, value: Any) -> Any:
    document = copy.deepcopy(yaml.safe_load((EXAMPLES / "churn.yaml").read_text("utf-8")))
    *folders, last = path.split(".")
    part = document
    for folder in folders:
        part = part[folder]
    part[last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.modes", "batch"),
        ("spec.mode", "batches"),
        ("spec.batch.sourc", {}),
        ("spec.batch.workers", "two"),
        ("spec.model.digest", "sha256:1"),
        ("spec.contract.inputs", [{"name": "x", "typ": "float32"}]),
        ("kind", "Deployment"),
    ],
)
def test_what_is_wrong_is_marked(path: str, value: Any, schema: Any) -> None:
    assert schema.is_valid(changed("spec.batch.workers", 2))
    assert not schema.is_valid(changed(path, value))


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(manifest_schema())
