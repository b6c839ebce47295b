"""The commands and blocks of the documents are valid: options exist, manifests validate."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from fourways_api import check, parse
from fourways_cli.main import app
from tools.installation import ROOT

DOCUMENTS = sorted(
    path
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
    if "decisions" not in path.parts and path.name != "CHANGELOG.md"
)
_BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`(fourways [a-z][^`\n]*)`")
COMMANDS: Any = typer.main.get_command(app)


def blocks(path: Path, *languages: str) -> list[str]:
    return [text for kind, text in _BLOCK.findall(path.read_text("utf-8")) if kind in languages]


def commands(path: Path) -> Iterator[list[str]]:
    """Yield the words of each ``fourways`` command on a page."""
    text = path.read_text("utf-8")
    lines = [line for block in blocks(path, "sh", "") for line in _logical(block)]
    for line in [*lines, *_INLINE.findall(text)]:
        for part in re.split(r"\s\|\s|&&|;|\$\(", line.split(" #")[0]):
            words = _words(part)
            if words[:1] == ["fourways"] and len(words) > 1 and re.fullmatch("[a-z-]+", words[1]):
                yield words[1:]


def _logical(block: str) -> list[str]:
    return block.replace("\\\n", " ").splitlines()


def _words(part: str) -> list[str]:
    try:
        return shlex.split(part.strip())
    except ValueError:
        return []


def _unknown(words: list[str]) -> str:
    """Return the first word that the command line does not know; empty if it knows all."""
    command = COMMANDS
    for at, word in enumerate(words):
        if hasattr(command, "commands"):
            if word not in command.commands:
                return f"fourways {' '.join(words[: at + 1])}"
            command = command.commands[word]
        elif word.startswith("-") and len(word) > 1:
            known = {
                name for param in command.params for name in (*param.opts, *param.secondary_opts)
            }
            for option in re.split(r"[|\]]", word.split("=")[0]):
                if option.startswith("-") and option not in {*known, "--help", "-h"}:
                    return f"{word} of fourways {' '.join(words)}"
    return ""


def _names(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", DOCUMENTS, ids=_names)
def test_commands_and_options_exist(path: Path) -> None:
    assert [unknown for words in commands(path) if (unknown := _unknown(words))] == []


def test_there_are_commands_to_look_at() -> None:
    assert sum(len(list(commands(path))) for path in DOCUMENTS) > 60


@pytest.mark.parametrize("path", DOCUMENTS, ids=_names)
def test_make_has_the_targets(path: Path) -> None:
    rules = re.findall(r"^([a-z -]+):", (ROOT / "Makefile").read_text(), re.M)
    targets = {word for rule in rules for word in rule.split()}
    text = path.read_text("utf-8")
    named = set(re.findall(r"`make ([a-z-]+)`", text))
    named |= {
        m for block in blocks(path, "sh") for m in re.findall(r"^make ([a-z-]+)", block, re.M)
    }
    assert named - targets == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=_names)
def test_manifests_are_valid(path: Path) -> None:
    for block in blocks(path, "yaml"):
        for document in yaml.safe_load_all(block):
            if isinstance(document, dict) and document.get("kind") == "ModelDeployment":
                check(parse(document))


@pytest.mark.parametrize("path", DOCUMENTS, ids=_names)
def test_programs_compile_and_json_is_json(path: Path) -> None:
    for block in blocks(path, "python"):
        ast.parse(block)
    for block in blocks(path, "json"):
        json.loads(block)
