"""Where commands act: the host that runs here, or a cluster of the kubeconfig.

Both have the same methods, so commands need not distinguish them.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

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
from .observed import Inspection, LogLine, LogQuery

if TYPE_CHECKING:
    from .cluster import ClusterTarget
    from .embedded import EmbeddedTarget

_LATER = {"ClusterTarget": ".cluster", "EmbeddedTarget": ".embedded"}
"""What is imported when it is first used: not every command has a target."""


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATER[name], __name__), name)


def choose_target(state: Path, choice: ClusterChoice) -> Target:
    """Return the host running at ``state`` if there is one, else the cluster.

    Raises:
        TargetError: there is neither, or the kubeconfig cannot be used.

    """
    if not choice.explicit and is_running(state):
        from .embedded import EmbeddedTarget

        return EmbeddedTarget(state)
    from .cluster import ClusterTarget

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
