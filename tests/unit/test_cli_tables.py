"""How deployments are shown in a terminal."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from fourways_cli.main import app
from fourways_cli.tables import conditions_of, deployments_table
from tests.kit.cli import CliRunner


def shown(**run: Any) -> str:
    document = {
        "metadata": {"name": "churn"},
        "status": {"mode": "batch", "lastRun": run, "conditions": []},
    }
    console = Console(width=250)
    with console.capture() as captured:
        console.print(deployments_table([document]))
    return captured.get()


def test_a_run_at_work_shows_how_far_it_is() -> None:
    progress = {
        "rows": 5_000,
        "totalRows": 20_000,
        "rejects": 3,
        "rowsPerSecond": 1230.0,
        "estimatedCompletion": "2026-03-02T03:00:15Z",
        "updatedAt": "2026-03-02T03:00:05Z",
    }
    line = shown(outcome="Running", progress=progress)
    assert "Running" in line
    assert "5,000 of 20,000 rows, 1,230 rows/s, 3 rejected, done at about 03:00:15" in line
    early = {"rows": 0, "rejects": 0, "rowsPerSecond": 0.0, "updatedAt": "2026-03-02T03:00:05Z"}
    assert "0 rows, 0 rows/s" in shown(outcome="Running", progress=early)


def test_a_run_that_ended_shows_its_rows() -> None:
    assert "1234" in shown(outcome="Succeeded", finishedAt="2026-03-02T03:00:15Z", rows=1234)


def test_a_cause_that_several_conditions_name_is_shown_once() -> None:
    wrong = "spec.batch.timeZone: 'X' is no time zone"
    conditions = [
        {"type": "SpecValid", "status": "False", "reason": "Invalid", "message": wrong},
        {"type": "Ready", "status": "True", "reason": "Published", "message": "answers come"},
        {"type": "Degraded", "status": "True", "reason": "SpecInvalid", "message": wrong},
    ]
    text = conditions_of({"conditions": conditions})
    assert str(text) == f"Invalid: {wrong}; Ready: answers come"


def test_columns_of_runs_are_shown_only_where_there_is_one() -> None:
    serving = {"metadata": {"name": "wine"}, "status": {"mode": "realtime", "conditions": []}}
    console = Console(width=250)
    with console.capture() as captured:
        console.print(deployments_table([serving]))
    titles, row = captured.get().splitlines()
    assert titles.split() == ["Name", "Mode", "Ready", "Version", "Why"]
    assert row.split() == ["wine", "realtime", "Unknown"]
    assert "Last run" in shown(outcome="Failed", finishedAt="2026-03-02T03:00:15Z")
    assert "Next run" not in shown(outcome="Failed", finishedAt="2026-03-02T03:00:15Z")


@pytest.mark.parametrize("option", ["-n", "--context", "-o", "--kubeconfig"])
def test_an_option_before_its_command_is_told_where_it_belongs(option: str) -> None:
    done = CliRunner().invoke(app, [option, "x", "get"], env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert f"It follows a command: fourways get {option} …" in done.output
    unknown = CliRunner().invoke(app, ["--nosuch", "get"], env={"COLUMNS": "200"})
    assert "It follows a command" not in unknown.output


@pytest.mark.parametrize(
    "words",
    [
        ("init", "nosuch.skops"),
        ("serve", "nosuch.skops"),
        ("convert", "nosuch.skops", "-o", "x.onnx"),
        ("init", __file__, "--sample", "nosuch.csv"),
        ("convert", __file__, "--sample", "nosuch.csv", "-o", "x.onnx"),
    ],
)
def test_a_file_that_is_not_there_is_named(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert "'nosuch." in done.output
    assert "does not exist" in done.output
    assert "Errno" not in done.output
