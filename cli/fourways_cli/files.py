"""Reading manifests for commands that need valid ModelDeployments."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import typer

from fourways_api import KIND, InvalidSpec, ModelDeployment, check, load_documents, parse

INVALID = 2
"""Exit code of a command given something invalid."""


def read_text(path: Path) -> str:
    """Return a file's text, or standard input's for ``-``; exits with 2 where there is none."""
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        typer.echo(f"{path}: cannot be read ({error})", err=True)
        raise typer.Exit(INVALID) from None


def read_deployments(paths: Iterable[Path]) -> list[ModelDeployment]:
    """Return the valid ModelDeployments of some files; exits with 2 and says why otherwise."""
    deployments = []
    for path in paths:
        try:
            documents = load_documents(read_text(path))
            for document in documents:
                if document.get("kind") == KIND:
                    deployment = parse(document)
                    check(deployment)
                    deployments.append(deployment)
        except InvalidSpec as error:
            for problem in error.problems:
                typer.echo(f"{path}: {problem}", err=True)
            raise typer.Exit(INVALID) from None
    if not deployments:
        typer.echo(f"no {KIND} in {', '.join(map(str, paths))}", err=True)
        raise typer.Exit(INVALID)
    return deployments
