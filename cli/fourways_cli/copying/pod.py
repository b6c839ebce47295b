"""The pod that receives files for a claim. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fourways_api import Resources
from fourways_operator.facts import OperatorSettings
from fourways_operator.plan import parts
from fourways_operator.plan.everywhere import dressed, installed_like

from . import receive

Json = dict[str, Any]

MOUNT = "/claim"
CONTAINER = "copy"
LIFE_SECONDS = 3600
"""Maximum life of the pod, should nobody be left to delete it."""

RESOURCES = Resources(cpu="500m", memory="128Mi")


def copy_pod(namespace: str, claim: str, image: str, gateway: Json) -> Json:
    """Return a pod that mounts a claim and waits; Pod Security ``restricted`` admits it.

    Pull Secrets and kind of user are those of ``gateway``, the spec of the gateway's pod.
    """
    settings = installed_like(gateway, OperatorSettings(runtime_image=image))
    container = parts.container(
        name=CONTAINER,
        image=image,
        settings=settings,
        args=["-c", f"import time; time.sleep({LIFE_SECONDS})"],
        env=[],
        resources=RESOURCES,
        mounts=[{"name": "claim", "mountPath": MOUNT}],
    )
    spec = parts.pod_spec(
        service_account_name="default",
        container={**container, "command": ["python"]},
        volumes=[{"name": "claim", "persistentVolumeClaim": {"claimName": claim}}],
        restart_policy="Never",
    )
    labels = {parts.MANAGED_BY: "fourways-cli", parts.COMPONENT_LABEL: "copy"}
    pod: Json = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "fourways-copy-", "namespace": namespace, "labels": labels},
        "spec": {
            **spec,
            "activeDeadlineSeconds": LIFE_SECONDS,
            "terminationGracePeriodSeconds": 0,
        },
    }
    return dressed([pod], settings)[0]


def receive_command(relative: str, size: int, digest: str) -> list[str]:
    """Return the command in the pod that receives one file on its standard input."""
    source = Path(receive.__file__).read_text("utf-8")
    return ["python", "-I", "-c", source, MOUNT, relative, str(size), digest]


def why_waiting(pod: Json) -> str:
    """Return why a pod does not run; empty if it says nothing."""
    status = pod.get("status") or {}
    for each in status.get("containerStatuses") or []:
        waiting = (each.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating"):
            return ": ".join(filter(None, (waiting["reason"], waiting.get("message"))))
    for each in status.get("conditions") or []:
        if each["type"] == "PodScheduled" and each["status"] == "False":
            return str(each.get("message") or each.get("reason"))
    return str(status.get("message") or "")
