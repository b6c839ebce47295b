"""What is said of a deployment, as tables. Pure, one file a mode.

A condition is decided by an ordered list of checks, one line each; the first that has something
to say decides. Each mode's ``CONDITIONS`` is its table of contents; the checks that more than one
mode makes are in ``common``, and those of workloads that answer as long as they live in
``served``.
"""

from __future__ import annotations

from fourways_api import ModelDeployment, Status

from ..facts import Facts
from . import batch, edge, realtime, streaming
from .common import KSERVE_MISSING, ConditionResult, ModeView


def view_of(facts: Facts, deployment: ModelDeployment, old: Status) -> ModeView:
    """Return the facts, digested as the deployment's mode looks at them.

    ``old`` is the last status, empty when it was of another mode.
    """
    match deployment.spec.choice().mode:
        case "batch":
            return batch.BatchView.of(facts, deployment, old)
        case "realtime":
            return realtime.RealtimeView.of(facts, deployment, old)
        case "streaming":
            return streaming.StreamingView.of(facts, deployment, old)
        case "edge":
            return edge.EdgeView.of(facts, deployment, old)


def evaluate(view: ModeView) -> dict[str, ConditionResult]:
    """Return what each condition's checks say."""
    return {
        kind: next(v for v in (check(view) for check in checks) if v is not None)
        for kind, checks in view.conditions.items()
    }


__all__ = ["KSERVE_MISSING", "ConditionResult", "ModeView", "evaluate", "view_of"]
