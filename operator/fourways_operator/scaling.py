"""When a real-time deployment sleeps: how many replicas KServe's Deployment should have. Pure.

It decides only between none and one. An autoscaler may add replicas to one, and Kubernetes' own
leaves a Deployment without replicas alone. The state is in the cluster (the number of replicas, and
a Ready condition of this generation), so a new operator goes on where the last one ended.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import ValidationError

from fourways_api import Condition, ModelDeployment, Status

from .facts import Demand, Json
from .kinds import DEPLOYMENT, INFERENCE_SERVICE
from .plan.realtime import predictor_of
from .pods import config_text, container_of


def may_sleep(deployment: ModelDeployment) -> bool:
    """Tell whether a deployment scales to zero."""
    realtime = deployment.spec.realtime
    if realtime is None or deployment.spec.choice().mode != "realtime":
        return False
    return realtime.min_replicas == 0


def scaled_of(deployment: ModelDeployment, children: Iterable[Json]) -> Json | None:
    """Return the live Deployment that KServe made for it."""
    name = predictor_of(deployment.metadata.name)
    found = (c for c in children if DEPLOYMENT.of(c) and c["metadata"]["name"] == name)
    return next(found, None)


def replicas_of(scaled: Json) -> int:
    """Return the number of replicas that a Deployment should have."""
    count = scaled["spec"].get("replicas")
    return 1 if count is None else int(count)


def is_proven(document: Json) -> bool:
    """Tell whether the current spec was ready to serve when the status was last written."""
    ready = _ready(document)
    generation = document["metadata"].get("generation", 0)
    return _was_ready(document) and ready is not None and ready.observed_generation == generation


def becomes_idle(
    deployment: ModelDeployment | None, document: Json, status: Json, demand: Demand | None
) -> bool:
    """Tell whether this status is the first by which the last replica may end.

    Gateways that were idle before the spec was ready say nothing more, and the operator's own
    status is no event: nothing else would lead to another look.
    """
    if deployment is None or demand is None or not demand.idle or not may_sleep(deployment):
        return False
    return not is_proven(document) and is_proven({**document, "status": status})


def _was_ready(document: Json) -> bool:
    ready = _ready(document)
    return ready is not None and ready.status == "True"


def _ready(document: Json) -> Condition | None:
    try:
        status = Status.model_validate(document.get("status") or {})
    except ValidationError:
        return None
    return next((c for c in status.conditions if c.type == "Ready"), None)


def replaces_a_sleeper(
    deployment: ModelDeployment, document: Json, wanted: Iterable[Json], children: Iterable[Json]
) -> bool:
    """Tell whether a changed spec would replace a version that sleeps and was ready before.

    Its replica has to start first. Otherwise nothing would go on serving if the new version fails.
    """
    children = tuple(children)
    scaled = scaled_of(deployment, children) if may_sleep(deployment) else None
    live = next((c for c in children if INFERENCE_SERVICE.of(c)), None)
    new = next((o for o in wanted if INFERENCE_SERVICE.of(o)), None)
    if scaled is None or live is None or new is None or not _was_ready(document):
        return False
    return pod_identity(live) != pod_identity(new)


def pod_identity(service: Json) -> tuple[str, str]:
    """Return what makes a predictor's pods others: image and configuration."""
    return str(container_of(service).get("image")), config_text(service)


def wanted_replicas(
    deployment: ModelDeployment, document: Json, scaled: Json, demand: Demand | None
) -> int | None:
    """Return the number of replicas to set; None to leave it as it is.

    A changed spec starts a replica once, so that a version that does not work is known before a
    caller needs it. Without news from all gateways nothing is put to sleep.
    """
    realtime = deployment.spec.realtime
    assert realtime is not None  # noqa: S101  (there is a predictor)
    count = replicas_of(scaled)
    if realtime.min_replicas > 0:
        return realtime.min_replicas if count == 0 else None
    waiting = demand is not None and demand.waiting > 0
    proven = is_proven(document)
    if count == 0:
        return 1 if waiting or not proven else None
    return 0 if proven and not waiting and demand is not None and demand.idle else None
