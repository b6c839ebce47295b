"""``fourways status|predict``: questions to the host running here, or to a cluster."""

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
)
from .output import INVALID
from .predictions import predictions
from .tables import deployments_table, prediction_table
from .up import STATE


def status(
    name: Annotated[str | None, typer.Argument(help="One deployment; all by default.")] = None,
    namespace: NamespaceOption = "default",
    output: OutputOption = "table",
    state: StateOption = STATE,
    cluster: ClusterOption = False,
) -> None:
    """Show deployments, what they are ready for and what is in the way."""
    documents = asking(lambda t: t.deployments(namespace), state, cluster)
    if name is not None:
        documents = [d for d in documents if d["metadata"]["name"] == name]
        if not documents:
            raise failed(f"no ModelDeployment {name} in namespace {namespace}")
    if output == "json":
        typer.echo(orjson.dumps(documents, option=orjson.OPT_INDENT_2))
    else:
        console.print(deployments_table(documents))


def predict(
    name: Annotated[str, typer.Argument(help="A deployment.")],
    keys: Annotated[list[str], typer.Argument(help="Entity keys.")],
    given: Annotated[
        list[str] | None,
        typer.Option("--input", help="NAME=VALUE of the contract, VALUE as JSON. Repeatable."),
    ] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for a stream's answer.")] = 5.0,
    namespace: NamespaceOption = "default",
    output: OutputOption = "table",
    state: StateOption = STATE,
    cluster: ClusterOption = False,
) -> None:
    """Fetch predictions as a backend does: from the gateway, by entity key.

    Real-time deployments score --input now; what their database knows may be left out. Streaming
    deployments make an event of --input where no answer is stored.
    """
    inputs = dict(_input(text) for text in given or [])
    answers = asking(lambda t: predictions(t, namespace, name, keys, inputs, wait), state, cluster)
    if output == "json":
        typer.echo(orjson.dumps(answers, option=orjson.OPT_INDENT_2))
    else:
        console.print(prediction_table(answers))


def _input(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        typer.echo(f"--input {text}: write NAME=VALUE", err=True)
        raise typer.Exit(INVALID)
    try:
        return name, orjson.loads(value)
    except ValueError:
        # A word needs no quotes.
        return name, value
