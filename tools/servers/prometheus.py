"""Prometheus and promtool, Debian's package."""

from __future__ import annotations

from pathlib import Path

from tools.cluster.debian import have

PROMETHEUS, PROMTOOL = Path("/usr/bin/prometheus"), Path("/usr/bin/promtool")
PACKAGES = {str(PROMETHEUS): "prometheus", str(PROMTOOL): "prometheus"}


def prometheus() -> tuple[Path, Path]:
    """Return the server and promtool, installed if they are missing.

    Raises:
        ClusterError: they are missing and may not or cannot be installed here.

    """
    have(PACKAGES)
    return PROMETHEUS, PROMTOOL
