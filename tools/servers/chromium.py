"""Chromium, Debian's package: the browser that tests look at pages with."""

from __future__ import annotations

from pathlib import Path

from tools.cluster.debian import have

PROGRAM = Path("/usr/bin/chromium")
PACKAGES = {str(PROGRAM): "chromium"}


def chromium() -> Path:
    """Return the browser's program, installed if it is missing.

    Raises:
        ClusterError: it is missing and may not or cannot be installed here.

    """
    have(PACKAGES)
    return PROGRAM
