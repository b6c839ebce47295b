"""Where a deployment's pods run: the fields of ``spec.pod`` as those of a pod. Pure."""

from __future__ import annotations

from fourways_api.pod import NodeRequirement, Pod, TopologySpread

from ..facts import Json


def placement(pod: Pod | None, labels: Json) -> Json:
    """Return the fields of a pod that are set. ``labels`` select the pods that are spread."""
    if pod is None:
        return {}
    fields: Json = {
        "nodeSelector": dict(pod.node_selector),
        "affinity": _affinity(pod.node_affinity) if pod.node_affinity else {},
        "tolerations": [one.to_json() for one in pod.tolerations],
        "topologySpreadConstraints": [_spread(one, labels) for one in pod.topology_spread],
        "priorityClassName": pod.priority_class_name,
        "runtimeClassName": pod.runtime_class_name,
        "imagePullSecrets": [{"name": name} for name in pod.image_pull_secrets],
    }
    return {name: value for name, value in fields.items() if value}


def _affinity(requirements: tuple[NodeRequirement, ...]) -> Json:
    expressions = [
        {"key": one.key, "operator": one.operator}
        | ({"values": list(one.values)} if one.values else {})
        for one in requirements
    ]
    terms = {"nodeSelectorTerms": [{"matchExpressions": expressions}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


def _spread(spread: TopologySpread, labels: Json) -> Json:
    return {**spread.to_json(), "labelSelector": {"matchLabels": dict(labels)}}
