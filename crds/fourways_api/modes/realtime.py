"""Settings of the real-time mode."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ..base import ApiModel, Rule, longer_than_zero
from ..values import Duration
from .features import FeatureLookup
from .serving_runtime import ServingRuntimeReference


class RequestLimits(ApiModel):
    """Size limits of requests and responses."""

    body_mi_b: Annotated[int, Field(ge=1, le=128, alias="bodyMiB")] = 16
    """Maximum size of a request's body, also once it is decompressed, in MiB."""

    rows: Annotated[int, Field(ge=1, le=65_536)] = 1024
    """Maximum number of records of a request, and of records that are scored together."""

    answer_mi_b: Annotated[int, Field(ge=1, le=256, alias="answerMiB")] = 64
    """Maximum size of a response through the gateway, in MiB."""


class Realtime(ApiModel):
    """Answer each request immediately, from a KServe InferenceService."""

    min_replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """Minimum number of replicas. With 0, the last one ends when no requests come, and the next
    request starts one and waits for it."""

    max_replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    """Maximum number of replicas. If it is above minReplicas, an autoscaler chooses the number."""

    target_cpu_percent: Annotated[int, Field(ge=1, le=100)] = 70
    """Average CPU use, as a share of resources.cpu, above which the autoscaler adds a replica."""

    target_concurrency: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Number of concurrent requests per replica above which the autoscaler adds a replica, instead
    of the CPU use. It needs KEDA, and the installation's Prometheus."""

    timeout: Duration = "1s"
    """Maximum duration of a request. A request that takes longer is refused."""

    limits: RequestLimits = RequestLimits()
    """Size limits of requests and responses."""

    scale_to_zero_after: Duration = "5m"
    """Time without a request after which the last replica ends, with minReplicas 0."""

    wake_timeout: Duration = "30s"
    """Maximum time that a request waits for a replica to start, with minReplicas 0. It does not
    count towards timeout."""

    fallback: Literal["none", "stored"] = "none"
    """What answers while a replica starts, with minReplicas 0. stored: a prediction of the
    deployment in the prediction store, for requests by entity key alone; others wait."""

    features: FeatureLookup | None = None
    """Inputs that are fetched from a database by entity key for each request."""

    runtime: ServingRuntimeReference | None = None
    """Serve the model with a runtime of KServe instead of the Fourways model server. It fetches
    model.uri itself, and neither its inputs nor its predictions are held to the contract."""

    rules: ClassVar[tuple[Rule, ...]] = (
        longer_than_zero("timeout"),
        longer_than_zero("scaleToZeroAfter"),
        longer_than_zero("wakeTimeout"),
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "minReplicas is above maxReplicas",
            "raise maxReplicas or lower minReplicas",
            ".maxReplicas",
        ),
        Rule(
            "!has(self.targetConcurrency) || self.maxReplicas > self.minReplicas",
            "targetConcurrency has no effect, as maxReplicas is not above minReplicas",
            "raise maxReplicas, or remove targetConcurrency",
            ".targetConcurrency",
        ),
        Rule(
            "!has(self.targetConcurrency) || self.minReplicas > 0",
            "KEDA would start and end the first replica as well",
            "set minReplicas to 1, or remove targetConcurrency: targetCpuPercent works with 0",
            ".targetConcurrency",
        ),
        Rule(
            "self.fallback == 'none' || self.minReplicas == 0",
            "fallback answers while no replica runs, and there always is one",
            "set minReplicas to 0, or remove fallback",
            ".fallback",
        ),
        Rule(
            "!has(self.runtime) || self.minReplicas > 0",
            "a runtime of KServe is not woken by requests",
            "set minReplicas to 1",
            ".minReplicas",
        ),
        Rule(
            "!has(self.runtime) || !has(self.features)",
            "a runtime of KServe looks up no features",
            "remove features, or remove runtime so that the Fourways model server runs the model",
            ".features",
        ),
    )
