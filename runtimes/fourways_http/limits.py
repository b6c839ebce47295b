"""What a client may cost: sizes in bytes, times in seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one server. Each is answered with a 4xx or 503, or ends the connection."""

    target_bytes: int = 8 * 1024
    """Request target (path and query); beyond: 414."""

    header_bytes: int = 32 * 1024
    """All header names and values of a request, trailers too; beyond: 431."""

    headers: int = 100
    """Number of headers of a request; beyond: 431."""

    body_bytes: int = 16 * 2**20
    """Body of a request, declared or chunked; beyond: 413."""

    buffered_bytes: int = 256 * 2**20
    """Bodies being received, over all connections; beyond: 503."""

    connections: int = 4096
    """Open connections; beyond: 503. The process's own limit of open files lowers it."""

    pipeline: int = 64
    """Requests of one connection that wait for their answers; beyond: its socket is not read."""

    idle_seconds: float = 75.0
    """Without a request a connection is closed."""

    header_seconds: float = 10.0
    """From a request's first header byte to its last; beyond: 408."""

    body_seconds: float = 30.0
    """From a request's last header to the end of its body; beyond: 408."""

    write_seconds: float = 30.0
    """A client that takes none of its answer for so long is cut off."""

    linger_seconds: float = 2.0
    """After a refusal what a client still sends is read and dropped for so long, or it would see a
    reset where the reason should be."""
