"""``fourways describe|events|logs``: what a deployment is, what happened to it, what it writes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from .completion import deployment_names
from .output import TextOutput, TextOutputOption, print_as
from .tables import conditions_table, events_table, facts_of, pods_table
from .target_command import (
    Scope,
    TableOutput,
    TableOutputOption,
    failed,
    given,
    open_scope,
    or_exit,
    print_result,
    tell_where,
)
from .targets import Json, LogLine, LogQuery, TargetError, named
from .terminal import print_table, say

DeploymentArgument = Annotated[
    str, typer.Argument(help="A deployment.", autocompletion=deployment_names)
]
SHOWN_EVENTS = 10
DEFAULT_TAIL = 100


def deployment_of(scope: Scope, name: str) -> Json:
    """Return a deployment; end the command, naming those that there are, if there is none."""
    documents = or_exit(lambda: scope.target.deployments(scope.namespace))
    return or_exit(lambda: named(documents, scope.namespace, name))


@given(open_scope)
def describe(
    scope: Scope,
    name: DeploymentArgument,
    output: TextOutputOption = TextOutput.TEXT,
) -> None:
    """Show a deployment in full: the reason for its mode, conditions, pods, latest events."""
    document = deployment_of(scope, name)
    found = or_exit(lambda: scope.target.inspect(scope.namespace, name))
    if output is not TextOutput.TEXT:
        print_as(
            output,
            {"deployment": document, "pods": list(found.pods), "events": list(found.events)},
        )
        return
    facts = {"Name": name, "Where": scope.where, **facts_of(document)}
    width = max(map(len, facts)) + 2
    for title, text in facts.items():
        say((f"{title:{width}}", "bold"), text)
    conditions = (document.get("status") or {}).get("conditions") or []
    parts: list[tuple[str, list[Any], Any]] = [
        ("Conditions", conditions, conditions_table),
        ("Pods", list(found.pods), pods_table),
        ("Events", list(found.events)[-SHOWN_EVENTS:], events_table),
    ]
    for title, rows, table in parts:
        say("")
        say((title, "bold"), "" if rows else "  none")
        if rows:
            print_table(table(rows))


@given(open_scope)
def events(
    scope: Scope,
    name: DeploymentArgument,
    output: TableOutputOption = TableOutput.TABLE,
) -> None:
    """List the events of a deployment and of the objects made for it, the latest last.

    A cluster forgets events after an hour; `fourways up` has those since it started.
    """
    deployment_of(scope, name)
    found = list(or_exit(lambda: scope.target.inspect(scope.namespace, name)).events)
    if output is TableOutput.TABLE:
        tell_where(scope, scope.namespace)
    print_result(found, output, lambda: events_table(found) if found else f"no events of {name}")


@given(open_scope)
def logs(
    scope: Scope,
    name: DeploymentArgument,
    pod: Annotated[
        str | None,
        typer.Option(
            help="Only this pod's; on this machine, only this process's or run's.", metavar="NAME"
        ),
    ] = None,
    tail: Annotated[
        int, typer.Option(help="Lines of each log, from its end.", min=0, max=100_000)
    ] = DEFAULT_TAIL,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new lines, until Ctrl-C.")
    ] = False,
    previous: Annotated[
        bool, typer.Option("--previous", "-p", help="Those before the container's restart.")
    ] = False,
) -> None:
    """Print the logs of a deployment's pods; of a batch deployment, those of its latest run.

    Each line begins with the pod's name, unless --pod chooses one.
    """
    deployment_of(scope, name)
    query = LogQuery(tail, pod, follow, previous)
    lines = or_exit(lambda: scope.target.logs(scope.namespace, name, query))
    sources: set[str] = set()
    for line in _until_failure(lines):
        sources.add(line.source)
        prefix = () if pod is not None else ((f"{line.source}  ", "dim"),)
        say(*prefix, line.text)
    if not sources and not follow:
        raise failed(f"{name} has no log: no pod of it has run, or its pods are gone")


def _until_failure(lines: Iterator[LogLine]) -> Iterator[LogLine]:
    try:
        yield from lines
    except TargetError as error:
        raise failed(str(error)) from None
    except KeyboardInterrupt:
        return
