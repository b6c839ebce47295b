"""What the API server and KServe write into an object beside what was applied."""

from __future__ import annotations

from fourways_operator.facts import Json


def fill_in_defaults(obj: Json) -> None:
    """Put beside what was applied what the API server puts there."""
    spec = obj.get("spec", {})
    match obj["kind"]:
        case "CronJob":
            template = spec["jobTemplate"]["spec"]
            _default_pod(template["template"]["spec"])
            _default_job(template)
        case "Deployment":
            _default_pod(spec["template"]["spec"])
            spec.setdefault("revisionHistoryLimit", 10)
            spec.setdefault("progressDeadlineSeconds", 600)
        case "Job":
            _default_pod(spec["template"]["spec"])
            _default_job(spec)
            spec.setdefault(
                "selector", {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}}
            )
            obj.setdefault("status", {})
        case "ModelDeployment":
            obj.setdefault("status", {"observedGeneration": 0})
        case "InferenceService":
            _as_kserve_leaves_it(obj)
        case "Service":
            obj["spec"] = {"type": "ClusterIP", "clusterIP": "10.0.0.1", **spec}
    if obj["kind"] in ("CronJob", "Deployment"):
        obj.setdefault("status", {"availableReplicas": 1})


def _as_kserve_leaves_it(obj: Json) -> None:
    """Put there what KServe 0.20's webhook and controller write into an InferenceService."""
    name, namespace = obj["metadata"]["name"], obj["metadata"]["namespace"]
    obj["metadata"].setdefault("finalizers", ["inferenceservice.finalizers"])
    container = obj["spec"]["predictor"]["containers"][0]
    container["name"] = "kserve-container"
    # The webhook writes amounts as Go does.
    for amounts in container["resources"].values():
        amounts["cpu"] = {"1": "1", "0.5": "500m"}[amounts["cpu"]]
    obj["spec"]["predictor"]["deploymentStrategy"].setdefault("rollingUpdate", {})
    ready = [{"type": kind, "status": "True"} for kind in ("PredictorReady", "Ready")]
    url = f"http://{name}-predictor.{namespace}.svc.cluster.local"
    obj.setdefault("status", {"address": {"url": url}, "conditions": ready})


def _default_job(spec: Json) -> None:
    per_index = "backoffLimitPerIndex" in spec
    defaults = {
        "completions": 1,
        "parallelism": 1,
        "completionMode": "NonIndexed",
        "suspend": False,
        "backoffLimit": 2**31 - 1 if per_index else 6,
        "podReplacementPolicy": "Failed",
        "manualSelector": False,
    }
    for name, value in defaults.items():
        spec.setdefault(name, value)


def _default_pod(pod: Json) -> None:
    pod.setdefault("dnsPolicy", "ClusterFirst")
    pod.setdefault("terminationGracePeriodSeconds", 30)
    for volume in pod.get("volumes", []):
        if "secret" in volume:
            volume["secret"].setdefault("defaultMode", 420)
    for container in pod["containers"]:
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        for variable in container.get("env", []):
            if "valueFrom" in variable:
                variable["valueFrom"]["fieldRef"].setdefault("apiVersion", "v1")
