"""Connections: which addresses are allowed, and for how long.

A name is resolved here, once, and the connection goes to the very address that was checked; a
resolver that returns another address the second time has no effect. Every read and write is limited
to the rest of the fetch's time, so a peer that sends a byte per second, in a header or in a body,
cannot delay us. No proxy and no netrc is ever read: httpcore supports neither.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore

from fourways_api.hosts import is_forbidden
from fourways_runtime.errors import FetchRefused

from .source import Deadline

_STALL_SECONDS = 30.0
"""A peer that is silent for this long is abandoned, even if the fetch has time left."""


def check_address(text: str, host: str) -> None:
    """Reject link-local, metadata and multicast addresses; ``host`` is the name for the message."""
    if is_forbidden(ipaddress.ip_address(text.partition("%")[0])):
        raise FetchRefused(f"{host} has a link-local or metadata address, which is never contacted")


class GuardedStream(httpcore.NetworkStream):
    """A connection whose operations all end when the fetch's time is up."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def _limit(self, timeout: float | None) -> float:
        return min(timeout or _STALL_SECONDS, _STALL_SECONDS, self._deadline.remaining())

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read at most ``max_bytes``."""
        return self._stream.read(max_bytes, self._limit(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all of ``buffer``."""
        self._stream.write(buffer, self._limit(timeout))

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        """Start TLS on this connection."""
        secure = self._stream.start_tls(ssl_context, server_hostname, self._limit(timeout))
        return GuardedStream(secure, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        """Return information about the connection."""
        return self._stream.get_extra_info(info)


class GuardedBackend(httpcore.NetworkBackend):
    """Connects only to checked addresses."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Resolve the host, check every address, connect to the first that answers."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise httpcore.ConnectError(f"{host} cannot be resolved") from None
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses:
            check_address(address, host)
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            limit = min(timeout or _STALL_SECONDS, self._deadline.remaining())
            with contextlib.suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                stream = self._backend.connect_tcp(
                    address, port, limit, local_address, socket_options
                )
                return GuardedStream(stream, self._deadline)
            failure = httpcore.ConnectError(f"{host} does not accept connections")
        raise failure
