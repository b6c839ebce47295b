"""``fourways start-run|list-runs|compare-runs|rollback|rejects``: runs of a batch deployment."""

from __future__ import annotations

from typing import Annotated

import typer

from .completion import deployment_names
from .deployment_runs import DeploymentRuns
from .tables import difference_table, rejects_table, runs_table
from .target_command import (
    LONGEST_WAIT_SECONDS,
    ListOutput,
    ListOutputOption,
    Scope,
    TableOutput,
    TableOutputOption,
    failed,
    given,
    open_scope,
    or_exit,
    print_result,
    wait_option,
)
from .terminal import print_json, print_names, print_table, print_yaml, say, stdout
from .watch import RunProgressBars

NameArgument = Annotated[
    str, typer.Argument(help="A batch deployment.", autocompletion=deployment_names)
]
WAIT_SECONDS = 600.0


@given(open_scope)
def start_run(
    scope: Scope,
    name: NameArgument,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show the progress.")] = False,
    resume: Annotated[
        str | None,
        typer.Option(
            help="Resume this failed run: the chunks it recorded are kept.", metavar="RUN"
        ),
    ] = None,
    priority: Annotated[
        str | None,
        typer.Option(
            help="PriorityClass of its pods, instead of the deployment's. On a cluster only.",
            metavar="CLASS",
        ),
    ] = None,
    wait: Annotated[
        float | None,
        wait_option(
            "Seconds to wait for the end (default 600; no limit with --watch; 0 = don't wait)."
        ),
    ] = None,
) -> None:
    """Run a batch deployment now."""
    seconds = wait if wait is not None else LONGEST_WAIT_SECONDS if watch else WAIT_SECONDS
    record = DeploymentRuns(scope.target, scope.namespace, name)
    or_exit(record.require_batch)
    if resume is not None:
        or_exit(lambda: record.check_resumable(resume))
    started = or_exit(lambda: scope.target.run(scope.namespace, name, resume, priority))
    resumed = f"; it resumes {resume}" if resume else ""
    say(f"run {started} started{resumed} ({scope.where})")
    if not seconds:
        return
    if watch:
        with RunProgressBars(stdout()) as bars:
            last = or_exit(
                lambda: record.await_run(
                    started, seconds, lambda: bars.show(record.progress(resume or started))
                )
            )
            bars.show(record.progress(resume or started))
    else:
        last = or_exit(lambda: record.await_run(started, seconds))
    if last is None:
        raise failed(f"run {started} did not end within {seconds:g} s; it continues")
    say(f"{last['outcome']}: {last.get('rows', 0)} rows, {last.get('rejects', 0)} rejected")
    if last["outcome"] == "Failed":
        raise failed(last.get("message", ""))


@given(open_scope)
def list_runs(
    scope: Scope,
    name: NameArgument,
    output: ListOutputOption = ListOutput.TABLE,
) -> None:
    """List the runs in the store, the latest first."""
    found = or_exit(DeploymentRuns(scope.target, scope.namespace, name).existing)
    match output:
        case ListOutput.JSON:
            print_json(found)
        case ListOutput.YAML:
            print_yaml(found)
        case ListOutput.NAME:
            print_names(r["name"] for r in found)
        case _ if not found:
            say(f"the store has no run of {name} yet")
        case _:
            print_table(runs_table(found, wide=output is ListOutput.WIDE))


@given(open_scope)
def compare_runs(
    scope: Scope,
    name: NameArgument,
    before: Annotated[
        str | None,
        typer.Argument(help="A run; default: the one published before the current one."),
    ] = None,
    after: Annotated[
        str | None, typer.Argument(help="Another run; default: the current one.")
    ] = None,
    output: TableOutputOption = TableOutput.TABLE,
) -> None:
    """Compare the predictions of two runs, by entity key."""
    record = DeploymentRuns(scope.target, scope.namespace, name)
    first, second = before, after
    if first is None or second is None:
        or_exit(record.existing)
        earlier, current = or_exit(record.newest_two)
        first, second = first or earlier, current
    compare(scope, name, first, second, output)


def compare(scope: Scope, name: str, before: str, after: str, output: TableOutput) -> None:
    """Print the differences between two runs."""
    record = DeploymentRuns(scope.target, scope.namespace, name)
    found = or_exit(lambda: record.difference(before, after))
    print_result(found, output, lambda: difference_table(before, after, found))


@given(open_scope)
def rollback(
    scope: Scope,
    name: NameArgument,
    to: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="The run to go back to; default: the previous one."),
    ] = None,
    wait: Annotated[float, wait_option("Seconds to wait for the end (0 = don't wait).")] = 120.0,
) -> None:
    """Serve the predictions of an earlier run again. Nothing is scored, and the next run publishes.

    On a cluster this creates a Job, so it needs the right to create Jobs in the namespace.
    """
    record = DeploymentRuns(scope.target, scope.namespace, name)
    or_exit(record.require_batch)
    # The run is named here, so that a retried Job does not roll back twice.
    wanted = to or or_exit(record.before_current)
    started = or_exit(lambda: scope.target.rollback(scope.namespace, name, wanted))
    say(f"rollback {started} to run {wanted} started ({scope.where})")
    if not wait:
        return
    if or_exit(lambda: record.await_rollback(started, wait)) is None:
        raise failed(f"rollback {started} did not end within {wait:g} s; it continues")
    say(f"predictions come from run {wanted}")


@given(open_scope)
def rejects(
    scope: Scope,
    name: NameArgument,
    of: Annotated[
        str | None, typer.Argument(metavar="RUN", help="A run; default: the latest.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Maximum rows to show.", min=1, max=10_000)] = 20,
    output: TableOutputOption = TableOutput.TABLE,
) -> None:
    """Show the rows a run rejected: which, in which field, and why."""
    record = DeploymentRuns(scope.target, scope.namespace, name)
    run_name = of or or_exit(record.latest)
    found = or_exit(lambda: record.rejects(run_name, limit))
    none = f"run {run_name} rejected no rows"
    print_result(found, output, lambda: rejects_table(found) if found else none)
