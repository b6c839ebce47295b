"""The workflows that a fork can run name no registry, ask for few rights, and call what exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.kit.yaml_files import load_yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
_HOST = re.compile(r"\b[a-z0-9-]+(?:\.[a-z0-9-]+)*\.(?:io|com|org|dev|net)\b")


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = load_yaml(path.read_text())["jobs"]
    return found


def runs(path: Path) -> list[str]:
    return [s["run"] for job in jobs(path).values() for s in job.get("steps", []) if "run" in s]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_names_no_host_and_asks_for_few_rights(path: Path) -> None:
    assert _HOST.findall(path.read_text()) == []
    document = load_yaml(path.read_text())
    assert document["permissions"] == {"contents": "read"}
    for name, job in document["jobs"].items():
        rights = job.get("permissions", {})
        writes = {key for key, value in rights.items() if value == "write"}
        assert writes <= {"contents", "id-token"}, name
        assert "timeout-minutes" in job or "uses" in job, name
        for step in job.get("steps", []):
            if step.get("uses", "").startswith("actions/checkout"):
                assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_of_others_are_named_by_commit(path: Path) -> None:
    used = re.findall(r"uses: (\S+)(?:  # (\S+))?$", path.read_text(), re.MULTILINE)
    others = [(name, tag) for name, tag in used if not name.startswith("./")]
    assert others
    for name, tag in others:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", name), name
        assert re.fullmatch(r"v\d+\.\d+\.\d+", tag), f"{name}: the comment names its version"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_expression_is_pasted_into_a_shell(path: Path) -> None:
    # The text of a branch, a tag or a variable would be read as commands.
    assert [run for run in runs(path) if "${{" in run] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_what_a_workflow_calls_is_there(path: Path) -> None:
    text = "\n".join(runs(path))
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", text)) <= targets
    for module in re.findall(r"python -m ([a-z_.]+)", text):
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists()
    for word in re.findall(r"(?<![\w./-])(?:tools|\.ci|charts|runtimes)/[A-Za-z0-9_./-]+", text):
        assert (ROOT / word).exists(), word
    stages = re.findall(r" AS (\S+)", (ROOT / "runtimes/images/Dockerfile").read_text())
    for job in jobs(path).values():
        assert set(job.get("strategy", {}).get("matrix", {}).get("target", ())) <= set(stages)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_step_is_a_shell_s(path: Path) -> None:
    for run in runs(path):
        shlex.split(run, comments=True)
