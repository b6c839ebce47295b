"""``fourways up``: run manifests on this machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from fourways_api.runtime_config import ORIGIN_PATTERN

from .embedded.control import STATE
from .embedded.ports import MAX_PORT
from .hosting import check_runtime, run_host
from .manifests import read_deployments
from .output import INVALID
from .terminal import warn

_NATS = re.compile(r"nats://[^\s/:]+(:[0-9]{1,5})?(,nats://[^\s/:]+(:[0-9]{1,5})?)*")


def up(
    files: Annotated[list[Path], typer.Argument(help="Manifests with ModelDeployments.")],
    state: Annotated[Path, typer.Option(help="Folder for the store, caches and logs.")] = STATE,
    volume: Annotated[
        list[str] | None,
        typer.Option(help="CLAIM=FOLDER: the folder that pvc://CLAIM/… means here. Repeatable."),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FOLDER: a Secret, its keys as files of the folder. Repeatable."),
    ] = None,
    port: Annotated[
        int,
        typer.Option(
            help="Port of the gateway, on loopback; further namespaces get the next free ports.",
            min=1,
            max=MAX_PORT,
        ),
    ] = 8080,
    grpc_port: Annotated[
        int | None,
        typer.Option(
            help="Port of the gateway for the protocol over gRPC, on loopback; by default it is "
            "not served.",
            min=1,
            max=MAX_PORT,
        ),
    ] = None,
    broker: Annotated[
        str | None,
        typer.Option(
            help="NATS server to read NATS sources from; by default one is started.",
            metavar="nats://HOST:PORT",
        ),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            help="Folder of API keys, written by `fourways key create --folder`. The gateway then "
            "refuses requests without one; by default every program here may ask."
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            help="Origin whose web pages may send requests to the gateway, such as "
            "http://localhost:3000; `*` for all. Repeatable; by default none.",
            metavar="ORIGIN",
        ),
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option(
            "--namespace", "-n", help="Namespace of manifests that name none.", metavar="NAME"
        ),
    ] = None,
) -> None:
    """Run the manifests here: no cluster, no Docker, SQLite as the store.

    Batch deployments run once at the start, then on their schedule; bundles for devices are built
    once. Kafka sources are read from the brokers of the manifest. Edited manifests are reloaded.
    Ctrl-C ends everything; predictions, events and bundles stay in the state folder.
    """
    deployments = read_deployments(files, namespace=namespace)
    check_runtime()
    if broker is not None and not _NATS.fullmatch(broker):
        warn(f"--broker {broker}: write nats://HOST:PORT")
        raise typer.Exit(INVALID)
    for origin in allow_origin or []:
        if not re.fullmatch(ORIGIN_PATTERN, origin):
            warn(f"--allow-origin {origin}: write https://HOST[:PORT] without a path, or *")
            raise typer.Exit(INVALID)
    volumes, secrets = _pairs(volume, "--volume"), _pairs(secret, "--secret")
    run_host(
        files,
        deployments,
        state,
        volumes=volumes,
        secrets=secrets,
        port=port,
        grpc_port=grpc_port,
        broker=broker,
        keys=keys,
        origins=allow_origin or (),
        namespace=namespace,
    )


def _pairs(values: list[str] | None, option: str) -> dict[str, Path]:
    pairs = {}
    for value in values or []:
        name, equals, folder = value.partition("=")
        if not (name and equals and Path(folder).is_dir()):
            warn(f"{option} {value}: write NAME=FOLDER with a folder that exists")
            raise typer.Exit(INVALID)
        pairs[name] = Path(folder)
    return pairs
