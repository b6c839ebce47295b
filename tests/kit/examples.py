"""The files of the examples: manifests, models, golden vectors."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest

from fourways_api import ModelDeployment, load_documents, parse

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CLAIM = "pvc://fourways-examples/"
MAGIKA_MODEL = "magika/models/standard_v3_3/model.onnx"


def deployment(name: str) -> ModelDeployment:
    (document,) = load_documents((EXAMPLES / f"{name}.yaml").read_text("utf-8"))
    return parse(document)


def located(uri: str) -> Path:
    """Return the file a URI stands for on this machine; magika's model from its package."""
    file = EXAMPLES / "artifacts" / uri.removeprefix(CLAIM)
    made = uri.endswith("file-type/model.onnx")
    return magika_model() if made and not file.is_file() else file


def magika_model() -> Path:
    try:
        return Path(str(distribution("magika").locate_file(MAGIKA_MODEL)))
    except PackageNotFoundError:
        pytest.skip("the package magika is not installed")


def digest(file: Path) -> str:
    return f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"


def vectors(name: str) -> list[dict[str, dict[str, Any]]]:
    golden = deployment(name).spec.contract.golden_vectors
    assert golden is not None
    return [json.loads(line) for line in located(golden.uri).read_text("utf-8").splitlines()]
