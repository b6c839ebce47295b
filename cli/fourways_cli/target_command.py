"""Shared code of the commands that query a target: options, and reports of failures."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, TypeVar

import typer

from .embedded.control import STATE, HostNotRunning
from .output import FAILED, INVALID
from .targets import ClusterChoice, Target, TargetError, choose_target
from .terminal import print_json, print_table, print_yaml, say, warn

if TYPE_CHECKING:
    from rich.table import Table

    from .targets import ClusterTarget

T = TypeVar("T")
P = ParamSpec("P")

LONGEST_WAIT_SECONDS = 7 * 24 * 3600.0
"""Maximum of all options for waiting: the longest deadline that a run can have."""


class ListOutput(StrEnum):
    """How a list of objects is printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


class TableOutput(StrEnum):
    """How a result that is not a list of named objects is printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def _finite(value: float | None) -> float | None:
    # Comparisons with NaN are false, so a range check alone lets it pass.
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
    """Where a command acts: a target and one of its namespaces."""

    target: Target
    namespace: str

    @property
    def where(self) -> str:
        """The words that tell people where a command acts."""
        return self.target.where(self.namespace)

    def cluster(self, verb: str) -> ClusterTarget:
        """Return the cluster; end the command if it acts on the host, which reads files."""
        from .targets import ClusterTarget

        if isinstance(self.target, ClusterTarget):
            return self.target
        raise failed(
            f"{self.where} runs the manifest files that it was given: edit them, and it reloads "
            f"them. To {verb} on a cluster, add --cluster"
        )


def given(
    opener: Callable[..., T],
) -> Callable[[Callable[Concatenate[T, P], None]], Callable[..., None]]:
    """Return a decorator that gives a command what ``opener`` returns as its first argument.

    The options of ``opener`` follow the command's own, so that all commands have the same ones.
    """
    options = inspect.signature(opener, eval_str=True).parameters

    def decorated(command: Callable[Concatenate[T, P], None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        _, *own = signature.parameters.values()

        @functools.wraps(command)
        def opened(**values: Any) -> None:
            argument = opener(**{name: values.pop(name) for name in options})
            # Typer passes every argument by name, which ParamSpec cannot say.
            command(argument, **values)  # type: ignore[call-arg]

        # Typer reads a command's options from its signature.
        opened.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*own, *options.values()]
        )
        return opened

    return decorated


def open_target(
    state: StateOption = STATE,
    cluster: ClusterOption = False,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> Target:
    """Return the target that the options name; end the command on failure."""
    choice = ClusterChoice(cluster, kubeconfig, context)
    return or_exit(lambda: choose_target(state, choice))


def open_scope(
    namespace: NamespaceOption = None,
    state: StateOption = STATE,
    cluster: ClusterOption = False,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> Scope:
    """Return the target and namespace that the options name; end the command on failure.

    A command opens only one scope, since on a cluster each one is a login.
    """
    target = open_target(state, cluster, kubeconfig, context)
    return Scope(target, namespace or or_exit(target.default_namespace))


def tell_where(scope: Scope, namespace: str | None) -> None:
    """Tell people, beside a table, where its rows come from; None: all namespaces."""
    warn((scope.target.where(namespace), "dim"))


def print_result(found: Any, output: TableOutput, table: Callable[[], Table | str]) -> None:
    """Print a result as JSON, as YAML, or for people: a table, or a sentence instead."""
    match output:
        case TableOutput.JSON:
            print_json(found)
        case TableOutput.YAML:
            print_yaml(found)
        case _:
            shown = table()
            if isinstance(shown, str):
                say(shown)
            else:
                print_table(shown)


def or_exit(query: Callable[[], T]) -> T:
    """Return the result of a query; if it fails, report that and end the command."""
    try:
        return query()
    except (TargetError, HostNotRunning) as error:
        raise failed(str(error)) from None


def failed(message: str) -> typer.Exit:
    """Report a failure; return the exception that ends the command with 1."""
    warn(message)
    return typer.Exit(FAILED)


def invalid(message: str) -> typer.Exit:
    """Report invalid input; return the exception that ends the command with 2."""
    warn(message)
    return typer.Exit(INVALID)
