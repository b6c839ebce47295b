"""What the commands that query a target share: their options, and how failures are reported."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from .embedded.control import HostNotRunning
from .output import FAILED, INVALID
from .targets import ClusterChoice, Target, TargetError, choose_target
from .terminal import warn

T = TypeVar("T")

LONGEST_WAIT_SECONDS = 7 * 24 * 3600.0
"""Maximum of every option that waits: the longest deadline a run can have."""


class ListOutput(StrEnum):
    """How a list of objects is printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


class TableOutput(StrEnum):
    """How an answer that is no list of named objects is printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def _finite(value: float | None) -> float | None:
    # Comparisons with NaN are false, so that a range alone lets it pass.
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a number of seconds")
    return value


def wait_option(text: str, most: float = LONGEST_WAIT_SECONDS) -> typer.models.OptionInfo:
    """Return the option for a number of seconds, from 0 to ``most``."""
    option: typer.models.OptionInfo = typer.Option(
        help=text, min=0.0, max=most, callback=_finite, metavar="SECONDS"
    )
    return option


StateOption = Annotated[Path, typer.Option(help="State folder of `fourways up`.")]
ClusterOption = Annotated[
    bool,
    typer.Option("--cluster", help="Always use the cluster, even if `fourways up` is running."),
]
KubeconfigOption = Annotated[
    Path | None,
    typer.Option(help="The kubeconfig to use, instead of $KUBECONFIG. Implies --cluster."),
]
ContextOption = Annotated[
    str | None,
    typer.Option(help="The context of the kubeconfig to use. Implies --cluster.", metavar="NAME"),
]
NamespaceOption = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        "-n",
        help="Namespace; by default that of the kubeconfig's context.",
        metavar="NAME",
    ),
]
ListOutputOption = Annotated[
    ListOutput, typer.Option("--output", "-o", help="Output format.", case_sensitive=False)
]
TableOutputOption = Annotated[
    TableOutput, typer.Option("--output", "-o", help="Output format.", case_sensitive=False)
]


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a command acts: a target, and a namespace of it."""

    target: Target
    namespace: str


def open_scope(
    namespace: str | None,
    state: Path,
    cluster: bool,
    kubeconfig: Path | None = None,
    context: str | None = None,
) -> Scope:
    """Return the target and the namespace that the options name; ends the command on failure.

    A command opens one scope: on a cluster each is a login.
    """
    choice = ClusterChoice(cluster, kubeconfig, context)
    target = or_exit(lambda: choose_target(state, choice))
    return Scope(target, namespace or or_exit(target.default_namespace))


def or_exit(query: Callable[[], T]) -> T:
    """Return what a query returns; report its failure and end the command otherwise."""
    try:
        return query()
    except (TargetError, HostNotRunning) as error:
        raise failed(str(error)) from None


def failed(message: str) -> typer.Exit:
    """Report what could not be done; return the exception that ends the command with 1."""
    warn(message)
    return typer.Exit(FAILED)


def invalid(message: str) -> typer.Exit:
    """Report invalid input; return the exception that ends the command with 2."""
    warn(message)
    return typer.Exit(INVALID)
