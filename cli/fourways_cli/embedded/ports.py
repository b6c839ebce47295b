"""Ports of this machine: which one to use, and whether a worker listens on its own.

A port for a worker is chosen before the worker binds it. It is chosen at random outside the range
from which the kernel takes the ports of outgoing connections, so that neither a connection nor
another process that chooses in the same way is likely to take it in between.

A response on a port does not prove which process sent it: another project's host may hold the
port. A worker writes a log line when it has bound its port, and from then on no other process can
bind it. So a host waits for that line before it trusts a response.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable
from pathlib import Path

import orjson

HOST = "127.0.0.1"
MAX_PORT = 65_535

OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""Where Linux says from which ports outgoing connections get theirs: the lowest and the highest."""

_OUTGOING_ELSEWHERE = (49_152, MAX_PORT)
"""The range that IANA reserves for it, which other systems use."""

_LOWEST = 10_000
"""Below this are the default ports of many servers."""

_FEW = 1_000
"""With fewer ports outside the range, ports inside it are used too."""

_LISTENING = frozenset({"listening", "serving"})
"""Messages of the log line that a worker writes once its port is bound."""

_READ_BYTES = 1 << 20


class PortUnavailable(RuntimeError):
    """A port is in use or invalid; the text says what to do."""


def check_free(port: int, option: str = "--port") -> None:
    """Check that a port on loopback can be bound. Raises PortUnavailable."""
    try:
        _bind(port)
    except OSError as error:
        raise PortUnavailable(
            f"port {port} of {HOST} cannot be used ({error.strerror}): "
            f"another program may listen on it; choose another with {option}"
        ) from None


_chosen: set[int] = set()
"""What `free_port` has returned in this process: a worker may be about to bind it."""


def free_port() -> int:
    """Return a port on loopback that nothing listens on, and a different one at each call."""
    for port in _candidates():
        if port not in _chosen and is_free(port):
            _chosen.add(port)
            return port
    raise PortUnavailable(f"no port from {_LOWEST} to {MAX_PORT} of {HOST} is free")


class GatewayPorts:
    """The ports of the gateways of a host: one for each namespace, from the option's on."""

    def __init__(self, first: int, option: str = "--port") -> None:
        self._first = first
        self._option = option
        self._ports: dict[str, int] = {}

    def __getitem__(self, namespace: str) -> int:
        return self._ports[namespace]

    def assign(self, namespaces: Iterable[str]) -> None:
        """Choose ports for namespaces whose gateways are about to start.

        The first namespace of the host gets the option's port itself. Each other gets the next
        free port above those in use, since only the first port was asked for. A namespace that had
        a port before keeps it if it is still free.

        Raises:
            PortUnavailable: the option's port is in use, or no port above it is free.

        """
        for namespace in namespaces:
            if not self._ports:
                check_free(self._first, self._option)
                self._ports[namespace] = self._first
            elif namespace not in self._ports or not is_free(self._ports[namespace]):
                self._ports[namespace] = self._next(namespace)

    def _next(self, namespace: str) -> int:
        above = max(self._ports.values())
        for port in range(above + 1, MAX_PORT + 1):
            if port not in _chosen and is_free(port):
                return port
        raise PortUnavailable(
            f"the gateway of namespace {namespace} needs a port of its own, and none above {above} "
            f"is free: choose a lower {self._option}"
        )


def _candidates() -> list[int]:
    """Return the ports that a worker may get, from a random one on."""
    low, high = _outgoing_range()
    outside = [*range(_LOWEST, low), *range(max(_LOWEST, high + 1), MAX_PORT + 1)]
    ports = outside if len(outside) >= _FEW else list(range(_LOWEST, MAX_PORT + 1))
    # From the system's entropy: a test that seeds the generator would repeat another's choices.
    start = random.SystemRandom().randrange(len(ports))
    return ports[start:] + ports[:start]


def _outgoing_range() -> tuple[int, int]:
    try:
        low, high = map(int, OUTGOING.read_text("ascii").split())
    except (OSError, ValueError):
        return _OUTGOING_ELSEWHERE
    return low, high


def is_free(port: int) -> bool:
    """Return whether a port of loopback can be bound."""
    try:
        _bind(port)
    except OSError:
        return False
    return True


def _bind(port: int) -> None:
    """Bind a port for a moment. Raises OSError if it cannot be bound."""
    with socket.socket() as probe:
        # As servers do, so that recently closed connections do not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, port))


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
