"""What commands that ask a target share: their options, and how what cannot be done is said."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console

from .embedded.control import HostNotRunning
from .targets import Target, TargetError, choose_target

# What reads a pipe is not 80 characters wide: there nothing is cut.
console = Console(width=None if sys.stdout.isatty() else 200)

T = TypeVar("T")

StateOption = Annotated[Path, typer.Option(help="State folder of `fourways up`.")]
ClusterOption = Annotated[bool, typer.Option("--cluster", help="Ask the cluster in any case.")]
NamespaceOption = Annotated[str, typer.Option("--namespace", "-n", help="Namespace.")]
OutputOption = Annotated[str, typer.Option("--output", "-o", help="table or json.")]


def asking(question: Callable[[Target], T], state: Path, cluster: bool) -> T:
    """Ask whatever target there is; what could not be answered is said, and ends the command."""
    return told(lambda: question(choose_target(state, cluster)))


def told(question: Callable[[], T]) -> T:
    """Ask; what could not be answered is said, and ends the command."""
    try:
        return question()
    except (TargetError, HostNotRunning) as error:
        raise failed(str(error)) from None


def failed(message: str) -> typer.Exit:
    """Say what is wrong; return what ends the command."""
    typer.echo(message, err=True)
    return typer.Exit(1)
