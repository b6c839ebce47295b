"""Reading manifests for commands that need valid ModelDeployments."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import typer

from fourways_api import KIND, ModelDeployment, review

from .output import INVALID, Finding, findings_of, read_file


def read_deployments(paths: Iterable[Path]) -> list[ModelDeployment]:
    """Return the valid ModelDeployments of some files; exits with 2 and says why otherwise."""
    paths = list(paths)
    deployments: list[ModelDeployment] = []
    findings: list[Finding] = []
    for path in paths:
        documents, unread = read_file(path)
        findings += unread
        for document in documents:
            if document.is_ours:
                verdict = review(document)
                findings += findings_of(path, document, verdict.problems)
                deployments += [verdict.deployment] if verdict.deployment else []
    for finding in findings:
        typer.echo(str(finding), err=True)
    if not deployments and not findings:
        typer.echo(f"no {KIND} in {', '.join(map(str, paths))}", err=True)
    if findings or not deployments:
        raise typer.Exit(INVALID)
    return deployments
