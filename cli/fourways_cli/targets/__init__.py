"""Where commands act: the host that runs here, or a cluster of the kubeconfig.

Both have the same methods, so commands need not distinguish them.
"""

from __future__ import annotations

from pathlib import Path

from ..embedded.control import is_running
from .base import (
    API_KEY_VARIABLE,
    GATEWAY_WAIT_SECONDS,
    ClusterChoice,
    Json,
    PurgeRequest,
    Target,
    TargetError,
    named,
)
from .cluster import ClusterTarget
from .embedded import EmbeddedTarget
from .observed import Inspection, LogLine, LogQuery


def choose_target(state: Path, choice: ClusterChoice) -> Target:
    """Return the host running at ``state`` if there is one, else the cluster.

    Raises:
        TargetError: there is neither, or the kubeconfig cannot be used.

    """
    if not choice.explicit and is_running(state):
        return EmbeddedTarget(state)
    return ClusterTarget(choice)


__all__ = [
    "API_KEY_VARIABLE",
    "GATEWAY_WAIT_SECONDS",
    "ClusterChoice",
    "ClusterTarget",
    "EmbeddedTarget",
    "Inspection",
    "Json",
    "LogLine",
    "LogQuery",
    "PurgeRequest",
    "Target",
    "TargetError",
    "choose_target",
    "named",
]
