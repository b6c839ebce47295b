"""Settings of the real-time mode."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from ..base import ApiModel, Rule, longer_than_zero
from ..values import Duration
from .features import FeatureLookup


class Realtime(ApiModel):
    """Answer each request at once, from a KServe InferenceService."""

    min_replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """Replicas kept without traffic; 0 scales to zero."""

    max_replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    """Replicas at the most."""

    timeout: Duration = "1s"
    """A request that takes longer is refused."""

    features: FeatureLookup | None = None
    """Inputs fetched by entity key at request time."""

    rules: ClassVar[tuple[Rule, ...]] = (
        longer_than_zero("timeout"),
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "minReplicas is above maxReplicas",
            "raise maxReplicas or lower minReplicas",
            ".maxReplicas",
        ),
    )
