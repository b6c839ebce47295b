"""``fourways get|status|predict``: queries to the host running here, or to a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from .completion import deployment_names
from .predictions import InputNotAllowed, predictions
from .tables import deployments_table, prediction_table
from .target_command import (
    ListOutput,
    ListOutputOption,
    Scope,
    TableOutput,
    TableOutputOption,
    failed,
    given,
    invalid,
    open_scope,
    or_exit,
    tell_where,
    wait_option,
)
from .targets import GATEWAY_WAIT_SECONDS, Json, named
from .terminal import print_json, print_names, print_table, print_yaml, say


@given(open_scope)
def get(
    scope: Scope,
    name: Annotated[
        str | None,
        typer.Argument(help="One deployment; all by default.", autocompletion=deployment_names),
    ] = None,
    all_namespaces: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="The deployments of all namespaces.")
    ] = False,
    output: ListOutputOption = ListOutput.TABLE,
) -> None:
    """Show deployments: whether they are ready, and if not, why.

    Tables say on standard error where the deployments are: on a cluster, or on this machine. json
    and yaml are as of `kubectl get`: the object for a NAME, otherwise a List.
    """
    if all_namespaces and name is not None:
        raise invalid("a deployment is named within one namespace: use -n instead of -A")
    wanted = None if all_namespaces else scope.namespace
    documents = or_exit(lambda: scope.target.deployments(wanted))
    if name is not None:
        documents = [or_exit(lambda: named(documents, scope.namespace, name))]
    match output:
        case ListOutput.JSON:
            print_json(_object(documents, name))
        case ListOutput.YAML:
            print_yaml(_object(documents, name))
        case ListOutput.NAME:
            print_names(f"modeldeployment.fourways.dev/{d['metadata']['name']}" for d in documents)
        case _ if not documents:
            tell_where(scope, wanted)
            say("no ModelDeployments" + (f" in namespace {wanted}" if wanted else ""))
        case _:
            wide = output is ListOutput.WIDE
            tell_where(scope, wanted)
            print_table(deployments_table(documents, wide=wide, namespaces=all_namespaces))


def _object(documents: list[Json], name: str | None) -> Json:
    if name is not None:
        return documents[0]
    return {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": documents}


def _check_inputs(texts: list[str] | None) -> list[str] | None:
    """Refuse what is not NAME=VALUE, or given twice, before a target is opened."""
    seen = set()
    for text in texts or ():
        name, equals, _ = text.partition("=")
        if not (name and equals):
            raise invalid(f"--input {text}: write NAME=VALUE")
        if name in seen:
            raise invalid(f"--input: {name} is given twice; keep one of them")
        seen.add(name)
    return texts


@given(open_scope)
def predict(
    scope: Scope,
    name: Annotated[str, typer.Argument(help="A deployment.", autocompletion=deployment_names)],
    keys: Annotated[list[str], typer.Argument(help="Entity keys.")],
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            help="NAME=VALUE of an input of the contract, VALUE as JSON or as bare text. "
            "Repeatable. Real-time and streaming deployments only.",
            callback=_check_inputs,
        ),
    ] = None,
    wait: Annotated[
        float,
        wait_option("Seconds to wait for the prediction for a new event.", GATEWAY_WAIT_SECONDS),
    ] = 5.0,
    output: TableOutputOption = TableOutput.TABLE,
) -> None:
    """Fetch predictions by entity key, as a backend does: from the gateway.

    Batch deployments answer from their published run. Real-time deployments score --input now;
    inputs that their database has may be left out. Streaming deployments publish --input as an
    event where no answer is stored. Keys without a prediction are named, and the exit code is 1;
    it is 2 if a key or an input breaks the contract.
    """
    inputs = {name: value for name, _, value in (text.partition("=") for text in given or [])}
    try:
        found = or_exit(
            lambda: predictions(scope.target, scope.namespace, name, keys, inputs, wait)
        )
    except InputNotAllowed as error:
        raise invalid(str(error)) from None
    match output:
        case TableOutput.JSON:
            print_json(found.answers)
        case TableOutput.YAML:
            print_yaml(found.answers)
        case _ if found.answers:
            print_table(prediction_table(found.answers))
    if found.missing:
        end = invalid if found.breaks_contract else failed
        raise end(f"no prediction of {name} for {_without(found.missing, len(keys))}")


def _without(missing: Mapping[str, str], keys: int) -> str:
    if keys == 1:
        ((key, reason),) = missing.items()
        return f"{key!r}: {reason}"
    return f"{len(missing)} of {keys} keys: " + "; ".join(_by_reason(missing))


def _by_reason(missing: Mapping[str, str]) -> list[str]:
    """Return one text for each reason, with its keys."""
    keys: dict[str, list[str]] = {}
    for key, reason in missing.items():
        keys.setdefault(reason, []).append(repr(key))
    return [f"{', '.join(each)} ({reason})" for reason, each in keys.items()]
