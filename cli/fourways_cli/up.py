"""``fourways up``: run manifests on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .embedded.broker import NoBroker
from .embedded.given import PUBLIC_KEY, SecretNotGiven
from .embedded.host import Host
from .embedded.state import HostBusy
from .files import read_deployments
from .output import INVALID
from .tables import conditions_of

STATE = Path(".fourways")

console = Console(stderr=True, soft_wrap=True)


def up(
    files: Annotated[list[Path], typer.Argument(help="Manifests with ModelDeployments.")],
    state: Annotated[Path, typer.Option(help="Folder for the store, caches and logs.")] = STATE,
    volume: Annotated[
        list[str] | None,
        typer.Option(help="CLAIM=FOLDER: what pvc://CLAIM/… means here. Repeatable."),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FOLDER: a Secret's keys as files. Repeatable."),
    ] = None,
    port: Annotated[int, typer.Option(help="Port of the gateway, on loopback.")] = 8080,
    broker: Annotated[
        str | None,
        typer.Option(help="nats://HOST:PORT to read NATS sources from; default: one made here."),
    ] = None,
) -> None:
    """Run the manifests here: no cluster, no Docker, SQLite as the store.

    Batch deployments run once at the start, then on their schedule; bundles for devices are built
    once. Kafka sources are read where the manifest says. Ctrl-C ends everything; predictions,
    events and bundles stay in the state folder.
    """
    deployments = read_deployments(files)

    def show(key: tuple[str, str]) -> None:
        name, text = key[1], conditions_of(host.status(key))
        if seen.get(name) != text:
            seen[name] = text
            console.print(f"[bold]{name}[/bold]  {text}")

    seen: dict[str, str] = {}
    try:
        host = Host(
            deployments,
            state,
            volumes=_pairs(volume, "--volume"),
            secrets=_pairs(secret, "--secret"),
            port=port,
            broker=broker,
            on_change=show,
        )
    except SecretNotGiven as error:
        console.print(str(error))
        raise typer.Exit(INVALID) from None
    for name, folder in host.made_keys.items():
        console.print(
            f"Secret {name} was not given: bundles are signed with a key made here; devices verify "
            f"with {folder / PUBLIC_KEY}"
        )
    for namespace, gateway in host.gateways.items():
        console.print(f"gateway of namespace {namespace}: {gateway.server.url}")
    try:
        asyncio.run(_until_stopped(host))
    except (HostBusy, NoBroker) as error:
        console.print(str(error))
        raise typer.Exit(1) from None


async def _until_stopped(host: Host) -> None:
    serving = asyncio.ensure_future(host.serve())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, serving.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await serving


def _pairs(values: list[str] | None, option: str) -> dict[str, Path]:
    pairs = {}
    for value in values or []:
        name, equals, folder = value.partition("=")
        if not (name and equals and Path(folder).is_dir()):
            console.print(f"{option} {value}: write NAME=FOLDER with a folder that exists")
            raise typer.Exit(INVALID)
        pairs[name] = Path(folder)
    return pairs
