"""Shared code of validate, explain, plan and up: read files, and report problems by line."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .terminal import print_json, print_yaml, warn

if TYPE_CHECKING:
    from fourways_api import Document, Problem

FAILED = 1
"""Exit code of a command that failed."""

INVALID = 2
"""Exit code of a command with invalid input."""


class TextOutput(StrEnum):
    """How findings are printed."""

    TEXT = "text"
    JSON = "json"
    YAML = "yaml"


TextOutputOption = Annotated[
    TextOutput,
    typer.Option(
        "--output", "-o", help="text for people, json or yaml for programs.", case_sensitive=False
    ),
]


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem and its place."""

    file: str
    document: str
    line: int | None
    problem: Problem

    def __str__(self) -> str:
        """Return the finding on one line, with its place in a form that editors can jump to."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        message = f"{self.problem.fault}; {self.problem.fix}"
        concerns_text = self.problem.field in {"file", f"line {self.line}"}
        return f"{place}: {message}" if concerns_text else f"{place}: {self.problem}"

    def to_json(self) -> dict[str, Any]:
        """Return the finding as plain data."""
        place = {"file": self.file, "document": self.document, "line": self.line}
        return place | self.problem.to_json()


MAX_MANIFEST_BYTES = 8 * 2**20
"""A larger file is most likely no manifest but a model or a table: it would be parsed for minutes.
The API server takes objects of 1.5 MiB."""


def read_file(path: Path) -> tuple[list[Document], list[Finding]]:
    """Return a file's documents (``-`` is standard input), or the reasons there are none."""
    # Most commands that end with an exit code read no manifest.
    from fourways_api import InvalidSpec, Problem, read_documents

    try:
        if str(path) == "-":
            raw = sys.stdin.buffer.read(MAX_MANIFEST_BYTES + 1)
        else:
            with path.open("rb") as file:
                raw = file.read(MAX_MANIFEST_BYTES + 1)
        if len(raw) > MAX_MANIFEST_BYTES:
            fault = f"is larger than {MAX_MANIFEST_BYTES >> 20} MiB"
            large = Problem("file", fault, "name a manifest, or divide it into several files")
            return [], [Finding(str(path), "", None, large)]
        return read_documents(raw.decode()), []
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        unread = Problem("file", f"cannot be read: {why}", "check the path")
        return [], [Finding(str(path), "", None, unread)]
    except InvalidSpec as error:
        return [], [Finding(str(path), "", _line_in(p), p) for p in error.problems]


def findings_of(path: Path, document: Document, problems: Iterable[Problem]) -> list[Finding]:
    """Return the problems of a document with their lines."""
    return [
        Finding(str(path), document.title, _line_in(p) or document.line(p.field), p)
        for p in problems
    ]


def print_findings(findings: Iterable[Finding]) -> None:
    """Print findings to standard error, one per line."""
    for finding in findings:
        warn(str(finding))


def print_as(output: TextOutput, data: object) -> None:
    """Print plain data as JSON or YAML."""
    if output is TextOutput.YAML:
        print_yaml(data)
    else:
        print_json(data)


def _line_in(problem: Problem) -> int | None:
    """Return the line of a problem of the text itself, whose field is ``line N``."""
    word, _, number = problem.field.partition(" ")
    return int(number) if word == "line" and number.isdecimal() else None
