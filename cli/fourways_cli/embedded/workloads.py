"""Translate planned Kubernetes objects to local processes. Pure.

It reads the objects that the operator would apply, so that a laptop runs what a pod would run: the
same program, arguments and configuration document. Only paths and ports in it are this host's. CPU
and memory limits are not enforced, and there is one replica.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import orjson

from fourways_api import (
    EdgeConfig,
    GatewayConfig,
    Paths,
    PurgeConfig,
    QualityConfig,
    RuntimeConfig,
    ServerConfig,
    StreamConfig,
)
from fourways_api.callers import CallerPolicy
from fourways_api.runtime_config import CONFIG_VARIABLE, RUN_VARIABLE

from .ports import HOST

Json = dict[str, Any]
Listening = ServerConfig | StreamConfig | QualityConfig | GatewayConfig
C = TypeVar(
    "C",
    RuntimeConfig,
    ServerConfig,
    StreamConfig,
    QualityConfig,
    EdgeConfig,
    GatewayConfig,
    PurgeConfig,
)
WORKERS: Mapping[str, type[StreamConfig] | type[QualityConfig]] = {
    "stream": StreamConfig,
    "quality": QualityConfig,
}
"""The configuration of each program that a Deployment runs."""

READY = "/v2/health/ready"


@dataclass(frozen=True, slots=True)
class LocalJob:
    """A Job as this host runs it. ``terminal`` exit codes are not retried."""

    planned: Json
    """The planned object; for a CronJob, the Job that it would create."""

    namespace: str
    name: str
    before: tuple[tuple[str, ...], ...]
    """The arguments of the processes that run to their ends first, as init containers do."""

    args: tuple[str, ...]
    config: RuntimeConfig | PurgeConfig
    workers: int
    """Number of workers that share it; the first that succeeds ends it."""

    backoff_limit: int
    """Maximum number of retries of each worker."""

    deadline_seconds: int | None
    terminal: frozenset[int]
    run: str | None
    """The run that it resumes or rolls back to; None for a run with the Job's own name."""


@dataclass(frozen=True, slots=True)
class LocalCronJob:
    """A CronJob as this host runs it: the template of Jobs."""

    planned: Json
    name: str
    schedule: str
    time_zone: str
    suspend: bool


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A worker that runs until it is stopped and serves on a port."""

    planned: Json
    namespace: str
    name: str
    pod_labels: Mapping[str, str]
    args: tuple[str, ...]
    config: Listening
    ready_path: str
    """The path of its readiness endpoint."""

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{self.config.host}:{self.config.port}"


def cron_jobs(objects: Sequence[Json]) -> list[LocalCronJob]:
    """Return the CronJobs among planned objects."""
    return [_cron_job(o) for o in objects if o["kind"] == "CronJob"]


def jobs(objects: Sequence[Json], paths: Paths) -> list[LocalJob]:
    """Return the Jobs among planned objects, which build bundles."""
    return [
        _job(o, o["metadata"]["name"], EdgeConfig, paths)
        for o in objects
        if o["kind"] == "Job" and not o["spec"].get("suspend")
    ]


def batch_job(planned: Json, name: str, paths: Paths) -> LocalJob:
    """Return a Job made from a CronJob, with its own name."""
    job = _job(planned, name, RuntimeConfig, paths)
    # There is no KubeRay to create a cluster: the driver starts one on this machine.
    return replace(job, args=("batch",)) if job.args == ("attend",) else job


def purge_job(planned: Json, name: str, paths: Paths) -> LocalJob:
    """Return a Job that lists or removes data in the store, with its own name."""
    return _job(planned, name, PurgeConfig, paths)


def servers(objects: Sequence[Json], paths: Paths, port: Callable[[], int]) -> list[LocalServer]:
    """Return the long-running workers among planned objects, each with its own port."""
    found = []
    for planned in objects:
        if planned["kind"] == "InferenceService":
            predictor = planned["spec"]["predictor"]
            labels = {**planned["metadata"]["labels"], **predictor.get("labels", {})}
            found.append(_server(planned, predictor, labels, ServerConfig, paths, port()))
        elif planned["kind"] == "Deployment":
            template = planned["spec"]["template"]
            labels = template["metadata"]["labels"]
            program = template["spec"]["containers"][0]["args"][0]
            kind = WORKERS[program]
            found.append(_server(planned, template["spec"], labels, kind, paths, port()))
    return found


def gateway(
    objects: Sequence[Json],
    paths: Paths,
    port: int,
    callers: CallerPolicy | None = None,
    grpc_port: int | None = None,
    origins: tuple[str, ...] = (),
) -> LocalServer:
    """Return the gateway among a namespace's planned gateway objects, on loopback.

    ``callers`` says who may ask it; None: everybody on this host. ``origins`` are those whose web
    pages may use it.
    """
    planned = next(o for o in objects if o["kind"] == "Deployment")
    template = planned["spec"]["template"]
    labels = template["metadata"]["labels"]
    server = _server(planned, template["spec"], labels, GatewayConfig, paths, port)
    own = {"callers": callers, "grpc_port": grpc_port, "allowed_origins": origins}
    return replace(server, config=server.config.model_copy(update=own))


def _server(
    planned: Json, pod: Json, labels: Json, kind: type[C], paths: Paths, port: int
) -> LocalServer:
    container = pod["containers"][0]
    config = _config(container, kind).model_copy(
        update={"paths": paths, "port": port, "host": HOST}
    )
    assert isinstance(config, Listening)  # noqa: S101  (the kinds this is called with)
    return LocalServer(
        planned=planned,
        namespace=planned["metadata"]["namespace"],
        name=planned["metadata"]["name"],
        pod_labels=labels,
        args=tuple(container["args"]),
        config=config,
        ready_path=container["readinessProbe"]["httpGet"]["path"],
    )


def _cron_job(cron: Json) -> LocalCronJob:
    spec = cron["spec"]
    return LocalCronJob(
        planned=cron,
        name=cron["metadata"]["name"],
        schedule=spec["schedule"],
        time_zone=spec["timeZone"],
        suspend=spec["suspend"],
    )


def _job(planned: Json, name: str, kind: type[C], paths: Paths) -> LocalJob:
    spec = planned["spec"]
    container = spec["template"]["spec"]["containers"][0]
    terminal = {
        code
        for rule in spec["podFailurePolicy"]["rules"]
        if rule["action"] == "FailJob"
        for code in rule["onExitCodes"]["values"]
    }
    tries = "backoffLimitPerIndex" if spec.get("completionMode") == "Indexed" else "backoffLimit"
    config = _config(container, kind).model_copy(update={"paths": paths})
    assert isinstance(config, RuntimeConfig | PurgeConfig)  # noqa: S101  (the kinds this is called with)
    return LocalJob(
        planned=planned,
        namespace=planned["metadata"]["namespace"],
        name=name,
        before=tuple(
            tuple(first["args"]) for first in spec["template"]["spec"].get("initContainers", ())
        ),
        args=tuple(container["args"]),
        config=config,
        workers=spec.get("completions", 1),
        backoff_limit=spec[tries],
        deadline_seconds=spec.get("activeDeadlineSeconds"),
        terminal=frozenset(terminal),
        run=values_of(container).get(RUN_VARIABLE),
    )


def _config(container: Json, kind: type[C]) -> C:
    return kind.model_validate_json(values_of(container)[CONFIG_VARIABLE])


def values_of(container: Json) -> dict[str, str]:
    """Return a container's variables, with references replaced as the kubelet would."""
    values: dict[str, str] = {}
    for variable in container["env"]:
        if "value" in variable:
            values[variable["name"]] = _expanded(variable["value"], values)
    return values


def _expanded(value: str, earlier: Mapping[str, str]) -> str:
    """Replace ``$$`` and ``$(NAME)`` as Kubernetes does; an unknown name is left as written."""

    def replacement(found: re.Match[str]) -> str:
        return "$" if found[0] == "$$" else earlier.get(found[1], found[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", replacement, value)


def document(config: RuntimeConfig | GatewayConfig | PurgeConfig) -> str:
    """Return a configuration as JSON, in the form that the process reads."""
    return orjson.dumps(config.to_json()).decode()
