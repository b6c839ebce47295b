"""How other commands talk to a running host: one line of JSON each way, on a socket of its own."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import orjson

Json = dict[str, Any]


class HostNotRunning(RuntimeError):
    """No host answers at this state folder."""


def control_path(state: Path) -> Path:
    """Return the socket of the host that holds a state folder.

    A socket's path may be about 100 bytes long, so the shorter way to write it is taken.
    """
    path = state / "control"
    return min(path.absolute(), Path(os.path.relpath(path)), key=lambda p: len(str(p)))


def ask(state: Path, question: Json) -> Json:
    """Ask the running host; waits as long as it takes.

    Raises:
        HostNotRunning: nobody answers.

    """
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(control_path(state)))
        except OSError:
            raise HostNotRunning(f"no `fourways up` runs at {state}") from None
        connection.sendall(orjson.dumps(question) + b"\n")
        with connection.makefile("rb") as lines:
            answer: Json = orjson.loads(lines.readline() or b'{"error": "the host went away"}')
    return answer
