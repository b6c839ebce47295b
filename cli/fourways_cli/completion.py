"""Names for shell completion: `fourways --install-completion` has the shell ask for them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import typer

from .embedded.control import STATE, HostNotRunning
from .targets import ClusterChoice, TargetError, choose_target

SECONDS = 3.0
"""Maximum time that a person at a prompt waits for names."""


def deployment_names(context: typer.Context, incomplete: str) -> list[str]:
    """Return the deployments that the options typed so far mean; none if they cannot be had."""
    found: list[str] = []
    # A daemon: a cluster that does not answer holds up neither the prompt nor the end.
    asking = threading.Thread(target=lambda: found.extend(_names(context.params)), daemon=True)
    asking.start()
    asking.join(SECONDS)
    return [name for name in found if name.startswith(incomplete)]


def _names(options: Mapping[str, Any]) -> list[str]:
    choice = ClusterChoice(
        bool(options.get("cluster")), options.get("kubeconfig"), options.get("context")
    )
    try:
        target = choose_target(options.get("state") or STATE, choice)
        namespace = options.get("namespace") or target.default_namespace()
        return sorted(str(d["metadata"]["name"]) for d in target.deployments(namespace))
    except (TargetError, HostNotRunning):
        return []
