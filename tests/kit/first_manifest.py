"""Calls of ``fourways init``, and what its manifests must hold."""

from __future__ import annotations

from pathlib import Path

from fourways_api import ModelDeployment
from fourways_cli.main import app
from fourways_cli.manifests import read_manifests
from fourways_runtime.scoring.golden import check_vectors, read_vectors
from fourways_runtime.scoring.model import load
from fourways_runtime.scoring.pipeline import Pipeline
from tests.kit.cli import CliRunner


def init(*arguments: str | Path) -> str:
    """Run fourways init; return what it printed."""
    result = CliRunner().invoke(app, ["init", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments: str | Path, code: int = 2) -> str:
    result = CliRunner().invoke(app, ["init", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.stderr


def proven(manifest: Path) -> ModelDeployment:
    """Return the only deployment of a manifest, after it was held against its own model."""
    read = read_manifests([manifest])
    assert not read.findings
    deployment = read.valid[0].deployment
    assert deployment is not None
    contract, model = deployment.spec.contract, deployment.spec.model
    path = Path(model.uri.removeprefix("file://"))
    pipeline = Pipeline(contract, load(path, model, threads=1, external_root=path.parent))
    if contract.golden_vectors is not None:
        golden = Path(contract.golden_vectors.uri.removeprefix("file://"))
        check_vectors(pipeline, read_vectors(golden, contract), contract.golden_vectors)
    return deployment
