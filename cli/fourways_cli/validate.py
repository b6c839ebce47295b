"""``fourways validate``: check as the API server and the operator would, before an apply."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fourways_api import KIND

from .manifests import read_manifests
from .output import INVALID, TextOutput, TextOutputOption, print_as, print_findings
from .terminal import say, warn


def validate(
    files: Annotated[list[Path], typer.Argument(help="YAML or JSON files; - is standard input.")],
    output: TextOutputOption = TextOutput.TEXT,
) -> None:
    """Check ModelDeployments by the rules of the API server; name field, fault and fix.

    Exits with 0 when all are valid and with 2 when one is not. Other objects in the files
    (Secrets, claims) are skipped. Paths without a scheme are relative to the file: `fourways up`
    resolves them, a cluster cannot.
    """
    read = read_manifests(files)
    for skipped in read.skipped:
        warn(f"{skipped.file}: {skipped.title} skipped: not a {KIND}")
    if output is TextOutput.TEXT:
        for manifest in read.valid:
            say(f"{manifest.file}: {manifest.title} is valid")
            for note in manifest.notes:
                say(f"{manifest.file}: note: {note}")
            if manifest.relative:
                fields = ", ".join(manifest.relative)
                warn(f"{manifest.file}: {fields}: relative to this file, for `fourways up` only")
        print_findings(read.findings)
    else:
        print_as(output, [f.to_json() for f in read.findings])
    if not read.findings and not read.valid:
        warn(f"no {KIND} in {', '.join(map(str, files))}")
    if read.findings or not read.valid:
        raise typer.Exit(INVALID)
