"""Runs manifests on the embedded host until Ctrl-C: the common part of ``up`` and ``serve``."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import signal
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from fourways_api import ModelDeployment
from fourways_api.installing import install_command

from .embedded.broker import NoBroker
from .embedded.given import PUBLIC_KEY, HostLacks
from .embedded.host import Host, RestartNeeded
from .embedded.managed import Key
from .embedded.manifest_watch import edits
from .embedded.ports import PortUnavailable
from .embedded.state import HostBusy, StateNotPrivate
from .manifests import read_deployments
from .output import FAILED, INVALID
from .tables import conditions_of, next_step
from .terminal import warn

TELL_SECONDS = 4.0
"""Between two messages about a worker that takes long to start."""

_RUNTIME_PACKAGES = ("numpy", "onnxruntime", "pyarrow", "httptools")
"""Packages of the extra ``runtime``: without them no worker starts or can report why."""


def run_host(
    files: list[Path],
    deployments: Sequence[ModelDeployment],
    state: Path,
    *,
    port: int,
    grpc_port: int | None = None,
    volumes: Mapping[str, Path] | None = None,
    secrets: Mapping[str, Path] | None = None,
    broker: str | None = None,
    keys: Path | None = None,
    origins: Sequence[str] = (),
    namespace: str | None = None,
    on_status: Callable[[dict[str, Any]], None] | None = None,
    beside: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> None:
    """Run the deployments of manifest files, and take up edits, until Ctrl-C.

    ``on_status`` is called with the status of a deployment whenever it may have changed, instead of
    printing the next step once a deployment is ready. ``beside`` makes a coroutine that runs as
    long as the host. Exits with 1 or 2 if the host cannot run.
    """
    shown = _Shown(on_status)
    try:
        host = Host(
            deployments,
            state,
            volumes=dict(volumes or {}),
            secrets=dict(secrets or {}),
            port=port,
            grpc_port=grpc_port,
            broker=broker,
            keys=keys,
            origins=origins,
            on_change=lambda key: shown.show(host, key),
        )
    except HostLacks as error:
        warn(str(error))
        raise typer.Exit(INVALID) from None
    except PortUnavailable as error:
        warn(str(error))
        raise typer.Exit(FAILED) from None
    try:
        asyncio.run(_until_stopped(host, files, namespace, beside))
    except (HostBusy, StateNotPrivate, NoBroker, PortUnavailable) as error:
        warn(str(error))
        raise typer.Exit(FAILED) from None
    except OSError as error:
        warn(f"cannot run with the state folder {state}: {error}")
        raise typer.Exit(FAILED) from None


class _Shown:
    """Prints a deployment's state when it changes."""

    def __init__(self, on_status: Callable[[dict[str, Any]], None] | None) -> None:
        self._last: dict[Key, str] = {}
        self._introduced: set[Key] = set()
        self._on_status = on_status

    def show(self, host: Host, key: Key) -> None:
        if key not in host.managed:
            return
        status = host.status(key)
        conditions = conditions_of(status)
        if self._last.get(key) != conditions.plain:
            self._last[key] = conditions.plain
            warn((key[1], "bold"), "  ", conditions)
        if self._on_status is not None:
            self._on_status(status)
        elif key not in self._introduced and (step := next_step(host.managed[key].document)):
            self._introduced.add(key)
            warn((key[1], "bold"), f"  next: {step}")


async def _until_stopped(
    host: Host,
    files: list[Path],
    namespace: str | None,
    beside: Callable[[], Coroutine[Any, Any, None]] | None,
) -> None:
    serving = asyncio.ensure_future(host.serve(lambda: _introduce(host)))
    watching = [
        asyncio.ensure_future(_take_up_edits(host, files, namespace)),
        asyncio.ensure_future(_tell_slow_starts(host)),
    ]
    if beside is not None:
        watching.append(asyncio.ensure_future(beside()))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, serving.cancel)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await serving
    finally:
        for each in watching:
            each.cancel()
        await asyncio.gather(*watching, return_exceptions=True)


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


async def _tell_slow_starts(host: Host) -> None:
    """Say what workers that take long to start do, every few seconds until they are ready."""
    while True:
        await asyncio.sleep(TELL_SECONDS)
        for (_, name), one in host.managed.items():
            for slow in filter(None, (server.slow_start for server in one.servers)):
                warn((name, "bold"), f"  {slow}")


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
            warn(f"a manifest was edited: {error}; stop with Ctrl-C and start again")
        except (HostLacks, PortUnavailable) as error:
            warn(f"a manifest was edited and cannot be run: {error}; what runs is unchanged")
        else:
            names = ", ".join(name for _, name in changed)
            warn(f"a manifest was edited: {f'restarted {names}' if names else 'nothing changed'}")
            _introduce_gateways(host, set(host.gateways) - before)


def _reread(files: list[Path], namespace: str | None) -> list[ModelDeployment]:
    return read_deployments(files, namespace=namespace)


def missing_packages() -> list[str]:
    """Return the packages of the extra ``runtime`` that are not installed."""
    return [name for name in _RUNTIME_PACKAGES if importlib.util.find_spec(name) is None]


def check_runtime() -> None:
    """Exit with 1, naming the extra, if the workloads cannot run here."""
    missing = missing_packages()
    if missing:
        warn(
            f"the workloads run here, which needs {', '.join(missing)}: "
            f"{install_command('runtime')}"
        )
        raise typer.Exit(FAILED)
