"""From planned Kubernetes objects to local processes. Pure.

The same objects the operator would apply are read back here, so that what runs on a laptop is
what would run in a pod: the same program, the same arguments, the same configuration document.
Only the paths in it are this host's. CPU and memory limits are not enforced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from fourways_api import GatewayConfig, Paths, RuntimeConfig
from fourways_api.runtime_config import CONFIG_VARIABLE
from fourways_operator.plan import DEPLOYMENT_LABEL

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LocalCronJob:
    """A CronJob as this host runs it. ``terminal`` exit codes are not tried again."""

    namespace: str
    name: str
    deployment: str
    schedule: str
    time_zone: str
    suspend: bool
    args: tuple[str, ...]
    config: RuntimeConfig
    backoff_limit: int
    deadline_seconds: int
    terminal: frozenset[int]


@dataclass(frozen=True, slots=True)
class LocalGateway:
    """A namespace's gateway as this host runs it."""

    namespace: str
    args: tuple[str, ...]
    config: GatewayConfig

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.config.host}:{self.config.port}"


def cron_jobs(objects: Sequence[Json], paths: Paths) -> list[LocalCronJob]:
    """Return the CronJobs among planned objects."""
    return [_cron_job(o, paths) for o in objects if o["kind"] == "CronJob"]


def gateway(objects: Sequence[Json], paths: Paths, port: int) -> LocalGateway:
    """Return the gateway among a namespace's planned gateway objects, on loopback."""
    deployment = next(o for o in objects if o["kind"] == "Deployment")
    container = _container(deployment["spec"]["template"])
    config = GatewayConfig.model_validate_json(_environment(container)[CONFIG_VARIABLE])
    return LocalGateway(
        namespace=deployment["metadata"]["namespace"],
        args=tuple(container["args"]),
        config=config.model_copy(update={"paths": paths, "port": port, "host": "127.0.0.1"}),
    )


def _cron_job(cron: Json, paths: Paths) -> LocalCronJob:
    spec = cron["spec"]
    job = spec["jobTemplate"]["spec"]
    container = _container(job["template"])
    config = RuntimeConfig.model_validate_json(_environment(container)[CONFIG_VARIABLE])
    terminal = {
        code
        for rule in job["podFailurePolicy"]["rules"]
        if rule["action"] == "FailJob"
        for code in rule["onExitCodes"]["values"]
    }
    return LocalCronJob(
        namespace=cron["metadata"]["namespace"],
        name=cron["metadata"]["name"],
        deployment=cron["metadata"]["labels"][DEPLOYMENT_LABEL],
        schedule=spec["schedule"],
        time_zone=spec["timeZone"],
        suspend=spec["suspend"],
        args=tuple(container["args"]),
        config=config.model_copy(update={"paths": paths}),
        backoff_limit=job["backoffLimit"],
        deadline_seconds=job["activeDeadlineSeconds"],
        terminal=frozenset(terminal),
    )


def _container(template: Json) -> Json:
    container: Json = template["spec"]["containers"][0]
    return container


def _environment(container: Json) -> Mapping[str, str]:
    return {e["name"]: e["value"] for e in container["env"] if "value" in e}


def document(config: RuntimeConfig | GatewayConfig) -> str:
    """Return a configuration as the process reads it."""
    return orjson.dumps(config.to_json()).decode()
