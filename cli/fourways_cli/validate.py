"""``fourways validate``: what API server and operator would say, before anything is applied."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fourways_api import KIND, review

from .output import INVALID, Finding, Output, OutputOption, findings_of, print_json, read_file


def validate(
    files: Annotated[list[Path], typer.Argument(help="YAML or JSON files; - is standard input.")],
    output: OutputOption = Output.TEXT,
) -> None:
    """Check ModelDeployments with the rules of the API server: field, fault and fix.

    Exits with 0 when all are valid and with 2 when one is not. Other objects in the files
    (Secrets, claims) are passed over.
    """
    findings: list[Finding] = []
    valid = 0
    for path in files:
        documents, unread = read_file(path)
        findings += unread
        for document in documents:
            if not document.is_ours:
                typer.echo(f"{path}: {document.title} passed over: not a {KIND}", err=True)
                continue
            verdict = review(document)
            found = findings_of(path, document, verdict.problems)
            findings += found
            if not found and output is Output.TEXT:
                typer.echo(f"{path}: {document.title} is valid")
                for note in verdict.notes:
                    typer.echo(f"{path}: note: {note}")
            valid += not found
    if output is Output.JSON:
        print_json([f.to_json() for f in findings])
    else:
        for finding in findings:
            typer.echo(str(finding), err=True)
    if not findings and not valid:
        typer.echo(f"no {KIND} in {', '.join(map(str, files))}", err=True)
    if findings or not valid:
        raise typer.Exit(INVALID)
