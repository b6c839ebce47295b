"""Limits on what a client may use: sizes in bytes, times in seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one server. Exceeding one leads to a 4xx or 503, or ends the connection."""

    target_bytes: int = 8 * 1024
    """Request target (path and query); beyond: 414."""

    header_bytes: int = 32 * 1024
    """All header names and values of a request, trailers included; beyond: 431."""

    headers: int = 100
    """Number of headers of a request; beyond: 431."""

    body_bytes: int = 16 * 2**20
    """Body of a request, declared or chunked; beyond: 413."""

    buffered_bytes: int = 256 * 2**20
    """Bodies in memory, over all connections; beyond: 503."""

    connections: int = 4096
    """Open connections; beyond: 503. The process's limit on open files can lower it."""

    pipeline: int = 64
    """Requests of one connection that wait for their responses; beyond: its socket is not read."""

    idle_seconds: float = 75.0
    """A connection without a request for this long is closed."""

    header_seconds: float = 10.0
    """From a request's first header byte to its last; beyond: 408."""

    body_seconds: float = 30.0
    """From a request's last header to the end of its body; beyond: 408."""

    write_seconds: float = 30.0
    """A client that reads none of its response for this long is disconnected."""

    linger_seconds: float = 2.0
    """After a refusal, the server reads and drops what the client still sends for this long;
    otherwise the client would see a reset instead of the reason.
    """
