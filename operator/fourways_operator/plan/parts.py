"""The parts of every mode's objects: names, labels, pods, network policies.

Every pod satisfies Pod Security ``restricted`` and has no API token, a read-only root and limits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from fourways_api import API_VERSION, KIND, ModelDeployment, ModelReference, Resources
from fourways_api.addresses import Address
from fourways_api.addresses import claims as claims_of
from fourways_api.callers import SERVERS_CA_FILE
from fourways_api.runtime_config import (
    CACHE_DIR,
    MODEL_IMAGE_DIR,
    SECRETS_ROOT,
    STORE_URI_FILE,
    VOLUMES_ROOT,
)

from ..facts import Json, OperatorSettings

MANAGER = "fourways"
MANAGED_BY = "app.kubernetes.io/managed-by"
DEPLOYMENT_LABEL = "fourways.dev/deployment"
COMPONENT_LABEL = "fourways.dev/component"
MODE_LABEL = "fourways.dev/mode"
ROLLBACK_LABEL = "fourways.dev/rollback"
"""Label of a Job that rolls back to an earlier run. It is not a run itself."""

QUALITY_LABEL = "fourways.dev/quality"
"""Label of a quality worker, which is no worker of the mode."""

RUN_LABEL = "fourways.dev/run"
"""Label of a run's Ray objects: the name of its Job."""

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
"""Label by which Kueue finds the Jobs to admit."""

GATEWAY = "fourways-gateway"

STARTUP_SECONDS = 120
"""How long a container that serves HTTP may take until it listens; then its liveness counts."""

_OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_MAX_NAME = 253

GPU = "nvidia.com/gpu"
"""Resource of GPUs where a spec names none."""

USER = 65532
"""The user of the images: distroless' nonroot, which owns no files on the host."""

NO_PRIVILEGES = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
"""What Pod Security ``restricted`` demands of a container."""

WITHOUT_DOWNTIME = {
    "type": "RollingUpdate",
    "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
}
"""A new pod is ready before an old one is stopped."""

PORTS_OF_SCHEME = {
    "http": (80,),
    "https": (443,),
    "s3": (443, 80),
    "gs": (443,),
    "az": (443,),
    "oci": (443,),
}


def metadata(namespace: str, name: str, labels: Json, owners: Sequence[Json]) -> Json:
    """Return an object's metadata with the manager's label and its owners."""
    return {
        "name": name,
        "namespace": namespace,
        "labels": {MANAGED_BY: MANAGER, **labels},
        "ownerReferences": list(owners),
    }


def controller_of(deployment: ModelDeployment) -> Json:
    """Return the owner reference of an object that lives and dies with its deployment."""
    return {
        **owner(deployment.metadata.name, deployment.metadata.uid),
        "controller": True,
    }


def owner(name: str, uid: str) -> Json:
    """Return a plain owner reference: the object is garbage collected after its last owner."""
    return {"apiVersion": API_VERSION, "kind": KIND, "name": name, "uid": uid}


def service_account(meta: Json) -> Json:
    """Return a ServiceAccount without rights and without a token."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": meta,
        "automountServiceAccountToken": False,
    }


def pod_spec(
    *,
    service_account_name: str,
    container: Json,
    volumes: list[Json],
    restart_policy: str,
    before: Sequence[Json] = (),
) -> Json:
    """Return a pod with one container that Pod Security ``restricted`` admits.

    The containers ``before`` run to their ends first, one after the other.
    """
    return {
        **pod_security(service_account_name, {"runAsUser": USER, "runAsGroup": USER}),
        "restartPolicy": restart_policy,
        **({"initContainers": list(before)} if before else {}),
        "containers": [container],
        "volumes": volumes,
    }


def pod_security(service_account_name: str, user: Json) -> Json:
    """Return the fields of a pod that keep it from its node and from the API server.

    ``user`` names the user of its containers; if it is empty, that of the image, never root.
    """
    return {
        "serviceAccountName": service_account_name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            **user,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def container(
    *,
    name: str,
    image: str,
    settings: OperatorSettings,
    args: list[str],
    env: list[Json],
    resources: Resources,
    mounts: list[Json],
    idle: Resources | None = None,
) -> Json:
    """Return the container of a workload: no privileges, read-only root, always with limits.

    ``resources`` is the limit, and also the request unless ``idle`` gives what an idle container
    needs.
    """
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        "args": args,
        "env": env,
        "resources": _requests(resources, idle),
        "securityContext": {**NO_PRIVILEGES, "readOnlyRootFilesystem": True},
        "volumeMounts": mounts,
    }


def served(port: int, *, ready: str, every: int = 2, notice_seconds: int = 3) -> Json:
    """Return what a container that serves HTTP also needs: a port, probes, a notice period."""
    probe = {"path": "/v2/health/live", "port": port}
    fields: Json = {
        "ports": [{"name": "http", "containerPort": port, "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": ready, "port": port}, "periodSeconds": every},
        # On a node whose processors are taken, Python may need more than half a minute to start,
        # and each restart takes them again. A startup probe would hold up readiness as well.
        "livenessProbe": {
            "httpGet": probe,
            "initialDelaySeconds": STARTUP_SECONDS,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
        },
    }
    if notice_seconds:
        # Endpoints still contain a pod for some time after it receives the signal to stop.
        fields["lifecycle"] = {"preStop": {"sleep": {"seconds": notice_seconds}}}
    return fields


def resources(of_spec: Resources) -> Json:
    """Return the resources of a container: requests are the limits, so they are guaranteed."""
    return _requests(of_spec, None)


def _requests(limits: Resources, idle: Resources | None) -> Json:
    return {"requests": _amounts(idle or limits), "limits": _amounts(limits)}


def _amounts(resources: Resources) -> Json:
    amounts = {"cpu": resources.cpu, "memory": resources.memory}
    if resources.gpus is not None:
        amounts[resources.gpu_resource or GPU] = str(resources.gpus)
    return amounts


class Mounts:
    """Collects a pod's volumes and the mounts of its container."""

    def __init__(self, volumes: Iterable[Json] = (), mounts: Iterable[Json] = ()) -> None:
        self.volumes = list(volumes)
        self.mounts = list(mounts)

    def scratch(self, name: str, path: str, size: str) -> None:
        """Add a private writable folder that is deleted with the pod."""
        self._add(name, {"emptyDir": {"sizeLimit": size}}, path)

    def store(self, settings: OperatorSettings, *, reads: bool = False) -> None:
        """Mount the prediction store's address; ``reads``: the one for reading, if there is one.

        The volume is optional, so that the workload can report a missing Secret; otherwise the pod
        would not start.
        """
        secret = (settings.gateway_store_secret if reads else None) or settings.store_secret
        self.secret("store", secret, STORE_URI_FILE.rpartition("/")[0])

    def secret(
        self, name: str, secret: str, path: str, *, optional: bool = True, only: str | None = None
    ) -> None:
        """Mount one Secret as a folder, or one key of it. If optional, the pod starts without."""
        source: Json = {"secretName": secret, "optional": optional}
        if only is not None:
            source["items"] = [{"key": only, "path": only}]
        self._add(name, {"secret": source}, path, read_only=True)

    def servers_authority(self, settings: OperatorSettings) -> None:
        """Mount the authority of model servers' certificates, without any key."""
        folder, _, file = SERVERS_CA_FILE.rpartition("/")
        self.secret("servers", settings.servers_authority, folder, only=file)

    def secrets(self, names: Iterable[str]) -> None:
        """Mount credential Secrets, one per folder. Raises ValueError for an invalid name."""
        unique = sorted(set(names))
        check_names(unique)
        for index, name in enumerate(unique):
            source = {"secret": {"secretName": name, "optional": True}}
            self._add(f"secret-{index}", source, f"{SECRETS_ROOT}/{name}", read_only=True)

    def claims(self, uris: Iterable[str], written: Iterable[str] = ()) -> None:
        """Mount the claims that ``pvc://CLAIM/PATH`` URIs name, one per folder.

        They are read-only, except for those that ``written`` URIs name. Raises ValueError for an
        invalid name.
        """
        uris, written = list(uris), list(written)
        check_names((), [*uris, *written])
        writable = claims_of(written)
        for index, name in enumerate(sorted(claims_of(uris) | writable)):
            claim: Json = {"claimName": name}
            if name not in writable:
                claim["readOnly"] = True
            self._add(
                f"claim-{index}",
                {"persistentVolumeClaim": claim},
                f"{VOLUMES_ROOT}/{name}",
                read_only=name not in writable,
            )

    def model(self, model: ModelReference) -> None:
        """Mount the image that the model is in, if the node pulls it."""
        if model.image_path is not None:
            reference = model.uri.removeprefix("oci://")
            # Also for a tag: the worker verifies the digest of the file.
            source = {"reference": reference, "pullPolicy": "IfNotPresent"}
            self._add("model", {"image": source}, MODEL_IMAGE_DIR, read_only=True)

    def cache(self, size_mib: int) -> None:
        """Add the private folder that a model is downloaded to, and /tmp."""
        self.scratch("cache", CACHE_DIR, f"{size_mib}Mi")
        self.scratch("tmp", "/tmp", "256Mi")  # noqa: S108  (the pod's own)

    def _add(self, name: str, source: Json, path: str, *, read_only: bool = False) -> None:
        self.volumes.append({"name": name, **source})
        mount: dict[str, Any] = {"name": name, "mountPath": path}
        if read_only:
            mount["readOnly"] = True
        self.mounts.append(mount)


def check_names(secrets: Iterable[str], claim_uris: Iterable[str] = ()) -> None:
    """Refuse names of Secrets and claims that no API server accepts.

    Validation refuses them too. The check is repeated here because with one such name in the
    gateway's pod the API server would refuse the gateway of the whole namespace.

    Raises:
        ValueError: the text names the Secret or claim.

    """
    for kind, names in (("Secret", secrets), ("claim", claims_of(claim_uris))):
        for name in names:
            if len(name) > _MAX_NAME or not _OBJECT_NAME.fullmatch(name):
                raise ValueError(f"no {kind} can have the name {name!r}")


def ports_of(uris: Iterable[str]) -> set[int]:
    """Return the TCP ports that fetching these URIs needs. Raises ValueError."""
    ports: set[int] = set()
    for uri in uris:
        address = Address.parse(uri)
        default = PORTS_OF_SCHEME.get(address.scheme, ())
        ports.update(default if address.port is None else (address.port,))
    return ports


def disruption_budget(meta: Json, pods: Json) -> Json:
    """Return a budget that lets node drains evict one pod at a time."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": meta,
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": pods}},
    }
