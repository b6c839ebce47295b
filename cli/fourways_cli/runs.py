"""``fourways run|runs|diff|rollback|rejects``: a batch deployment's runs, and the way back."""

from __future__ import annotations

from typing import Annotated

import orjson
import typer

from .asking import (
    ClusterOption,
    NamespaceOption,
    OutputOption,
    StateOption,
    asking,
    console,
    failed,
    told,
)
from .record import Record
from .tables import difference_table, rejects_table, runs_table
from .targets import choose_target
from .up import STATE
from .watch import Watch

NameArgument = Annotated[str, typer.Argument(help="A batch deployment.")]
WAIT_SECONDS = 600.0
WATCH_SECONDS = 7 * 24 * 3600.0
"""A watched run is seen to its end: the longest a deadline can be."""


def run(
    name: NameArgument,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show how far it is.")] = False,
    resume: Annotated[
        str | None,
        typer.Option(help="Go on with this run, which failed: what it recorded is kept."),
    ] = None,
    priority: Annotated[
        str | None,
        typer.Option(
            help="PriorityClass of its pods, instead of the deployment's.", metavar="CLASS"
        ),
    ] = None,
    wait: Annotated[
        float | None,
        typer.Option(help="Seconds to wait for its end (600, without limit with --watch); 0: not."),
    ] = None,
    namespace: NamespaceOption = "default",
    state: StateOption = STATE,
    cluster: ClusterOption = False,
) -> None:
    """Run a batch deployment now."""
    seconds = wait if wait is not None else WATCH_SECONDS if watch else WAIT_SECONDS
    # Chosen once: on a cluster each choice is a login.
    target = told(lambda: choose_target(state, cluster))
    record = Record(target, namespace, name)
    if resume is not None:
        told(lambda: record.check_resumable(resume))
    started = told(lambda: target.run(namespace, name, resume, priority))
    goes_on = f": goes on with {resume}" if resume else ""
    console.print(f"run {started} started{goes_on}")
    if not seconds:
        return
    if watch:
        with Watch(console) as bar:
            last = told(
                lambda: record.await_run(
                    started, seconds, lambda: bar.show(record.progress(resume or started))
                )
            )
            bar.show(record.progress(resume or started))
    else:
        last = told(lambda: record.await_run(started, seconds))
    if last is None:
        raise failed(f"run {started} did not end within {seconds:g} s; it goes on")
    console.print(
        f"{last['outcome']}: {last.get('rows', 0)} rows, {last.get('rejects', 0)} rejects"
    )
    if last["outcome"] == "Failed":
        raise failed(last.get("message", ""))


def runs(
    name: NameArgument,
    namespace: NamespaceOption = "default",
    output: OutputOption = "table",
    state: StateOption = STATE,
    cluster: ClusterOption = False,
) -> None:
    """List the runs the store knows of, the latest first."""
    found = asking(lambda target: Record(target, namespace, name).runs(), state, cluster)
    if output == "json":
        _print_json(found)
    else:
        console.print(runs_table(found))


def diff(
    name: NameArgument,
    before: Annotated[str, typer.Argument(help="A run.")],
    after: Annotated[str, typer.Argument(help="Another run.")],
    namespace: NamespaceOption = "default",
    output: OutputOption = "table",
    state: StateOption = STATE,
    cluster: ClusterOption = False,
) -> None:
    """Compare the predictions of two runs, by entity key."""
    found = asking(
        lambda target: Record(target, namespace, name).difference(before, after), state, cluster
    )
    if output == "json":
        _print_json(found)
    else:
        console.print(difference_table(before, after, found))


def rollback(
    name: NameArgument,
    to: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="The run to go back to; default: the one before."),
    ] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for it; 0 does not.")] = 120.0,
    namespace: NamespaceOption = "default",
    state: StateOption = STATE,
    cluster: ClusterOption = False,
) -> None:
    """Have answers come from an earlier run again. Nothing is scored; the next run publishes anew.

    On a cluster this makes a Job: who may create Jobs in the namespace may do it.
    """
    target = told(lambda: choose_target(state, cluster))
    record = Record(target, namespace, name)
    # Named from here on, so that a Job that is tried again goes back once.
    wanted = to or told(record.before_current)
    started = told(lambda: target.rollback(namespace, name, wanted))
    console.print(f"rollback {started} to run {wanted} started")
    if not wait:
        return
    if told(lambda: record.await_rollback(started, wait)) is None:
        raise failed(f"rollback {started} did not end within {wait:g} s; it goes on")
    console.print(f"answers come from run {wanted}")


def rejects(
    name: NameArgument,
    of: Annotated[
        str | None, typer.Argument(metavar="RUN", help="A run; default: the latest.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Rows to show at the most.", min=1, max=10_000)] = 20,
    namespace: NamespaceOption = "default",
    output: OutputOption = "table",
    state: StateOption = STATE,
    cluster: ClusterOption = False,
) -> None:
    """Show the rows a run refused: which, in which field, and why."""
    target = told(lambda: choose_target(state, cluster))
    record = Record(target, namespace, name)
    found = told(lambda: record.rejects(of or record.latest(), limit))
    if output == "json":
        _print_json(found)
    else:
        console.print(rejects_table(found))


def _print_json(document: object) -> None:
    typer.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
