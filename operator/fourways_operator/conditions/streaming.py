"""The conditions of a streaming deployment, from the pods of its consumers and the gateway."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fourways_api import Route

from ..plan.streaming import replicas, route
from .common import (
    ConditionChain,
    gateway_degraded,
    gateway_missing,
    gateway_refuses,
    gateway_refuses_degrades,
    gateway_unaware,
    kind_missing,
    name_taken,
    nothing_wrong,
    refused,
)
from .drift import drift_conditions
from .served import (
    MODEL_RESOLVED,
    PROGRESSING,
    ServedView,
    answers,
    does_not_come_up,
    no_pod_ready,
    nothing_serves_and_refused,
    worker_degrades,
)


@dataclass(frozen=True)
class StreamingView(ServedView):
    """The pods of its consumers."""

    def conditions(self) -> Mapping[str, ConditionChain[StreamingView]]:
        """See ModeView."""
        return {
            "Ready": (
                name_taken,
                kind_missing,
                nothing_serves_and_refused,
                no_pod_ready,
                gateway_missing,
                gateway_unaware,
                gateway_refuses,
                answers,
            ),
            "Progressing": PROGRESSING,
            "Degraded": (
                refused,
                does_not_come_up,
                worker_degrades,
                gateway_degraded,
                gateway_refuses_degrades,
                nothing_wrong,
            ),
            "ModelResolved": MODEL_RESOLVED,
            **drift_conditions(self.deployment),
        }

    @property
    def route(self) -> Route | None:
        """See ModeView."""
        return route(self.deployment, None)

    def status_fields(self) -> dict[str, Any]:
        """See ModeView."""
        return {"quality": self.quality}

    @property
    def replicas(self) -> int:
        """Desired number of consumers."""
        streaming = self.deployment.spec.streaming
        return replicas(streaming) if streaming else 1
