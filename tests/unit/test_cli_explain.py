from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result

from fourways_api import dump_yaml
from fourways_cli.explain import explain
from tests.bad_manifests.cases import good
from tests.kit.cli import CliRunner

app = typer.Typer()
app.command()(explain)


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def run(name: str, *options: str, **requirements: Any) -> Result:
    document = good()[name]
    document["spec"].setdefault("requirements", {}).update(requirements)
    if not document["spec"]["requirements"]:
        del document["spec"]["requirements"]
    return CliRunner().invoke(app, ["-", *options], input=dump_yaml(document))


def test_the_path_to_batch_and_what_would_change_it() -> None:
    result = run("auto-batch")
    assert result.exit_code == 0
    assert "Is the answer needed without a network? no: a network is available" in result.stdout
    assert "for edge: set requirements.offline to true" in result.stdout
    assert "inputs known ahead? yes" in result.stdout
    assert "for another mode: set requirements.inputsKnownAhead to false" in result.stdout
    assert "batch because inputs are known ahead and answers may be 24h old" in result.stdout
    assert "low and bursty" not in result.stdout, "a question after the one that decided"


def test_scaling_to_zero_is_told() -> None:
    result = run("auto-realtime", latency="10s")
    told = "realtime, to scale to zero with realtime.minReplicas: 0, because traffic is low"
    assert told in result.stdout, "the manifest keeps a replica"
    document = good()["auto-realtime"]
    document["spec"]["requirements"]["latency"] = "10s"
    document["spec"]["realtime"] |= {"minReplicas": 0}
    result = CliRunner().invoke(app, ["-"], input=dump_yaml(document))
    assert "realtime, scaled to zero because traffic is low" in result.stdout


def test_an_explicit_mode_and_what_auto_would_have_chosen() -> None:
    result = run("everything", offline=True)
    assert result.exit_code == 0
    assert "batch because spec.mode selects it" in result.stdout
    assert "mode auto would choose edge" in result.stdout
    assert "mode auto would choose the same" in run("everything").stdout
    assert "mode auto would need spec.requirements" in run("smallest").stdout


def test_a_contradiction_is_named_with_the_way_out() -> None:
    result = run("auto-scheduled", staleness="10s")
    assert result.exit_code == 2
    assert "scheduled runs cannot keep answers fresher than one minute" in result.stdout
    assert "set staleness to 1m or more, or set arrival to OnRequest" in result.stderr


def test_the_path_is_drawn_where_only_the_block_is_absent() -> None:
    result = run("auto-batch", inputsKnownAhead=False)
    assert result.exit_code == 2
    assert "inputs known ahead? no: inputs are not known ahead" in result.stdout
    assert "add the block realtime" in result.stderr


def test_json_for_machines() -> None:
    (told,) = json.loads(run("auto-edge", "--output", "json").stdout)
    assert (told["mode"], told["explicit"], told["autoWouldChoose"]) == ("edge", False, "edge")
    assert [(s["mode"], s["answer"]) for s in told["path"]] == [("edge", True)]
    assert told["problems"] == []
    (told,) = json.loads(run("everything", "-o", "json").stdout)
    assert (told["mode"], told["explicit"], told["autoWouldChoose"]) == ("batch", True, "batch")


def test_json_of_a_contradiction() -> None:
    result = run("auto-scheduled", "-o", "json", staleness="10s")
    (told,) = json.loads(result.stdout)
    assert result.exit_code == 2
    assert (told["mode"], told["autoWouldChoose"], told["path"]) == (None, None, [])
    assert told["problems"][0]["field"] == "spec.requirements.staleness"


def test_a_missing_file(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(tmp_path / "absent.yaml")])
    assert result.exit_code == 2
    assert "cannot be read" in result.stderr
