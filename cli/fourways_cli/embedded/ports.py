"""Ports of this machine: whether one is free, and whether a worker listens on its own.

A response on a port does not prove which process sent it: another project's host may hold the
port. A worker writes a log line when it has bound its port, and from then on no other process can
bind it. So a host waits for that line before it trusts a response.
"""

from __future__ import annotations

import socket
from pathlib import Path

import orjson

HOST = "127.0.0.1"
MAX_PORT = 65_535

_LISTENING = frozenset({"listening", "serving"})
"""Messages of the log line that a worker writes once its port is bound."""

_READ_BYTES = 1 << 20


class PortUnavailable(RuntimeError):
    """A port is in use or invalid; the text says what to do."""


def check_free(port: int) -> None:
    """Check that a port on loopback can be bound. Raises PortUnavailable."""
    if port > MAX_PORT:
        raise PortUnavailable(
            f"there is no port {port}: each namespace has a gateway on a port of its own, from "
            "--port on; choose a lower --port"
        )
    with socket.socket() as probe:
        # As servers do, so that recently closed connections do not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise PortUnavailable(
                f"port {port} of {HOST} cannot be used ({error.strerror}): "
                "another program may listen on it; choose another with --port"
            ) from None


def free_port() -> int:
    """Return a port on loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class ListeningLog:
    """Reads a worker's log from now on for the line that says that its port is bound."""

    def __init__(self, log: Path, port: int) -> None:
        self._log = log
        self._port = port
        self._read = log.stat().st_size if log.exists() else 0
        self.listening = False

    def look(self) -> bool:
        """Read the new part of the log; return whether the worker listens on its port."""
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
