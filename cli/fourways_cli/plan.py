"""``fourways plan``: the objects the operator would apply."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from fourways_operator import planning as planner
from fourways_operator.facts import OperatorSettings
from fourways_operator.installation import refusals

from .manifests import read_deployments
from .output import INVALID
from .terminal import print_json, print_names, print_yaml, warn

DEFAULTS = OperatorSettings(runtime_image="fourways-runtime:dev")


class PlanOutput(StrEnum):
    """How the objects are printed. All of them can be piped into kubectl."""

    YAML = "yaml"
    JSON = "json"
    NAME = "name"


def plan(
    files: Annotated[list[Path], typer.Argument(help="Manifests; - reads standard input.")],
    image: Annotated[str, typer.Option(help="Image of the workloads.")] = DEFAULTS.runtime_image,
    store_secret: Annotated[
        str, typer.Option(help="Secret with the store's address.")
    ] = DEFAULTS.store_secret,
    gateway: Annotated[bool, typer.Option(help="Include the namespace's gateway.")] = True,
    namespace: Annotated[
        str | None,
        typer.Option(
            "--namespace", "-n", help="Namespace of manifests that name none.", metavar="NAME"
        ),
    ] = None,
    output: Annotated[
        PlanOutput,
        typer.Option(
            "--output",
            "-o",
            help="yaml documents, a List in json, or kind and name of each.",
            case_sensitive=False,
        ),
    ] = PlanOutput.YAML,
) -> None:
    """Print exactly the objects the operator would apply.

    The owner's uid is known only to a cluster; it is empty here.
    """
    settings = OperatorSettings(runtime_image=image, store_secret=store_secret)
    deployments = read_deployments(files, namespace=namespace, for_cluster=True)
    objects: list[dict[str, Any]] = []
    refused = [
        f"{'/'.join(deployment.key)}: {problem}"
        for deployment in deployments
        for problem in refusals(deployment, settings)
    ]
    for text in refused:
        warn(text)
    if refused:
        raise typer.Exit(INVALID)
    for deployment in deployments:
        objects.extend(planner.plan(deployment, settings))
    if gateway:
        for namespace in sorted({d.metadata.namespace for d in deployments}):
            owners = [d.to_json() for d in deployments if d.metadata.namespace == namespace]
            objects.extend(planner.plan_gateway(namespace, owners, settings))
    match output:
        case PlanOutput.JSON:
            print_json({"apiVersion": "v1", "kind": "List", "items": objects})
        case PlanOutput.NAME:
            print_names(f"{each['kind'].lower()}/{each['metadata']['name']}" for each in objects)
        case _:
            print_yaml(*objects)
