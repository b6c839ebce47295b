from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from click.testing import Result

from fourways_cli.validate import validate
from tests.bad_manifests.cases import HERE
from tests.kit.cli import CliRunner

GOOD = (HERE / "good.yaml").read_text()
SECRET = "apiVersion: v1\nkind: Secret\nmetadata: {name: keys}\n"

app = typer.Typer()
app.command()(validate)


def run(*arguments: str | Path, stdin: str = "") -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    path = tmp_path / "wrong.yaml"
    path.write_text(
        SECRET + "---\n" + GOOD.replace("type: float32, column: 1", "type: float, column: 1")
    )
    return path


def test_valid_files_exit_with_0() -> None:
    result = run(HERE / "good.yaml")
    assert result.exit_code == 0
    assert "ModelDeployment batch is valid" in result.stdout
    assert result.stderr == ""


def test_a_wrong_field_is_told_with_its_line(wrong: Path) -> None:
    result = run(wrong)
    assert result.exit_code == 2
    line = 1 + wrong.read_text().splitlines().index(
        "    - {name: churn, type: float, column: 1, range: {min: 0, max: 1}}"
    )
    assert (
        f"{wrong}:{line}: spec.contract.outputs[0].type: 'float' is not an allowed value"
        in result.stderr
    )
    assert "Secret keys skipped" in result.stderr
    assert "ModelDeployment kafka is valid" in result.stdout


def test_json_for_machines(wrong: Path) -> None:
    result = run(wrong, "--output", "json")
    assert result.exit_code == 2
    (finding,) = json.loads(result.stdout)
    assert set(finding) == {"file", "document", "line", "field", "fault", "fix"}
    assert finding["document"] == "ModelDeployment batch"
    assert finding["field"] == "spec.contract.outputs[0].type"


def test_json_of_valid_files_is_an_empty_list() -> None:
    result = run(HERE / "good.yaml", "-o", "json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, [])


def test_standard_input() -> None:
    assert run("-", stdin=GOOD).exit_code == 0
    result = run("-", stdin="a: [")
    assert result.exit_code == 2
    assert result.stderr.startswith("-:1: not YAML: ")


def test_a_missing_file_does_not_hide_the_others(wrong: Path, tmp_path: Path) -> None:
    result = run(tmp_path / "absent.yaml", wrong)
    assert result.exit_code == 2
    assert "absent.yaml: cannot be read: No such file" in result.stderr
    assert "outputs[0].type" in result.stderr


@pytest.mark.parametrize("text", ["", SECRET])
def test_files_without_a_deployment_are_not_valid(tmp_path: Path, text: str) -> None:
    path = tmp_path / "none.yaml"
    path.write_text(text)
    result = run(path)
    assert result.exit_code == 2
    assert "no ModelDeployment in" in result.stderr


def test_what_only_the_operator_can_refuse_is_refused_here(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(GOOD.replace("Europe/Berlin", "Europe/Atlantis"))
    result = run(path)
    assert result.exit_code == 2
    assert "'Europe/Atlantis' is not a time zone" in result.stderr


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin1.yaml"
    path.write_bytes("name: größe".encode("latin-1"))
    assert "not UTF-8" in run(path).stderr


def test_a_file_that_is_no_manifest_is_refused_by_its_size(tmp_path: Path) -> None:
    table = tmp_path / "customers.csv"
    table.write_text("id,x\n" + "a,1\n" * 2_200_000)
    result = run(table)
    assert result.exit_code == 2
    assert "customers.csv: is larger than 8 MiB; name a manifest" in result.output
