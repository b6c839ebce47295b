"""The predictor of a real-time deployment that a runtime of KServe serves.

KServe takes image, ports and probes from the ServingRuntime, and its storage initializer fetches
the model. What is ours stays: ServiceAccount without a token, pod security, resources, placement.
"""

from __future__ import annotations

from fourways_api import ModelDeployment
from fourways_api.modes import ServingRuntimeReference

from ..facts import Json
from . import parts, worker
from .placement import placement


def predictor(
    deployment: ModelDeployment, runtime: ServingRuntimeReference, who: worker.Identity
) -> Json:
    """Return the pod's part of an InferenceService's predictor."""
    spec = deployment.spec
    model: Json = {
        "modelFormat": {"name": runtime.model_format},
        "storageUri": spec.model.uri,
        "resources": parts.resources(spec.resources),
        "securityContext": parts.NO_PRIVILEGES,
        **({"runtime": runtime.name} if runtime.name else {}),
        **({"protocolVersion": runtime.protocol_version} if runtime.protocol_version else {}),
        **({"args": list(runtime.args)} if runtime.args else {}),
    }
    env = worker.variables_of(deployment)
    if env:
        model["env"] = env
    return {
        **parts.pod_security(who.name, {}),
        "model": model,
        "terminationGracePeriodSeconds": worker.GRACE_SECONDS,
        **placement(spec.pod, who.labels),
    }
