"""Redis, Debian's package."""

from __future__ import annotations

from pathlib import Path

from tools.cluster.debian import have

PROGRAM = Path("/usr/bin/redis-server")
PACKAGES = {str(PROGRAM): "redis-server"}


def redis_server() -> Path:
    """Return the server's program, installed if it is missing.

    Raises:
        ClusterError: it is missing and may not or cannot be installed here.

    """
    have(PACKAGES)
    return PROGRAM
