"""The Open Inference Protocol V2 over gRPC: the same answers as over HTTP, from the same handlers.

gRPC is imported only where it is switched on, because it takes about 20 MB of memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from fourways_http import Server


class GrpcService(Protocol):
    """A gRPC server at work, or none."""

    async def stop(self) -> None:
        """Stop accepting calls, and wait a moment for those in progress."""
        ...


class _NoGrpc:
    async def stop(self) -> None:
        pass


async def listen_grpc(
    server: Server, host: str, port: int | None, tls_dir: str | None = None
) -> GrpcService:
    """Answer calls of gRPC as ``server`` answers HTTP; do nothing if ``port`` is None.

    Raises Unavailable if the port is taken, ConfigError if the certificate cannot be used.
    """
    if port is None:
        return _NoGrpc()
    from .listener import GrpcListener

    listener = GrpcListener(server.answer)
    await listener.start(host, port, Path(tls_dir) if tls_dir else None)
    return listener
