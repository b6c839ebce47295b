"""`fourways init` once more: over an earlier draft, and with keys that only look like numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fourways_api import Contract
from fourways_cli.main import app
from fourways_cli.manifests import read_manifests
from tests.kit.batch_world import doubling
from tests.kit.cli import CliRunner


def _drafted(folder: Path, *more: str, code: int = 0, **columns: list[Any]) -> str:
    """Draft for a model of two columns without names, from a table; return what is said."""
    (folder / "m.onnx").write_bytes(doubling())
    lines = zip(*columns.values(), strict=True)
    rows = [",".join(columns), *(",".join(map(str, row)) for row in lines)]
    (folder / "t.csv").write_text("\n".join(rows) + "\n")
    named = ("--sample", str(folder / "t.csv"), "-o", str(folder / "m.yaml"))
    done = CliRunner().invoke(app, ["init", str(folder / "m.onnx"), *named, *more])
    assert done.exit_code == code, done.output
    return done.output


def _contract(folder: Path) -> Contract:
    read = read_manifests([folder / "m.yaml"])
    assert not read.findings
    deployment = read.valid[0].deployment
    assert deployment is not None
    return deployment.spec.contract


def test_a_key_with_zeros_before_it_is_a_text_and_no_input(tmp_path: Path) -> None:
    codes = [f"{at:05d}" for at in range(120)]
    _drafted(tmp_path, kunde=codes, age=[*range(120)], spend=[0.5] * 120)
    contract = _contract(tmp_path)
    assert (contract.entity_key.name, contract.entity_key.type) == ("kunde", "string")
    assert [field.name for field in contract.inputs] == ["age", "spend"]


def test_a_profile_of_an_earlier_draft_is_replaced(tmp_path: Path) -> None:
    ids = [f"k{at}" for at in range(120)]
    values = [*range(120)]
    _drafted(tmp_path, id=ids, age=values, spend=values)
    said = _drafted(tmp_path, code=1, id=ids, alter=values, umsatz=values)
    assert "m.profile.json" in said
    assert "give --force" in said
    _drafted(tmp_path, "--force", id=ids, alter=values, umsatz=values)
    assert [field.name for field in _contract(tmp_path).inputs] == ["alter", "umsatz"]


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("My Model", ": --name my-model"),
        ("2nd", ": --name model-2nd"),
        ("churn_v2\n", ": --name churn-v2"),
        ("a" * 44, f": --name {'a' * 43}"),
        ("-", "start with a letter"),
    ],
)
@pytest.mark.parametrize("command", ["init", "serve"])
def test_a_bad_name_is_refused_with_its_fix_before_the_model_is_read(
    tmp_path: Path, command: str, name: str, fix: str
) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no model")
    named = ["--name", name, str(tmp_path / "m.onnx")]
    done = CliRunner().invoke(app, [command, *named], env={"COLUMNS": "400"})
    assert done.exit_code == 2
    assert "is no name of a deployment" in done.output
    assert fix in done.output
