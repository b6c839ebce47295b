"""``fourways status|run|predict``: questions to the host running here, or to a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import orjson
import typer
from rich.console import Console

from .embedded.control import HostNotRunning
from .predictions import stored_predictions
from .tables import deployments_table, prediction_table
from .targets import Target, TargetError, choose_target
from .up import STATE

console = Console()

T = TypeVar("T")

StateOption = Annotated[Path, typer.Option(help="State folder of `fourways up`.")]
ClusterOption = Annotated[bool, typer.Option("--cluster", help="Ask the cluster in any case.")]
NamespaceOption = Annotated[str, typer.Option("--namespace", "-n", help="Namespace.")]
OutputOption = Annotated[str, typer.Option("--output", "-o", help="table or json.")]


def status(
    name: Annotated[str | None, typer.Argument(help="One deployment; all by default.")] = None,
    namespace: NamespaceOption = "default",
    output: OutputOption = "table",
    state: StateOption = STATE,
    cluster: ClusterOption = False,
) -> None:
    """Show deployments, what they are ready for and what is in the way."""
    documents = _asking(lambda t: t.deployments(namespace), state, cluster)
    if name is not None:
        documents = [d for d in documents if d["metadata"]["name"] == name]
        if not documents:
            raise _failed(f"no ModelDeployment {name} in namespace {namespace}")
    if output == "json":
        typer.echo(orjson.dumps(documents, option=orjson.OPT_INDENT_2))
    else:
        console.print(deployments_table(documents))


def run(
    name: Annotated[str, typer.Argument(help="A batch deployment.")],
    namespace: NamespaceOption = "default",
    wait: Annotated[float, typer.Option(help="Seconds to wait for its end; 0 does not.")] = 600.0,
    state: StateOption = STATE,
    cluster: ClusterOption = False,
) -> None:
    """Run a batch deployment now."""
    # Chosen once: on a cluster each choice is a login.
    target = _told(lambda: choose_target(state, cluster))
    started = _told(lambda: target.run(namespace, name))
    console.print(f"run {started} started")
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline:
        documents = _told(lambda: target.deployments(namespace))
        found = next((d for d in documents if d["metadata"]["name"] == name), {})
        last = (found.get("status") or {}).get("lastRun") or {}
        if last.get("name") == started and last["outcome"] != "Running":
            console.print(
                f"{last['outcome']}: {last.get('rows', 0)} rows, {last.get('rejects', 0)} rejects"
            )
            if last["outcome"] == "Failed":
                raise _failed(last.get("message", ""))
            return
        time.sleep(0.5)
    if wait:
        raise _failed(f"run {started} did not end within {wait:g} s; it goes on")


def predict(
    name: Annotated[str, typer.Argument(help="A deployment.")],
    keys: Annotated[list[str], typer.Argument(help="Entity keys.")],
    namespace: NamespaceOption = "default",
    output: OutputOption = "table",
    state: StateOption = STATE,
    cluster: ClusterOption = False,
) -> None:
    """Fetch predictions as a backend does: from the gateway, by entity key."""
    answers = _asking(lambda t: stored_predictions(t, namespace, name, keys), state, cluster)
    if output == "json":
        typer.echo(orjson.dumps(answers, option=orjson.OPT_INDENT_2))
    else:
        console.print(prediction_table(answers))


def _asking(question: Callable[[Target], T], state: Path, cluster: bool) -> T:
    return _told(lambda: question(choose_target(state, cluster)))


def _told(question: Callable[[], T]) -> T:
    """Ask; what could not be answered is said, and ends the command."""
    try:
        return question()
    except (TargetError, HostNotRunning) as error:
        raise _failed(str(error)) from None


def _failed(message: str) -> typer.Exit:
    typer.echo(message, err=True)
    return typer.Exit(1)
