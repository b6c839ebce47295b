"""A pod that runs a script of a test as a server, and its Service, in a restricted namespace."""

from __future__ import annotations

from fourways_operator.facts import Json


def script_server(name: str, namespace: str, image: str, script: str, port: int) -> list[Json]:
    """Return the pod and the Service; ``script`` is Python and listens on ``port``."""
    labels = {"app": name}
    meta = {"name": name, "namespace": namespace, "labels": labels}
    container = {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", script],
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    return [
        {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container]}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"selector": labels, "ports": [{"port": port}]},
        },
    ]
