"""What a gateway reports about deployments that scale to zero, for who starts and ends replicas.

The gateway serves it under :data:`DEMAND_PATH` to the operator, or to the embedded host. It says
only what the gateway has seen; the reader decides.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

DEMAND_PATH = "/demand"

MAX_WAIT_SECONDS = 20.0
"""Longest time for which a gateway holds back an answer that says nothing new."""


class DeploymentDemand(BaseModel):
    """The requests for one deployment."""

    deployment: Annotated[str, Field(max_length=253)]
    waiting: Annotated[int, Field(ge=0)] = 0
    """Requests that wait for a replica."""

    idle: bool = False
    """Whether no request came for as long as the deployment's scaleToZeroAfter."""

    cold_start_seconds: Annotated[float, Field(ge=0, lt=1e6, allow_inf_nan=False)] | None = None
    """How long the first request of the last wake waited for its replica; None: none was seen."""

    woken_at: Annotated[str, Field(max_length=32)] | None = None
    """When that replica was ready, RFC 3339."""


class GatewayDemand(BaseModel):
    """The demand for all deployments of one gateway that scale to zero."""

    mark: Annotated[str, Field(max_length=64)] = ""
    """Names this state: a reader that sends it back waits for another one."""

    deployments: Annotated[tuple[DeploymentDemand, ...], Field(max_length=10_000)] = ()
