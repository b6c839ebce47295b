"""``fourways up``: run manifests on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import re
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from fourways_api import ModelDeployment

from .embedded.broker import NoBroker
from .embedded.given import PUBLIC_KEY, SecretNotGiven
from .embedded.host import Host, RestartNeeded
from .embedded.managed import Key
from .embedded.manifest_watch import edits
from .embedded.ports import MAX_PORT, PortUnavailable
from .embedded.state import HostBusy, StateNotPrivate
from .manifests import read_deployments
from .output import FAILED, INVALID
from .tables import conditions_of
from .terminal import warn

STATE = Path(".fourways")

_NATS = re.compile(r"nats://[^\s/:]+(:[0-9]{1,5})?(,nats://[^\s/:]+(:[0-9]{1,5})?)*")
_RUNTIME_PACKAGES = ("numpy", "onnxruntime", "pyarrow", "httptools")
"""Packages of the extra ``runtime``: without them no worker starts or can report why."""


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
    namespace: Annotated[
        str | None,
        typer.Option(
            "--namespace", "-n", help="Namespace of manifests that name none.", metavar="NAME"
        ),
    ] = None,
) -> None:
    """Run the manifests here: no cluster, no Docker, SQLite as the store.

    Batch deployments run once at the start, then on their schedule; bundles for devices are built
    once. Kafka sources are read from the brokers of the manifest. Edited manifests are taken up.
    Ctrl-C ends everything; predictions, events and bundles stay in the state folder.
    """
    deployments = read_deployments(files, namespace=namespace)
    _check_runtime()
    if broker is not None and not _NATS.fullmatch(broker):
        warn(f"--broker {broker}: write nats://HOST:PORT")
        raise typer.Exit(INVALID)
    volumes, secrets = _pairs(volume, "--volume"), _pairs(secret, "--secret")
    shown = _Shown()
    try:
        host = Host(
            deployments,
            state,
            volumes=volumes,
            secrets=secrets,
            port=port,
            grpc_port=grpc_port,
            broker=broker,
            keys=keys,
            on_change=lambda key: shown.show(host, key),
        )
    except SecretNotGiven as error:
        warn(str(error))
        raise typer.Exit(INVALID) from None
    except PortUnavailable as error:
        warn(str(error))
        raise typer.Exit(FAILED) from None
    try:
        asyncio.run(_until_stopped(host, files, namespace))
    except (HostBusy, StateNotPrivate, NoBroker, PortUnavailable) as error:
        warn(str(error))
        raise typer.Exit(FAILED) from None
    except OSError as error:
        warn(f"cannot run with the state folder {state}: {error}")
        raise typer.Exit(FAILED) from None


class _Shown:
    """Prints a deployment's state when it changes."""

    def __init__(self) -> None:
        self._last: dict[Key, str] = {}

    def show(self, host: Host, key: Key) -> None:
        if key not in host.managed:
            return
        conditions = conditions_of(host.status(key))
        if self._last.get(key) != conditions.plain:
            self._last[key] = conditions.plain
            warn((key[1], "bold"), "  ", conditions)


async def _until_stopped(host: Host, files: list[Path], namespace: str | None) -> None:
    serving = asyncio.ensure_future(host.serve(lambda: _introduce(host)))
    watching = asyncio.ensure_future(_take_up_edits(host, files, namespace))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, serving.cancel)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await serving
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def _introduce(host: Host) -> None:
    for name, folder in host.made_keys.items():
        warn(
            f"Secret {name} was not given: bundles are signed with a key made here; devices verify "
            f"with {folder / PUBLIC_KEY}"
        )
    _introduce_gateways(host, host.gateways)


def _introduce_gateways(host: Host, namespaces: Iterable[str]) -> None:
    for namespace in sorted(namespaces):
        warn(f"gateway of namespace {namespace}: {host.gateways[namespace].server.url}")


async def _take_up_edits(host: Host, files: list[Path], namespace: str | None) -> None:
    """Pass the deployments of the files to the host after each edit."""
    if Path("-") in files:
        return  # standard input cannot be read again
    async for _ in edits(files):
        try:
            # In a thread, so that nothing waits while the first validation loads its libraries.
            deployments = await asyncio.to_thread(_reread, files, namespace)
        except typer.Exit:
            warn("a manifest was edited and is invalid: what runs is unchanged")
            continue
        before = set(host.gateways)
        try:
            changed = await host.replace(deployments)
        except RestartNeeded as error:
            warn(f"a manifest was edited: {error}; stop `fourways up` and start it again")
        except (SecretNotGiven, PortUnavailable) as error:
            warn(f"a manifest was edited and cannot be run: {error}; what runs is unchanged")
        else:
            names = ", ".join(name for _, name in changed)
            warn(f"a manifest was edited: {f'restarted {names}' if names else 'nothing changed'}")
            _introduce_gateways(host, set(host.gateways) - before)


def _reread(files: list[Path], namespace: str | None) -> list[ModelDeployment]:
    return read_deployments(files, namespace=namespace)


def _check_runtime() -> None:
    missing = [name for name in _RUNTIME_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        warn(
            f"`fourways up` runs the workloads here and needs {', '.join(missing)}: "
            "pip install 'fourways[runtime]'"
        )
        raise typer.Exit(FAILED)


def _pairs(values: list[str] | None, option: str) -> dict[str, Path]:
    pairs = {}
    for value in values or []:
        name, equals, folder = value.partition("=")
        if not (name and equals and Path(folder).is_dir()):
            warn(f"{option} {value}: write NAME=FOLDER with a folder that exists")
            raise typer.Exit(INVALID)
        pairs[name] = Path(folder)
    return pairs
