"""Communication with a running host: one line of JSON each way, on a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

Json = dict[str, Any]

STATE = Path(".fourways")
"""Folder of the host's state, in the working directory."""


class HostNotRunning(RuntimeError):
    """No host answers for this state folder."""


class RequestRefused(ValueError):
    """The host cannot fulfil a command's request; the text is for people."""


def control_path(state: Path) -> Path:
    """Return the socket of the host that holds a state folder.

    A socket's path may have at most about 100 bytes, so the shorter of two forms is used.
    """
    path = state / "control"
    return min(path.absolute(), Path(os.path.relpath(path)), key=lambda p: len(str(p)))


def is_running(state: Path) -> bool:
    """Return whether a host answers: a killed host leaves its socket behind."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(control_path(state)))
        except OSError:
            return False
    return True


def ask(state: Path, question: Json) -> Json:
    """Send a request to the running host and return its response, without a time limit.

    Raises:
        HostNotRunning: no host answers for this state folder.

    """
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(control_path(state)))
        except OSError:
            raise HostNotRunning(f"no `fourways up` is running at {state}") from None
        connection.sendall(orjson.dumps(question) + b"\n")
        with connection.makefile("rb") as lines:
            answer: Json = orjson.loads(lines.readline() or b'{"error": "the host ended"}')
    return answer


@asynccontextmanager
async def answering(state: Path, reply: Callable[[Json], Awaitable[Json]]) -> AsyncIterator[None]:
    """Answer `fourways start-run|status|predict`. ``reply`` raises RequestRefused to refuse."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            line = await reader.readline()
            if not line:
                return  # a command that only checked whether a host runs
            try:
                answered = await reply(orjson.loads(line))
            except (KeyError, ValueError) as error:
                answered = {"error": str(error)}
            writer.write(orjson.dumps(answered) + b"\n")
            await writer.drain()

    path = control_path(state)
    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(answer, path)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)
