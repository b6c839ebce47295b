"""Ports of this machine: whether one is free, and whether a worker listens on its own.

That something answers on a port proves nothing about who answers: another project's host can hold
it. A worker writes a line to its log when it has bound its port, and no other process can bind it
from then on; so a host looks for that line before it believes an answer.
"""

from __future__ import annotations

import socket
from pathlib import Path

import orjson

HOST = "127.0.0.1"
MAX_PORT = 65_535

_LISTENING = frozenset({"listening", "serving"})
"""Messages of the log line a worker writes once its port is bound."""

_READ_BYTES = 1 << 20


class PortUnavailable(RuntimeError):
    """A port is in use, or is none; the text says what to do."""


def check_free(port: int) -> None:
    """Check that a port of loopback can be bound. Raises PortUnavailable."""
    if port > MAX_PORT:
        raise PortUnavailable(
            f"there is no port {port}: each namespace has a gateway on a port of its own, from "
            "--port on; choose a lower --port"
        )
    with socket.socket() as probe:
        # As servers do, so that connections that ended just now are not in the way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise PortUnavailable(
                f"port {port} of {HOST} cannot be used ({error.strerror}): "
                "another program may listen on it; choose another with --port"
            ) from None


def free_port() -> int:
    """Return a port of loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class ListeningLog:
    """A worker's log from now on, read for the line that says that its port is bound."""

    def __init__(self, log: Path, port: int) -> None:
        self._log = log
        self._port = port
        self._read = log.stat().st_size if log.exists() else 0
        self.listening = False

    def look(self) -> bool:
        """Read what was written since; return whether the worker listens on its port."""
        if not self.listening and self._log.exists():
            with self._log.open("rb") as lines:
                lines.seek(self._read)
                text, newline, _ = lines.read(_READ_BYTES).rpartition(b"\n")
            self._read += len(text) + len(newline)
            self.listening = any(map(self._is_it, text.splitlines()))
        return self.listening

    def _is_it(self, line: bytes) -> bool:
        if b'"port"' not in line:
            return False
        try:
            entry = orjson.loads(line)
        except ValueError:
            return False
        return (
            isinstance(entry, dict)
            and entry.get("message") in _LISTENING
            and entry.get("port") == self._port
        )
