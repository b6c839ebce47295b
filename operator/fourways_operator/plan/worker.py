"""What the workers of all modes have in common: names, configuration, mounts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from fourways_api import (
    ApiModel,
    FetchPolicy,
    Mode,
    ModelDeployment,
    ProfileFile,
    Resources,
    RuntimeConfig,
    SecretReference,
    worker_memory,
    worker_threads,
)
from fourways_api.contract import ContractFile
from fourways_api.runtime_config import (
    CONFIG_VARIABLE,
    MODEL_IMAGE_SCHEME,
    TERMINAL_EXIT_CODES,
    environment_text,
)

from ..facts import Json, OperatorSettings
from . import parts
from .placement import placement

PORT = 8080
"""Port of every long-running worker, for health and metrics too."""

GRACE_SECONDS = 40
"""The notice period, then at most twenty seconds to finish work in progress."""

C = TypeVar("C", bound=RuntimeConfig)


def name_of(deployment: str, mode: Mode) -> str:
    """Return the name of a mode's main object and of its other objects."""
    return f"{deployment}-{mode}"


@dataclass(frozen=True, slots=True)
class Identity:
    """Name, labels and owner of a deployment's objects."""

    deployment: ModelDeployment
    mode: Mode

    @property
    def name(self) -> str:
        """Name of the mode's main object and of its other objects."""
        return name_of(self.deployment.metadata.name, self.mode)

    @property
    def labels(self) -> Json:
        """Labels that select the deployment's pods."""
        return {
            parts.DEPLOYMENT_LABEL: self.deployment.metadata.name,
            parts.MODE_LABEL: self.mode,
        }

    @property
    def pod_labels(self) -> Json:
        """Labels of its pods: those by which the operator finds them, and the spec's."""
        pod = self.deployment.spec.pod
        return {**(pod.labels if pod else {}), parts.MANAGED_BY: parts.MANAGER, **self.labels}

    @property
    def pod_annotations(self) -> Json:
        """Annotations of its pods, as a field of metadata; empty if there are none."""
        pod = self.deployment.spec.pod
        return {"annotations": dict(pod.annotations)} if pod and pod.annotations else {}

    def pod_meta(self) -> Json:
        """Return the metadata of its pods."""
        return {"labels": self.pod_labels, **self.pod_annotations}

    def service_account(self) -> Json:
        """Return the ServiceAccount of its pods, without rights and without a token."""
        made = parts.service_account(self.meta())
        pod = self.deployment.spec.pod
        if pod and pod.service_account_annotations:
            made["metadata"]["annotations"] = dict(pod.service_account_annotations)
        return made

    def meta(self, name: str | None = None) -> Json:
        """Return the metadata of one of its objects."""
        owners = [parts.controller_of(self.deployment)]
        namespace = self.deployment.metadata.namespace
        return parts.metadata(namespace, name or self.name, self.labels, owners)


def config(
    kind: type[C],
    deployment: ModelDeployment,
    settings: OperatorSettings,
    pinned_digest: str | None,
    **of_mode: Any,
) -> C:
    """Return a worker's configuration; ``of_mode`` contains the settings of its mode only."""
    spec = deployment.spec
    namespace, name = deployment.key
    fetch = fetch_policy(settings)
    if spec.model.image_path is not None:
        schemes = (*fetch.schemes, MODEL_IMAGE_SCHEME)
        fetch = fetch.model_copy(update={"schemes": schemes})
    return kind(
        namespace=namespace,
        name=name,
        model=spec.model,
        digest=spec.model.digest or pinned_digest,
        contract=spec.contract,
        monitoring=spec.monitoring,
        threads=worker_threads(spec.resources),
        memory_bytes=worker_memory(spec.resources),
        fetch=fetch,
        **of_mode,
    )


def fetch_policy(settings: OperatorSettings) -> FetchPolicy:
    """Return where workloads may download from."""
    return FetchPolicy(schemes=settings.allowed_schemes, hosts=settings.allowed_hosts)


def variable(config: ApiModel) -> Json:
    """Return the environment variable that holds a configuration."""
    return {"name": CONFIG_VARIABLE, "value": environment_text(config)}


def tracing_variables(settings: OperatorSettings, namespace: str) -> list[Json]:
    """Return the variables of OpenTelemetry; empty if nothing is traced."""
    if not settings.tracing:
        return []
    where = ("OTEL_RESOURCE_ATTRIBUTES", f"k8s.namespace.name={namespace}")
    return [{"name": name, "value": value} for name, value in (*settings.tracing, where)]


def variables_of(deployment: ModelDeployment) -> list[Json]:
    """Return the environment variables of the spec. Kubernetes expands nothing in them."""
    pod = deployment.spec.pod
    return [
        {"name": each.name, "value": each.value.replace("$", "$$")}
        for each in (pod.env if pod else ())
    ]


def model_uris(deployment: ModelDeployment) -> list[str]:
    """Return the URIs that every worker fetches: the model's and those of the files beside it.

    A model in an image is not among them: the node pulls it.
    """
    model = deployment.spec.model
    fetched = [model.uri] if model.image_path is None else []
    return [*fetched, *(each.uri for each in _files_beside(deployment))]


def secrets(deployment: ModelDeployment, *of_mode: SecretReference | None) -> list[str]:
    """Return the Secrets a worker reads: the model's, that of the files beside it, its mode's."""
    references = (
        deployment.spec.model.credentials,
        *(each.credentials for each in _files_beside(deployment)),
        *of_mode,
    )
    return [r.secret_name for r in references if r]


def truth(deployment: ModelDeployment) -> tuple[list[str], list[SecretReference | None]]:
    """Return the URI of the table of labels and the Secrets it is read with; empty without one."""
    quality = deployment.spec.quality
    table = quality.truth if quality else None
    if table is None:
        return [], []
    uris = [table.uri] if table.uri else []
    return uris, [table.credentials, table.query.database if table.query else None]


def _files_beside(deployment: ModelDeployment) -> list[ContractFile | ProfileFile]:
    """Return the files of the contract, and the training profile if there is one."""
    spec = deployment.spec
    profile = (spec.monitoring.profile,) if spec.monitoring else ()
    return [*spec.contract.files, *profile]


def container(
    deployment: ModelDeployment,
    settings: OperatorSettings,
    *,
    name: str,
    args: list[str],
    env: list[Json],
    mounts: parts.Mounts,
    resources: Resources | None = None,
    image: str = "",
) -> Json:
    """Return a worker's container: with the deployment's image and resources, unless given.

    Variables of the spec come before ``env``, so they replace none.
    """
    return parts.container(
        name=name,
        image=image or deployment.spec.image or settings.runtime_image,
        settings=settings,
        args=args,
        env=[*variables_of(deployment), *env],
        resources=resources or deployment.spec.resources,
        mounts=mounts.mounts,
    )


def serving_pod(who: Identity, container: Json, mounts: parts.Mounts) -> Json:
    """Return the pod of a long-running worker, with a grace period."""
    return {
        **pod(who, container, mounts, restart_policy="Always"),
        "terminationGracePeriodSeconds": GRACE_SECONDS,
    }


def pod(who: Identity, container: Json, mounts: parts.Mounts, *, restart_policy: str) -> Json:
    """Return a worker's pod, placed as the spec says."""
    made = parts.pod_spec(
        service_account_name=who.name,
        container=container,
        volumes=mounts.volumes,
        restart_policy=restart_policy,
    )
    return made | placement(who.deployment.spec.pod, who.labels)


def failure_policy(*container_names: str) -> Json:
    """Return a Job's policy for failed pods.

    A disruption does not count as a failure; an error that no retry can fix ends the Job.
    """
    return {
        "rules": [
            {
                "action": "Ignore",
                "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
            },
            *(
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": name,
                        "operator": "In",
                        "values": list(TERMINAL_EXIT_CODES),
                    },
                }
                for name in container_names
            ),
        ]
    }
