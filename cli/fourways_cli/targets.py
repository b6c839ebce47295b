"""Where commands act: the host running here, or the cluster of the current kubeconfig.

Both answer the same questions, so that commands need not care which it is.
"""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

import orjson

from fourways_api import API_VERSION
from fourways_operator.plan.batch import name_of
from fourways_operator.plan.parts import GATEWAY

from . import jobs
from .embedded.control import ask, control_path

Json = dict[str, Any]
TIMEOUT_SECONDS = 30.0
"""Longer than a stream's answer is waited for."""

TRIES = 5
RETRY_SECONDS = 1.0
"""What the gateway says in Retry-After while a store or a model server is away."""


class TargetError(RuntimeError):
    """A question the target could not answer; the text is for people."""


class Target(Protocol):
    """Where ModelDeployments live."""

    def deployments(self, namespace: str) -> list[Json]:
        """Return a namespace's ModelDeployments with their status."""
        ...

    def run(
        self, namespace: str, name: str, resume: str | None = None, priority: str | None = None
    ) -> str:
        """Start a batch run now, or go on with one; return the Job's name."""
        ...

    def rollback(self, namespace: str, name: str, run: str) -> str:
        """Start to have answers come from an earlier run again; return the Job's name."""
        ...

    def gateway(
        self,
        namespace: str,
        path: str,
        body: Json | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Json:
        """Ask a namespace's gateway: GET, or POST where there is a body."""
        ...


def choose_target(state: Path, cluster: bool) -> Target:
    """Return the host running at ``state`` if there is one, else the cluster."""
    if not cluster and control_path(state).exists():
        return EmbeddedTarget(state)
    return ClusterTarget()


class EmbeddedTarget:
    """The host running on this machine."""

    def __init__(self, state: Path) -> None:
        self._state = state

    def deployments(self, namespace: str) -> list[Json]:
        """Return what the host serves."""
        return [d for d in self._status()["deployments"] if _namespace(d) == namespace]

    def run(
        self, namespace: str, name: str, resume: str | None = None, priority: str | None = None
    ) -> str:
        """Start a run, once it is its turn."""
        if priority is not None:
            raise TargetError("--priority is for a cluster: there is no scheduler here")
        return self._start({"do": "run", "namespace": namespace, "name": name, "resume": resume})

    def rollback(self, namespace: str, name: str, run: str) -> str:
        """Start a rollback."""
        return self._start({"do": "rollback", "namespace": namespace, "name": name, "run": run})

    def _start(self, question: Json) -> str:
        answer = ask(self._state, question)
        if "error" in answer:
            raise TargetError(answer["error"])
        return str(answer["run"])

    def gateway(
        self,
        namespace: str,
        path: str,
        body: Json | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Json:
        """Ask the host's gateway."""
        gateways = self._status()["gateways"]
        if namespace not in gateways:
            raise TargetError(f"no gateway for namespace {namespace} here")
        return _ask(gateways[namespace] + path, body, headers or {})

    def _status(self) -> Json:
        return ask(self._state, {"do": "status"})


class ClusterTarget:
    """The cluster of the current kubeconfig."""

    def __init__(self) -> None:
        try:
            import kubernetes

            from fourways_operator.cluster import connect
        except ImportError:
            raise TargetError(
                "no `fourways up` runs here, and the Kubernetes client is missing: "
                "pip install 'fourways[operator]'"
            ) from None
        try:
            self._dynamic = connect()
        except kubernetes.config.ConfigException as error:
            raise TargetError(f"no `fourways up` runs here, and no cluster: {error}") from None
        self._errors = kubernetes.client.ApiException
        self._client = kubernetes.client

    def deployments(self, namespace: str) -> list[Json]:
        """Return the namespace's ModelDeployments."""
        group, version = API_VERSION.split("/")
        api = self._client.CustomObjectsApi(self._dynamic.client)
        found = self._call(
            api.list_namespaced_custom_object, group, version, namespace, "modeldeployments"
        )
        items: list[Json] = found["items"]
        return items

    def run(
        self, namespace: str, name: str, resume: str | None = None, priority: str | None = None
    ) -> str:
        """Make a Job from the deployment's CronJob, as `kubectl create job --from` does."""
        return self._create(jobs.run_job(self._cron(namespace, name), resume, priority))

    def rollback(self, namespace: str, name: str, run: str) -> str:
        """Make a Job that moves answers back."""
        return self._create(jobs.rollback_job(self._cron(namespace, name), run))

    def _cron(self, namespace: str, name: str) -> Json:
        api = self._client.BatchV1Api(self._dynamic.client)
        cron = self._call(api.read_namespaced_cron_job, name_of(name), namespace)
        document: Json = self._dynamic.client.sanitize_for_serialization(cron)
        return document

    def _create(self, job: Json) -> str:
        api = self._client.BatchV1Api(self._dynamic.client)
        made = self._call(api.create_namespaced_job, job["metadata"]["namespace"], job)
        return str(made.metadata.name)

    def gateway(
        self,
        namespace: str,
        path: str,
        body: Json | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Json:
        """Ask the gateway through the API server, which needs no port to be forwarded."""
        service = f"/api/v1/namespaces/{namespace}/services/{GATEWAY}:http/proxy"
        answer: Json = self._call(
            self._dynamic.request,
            "post" if body else "get",
            service + path,
            body=body,
            header_params=dict(headers or {}),
            serializer=lambda _, data: data,
        )
        return answer

    def _call(self, function: Any, *args: Any, **options: Any) -> Any:
        try:
            return function(*args, _request_timeout=TIMEOUT_SECONDS, **options)
        except self._errors as error:
            raise TargetError(_said(error.status, error.body)) from None


def _ask(url: str, body: Json | None, headers: Mapping[str, str]) -> Json:
    data = None if body is None else orjson.dumps(body)
    headers = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(url, data, headers)  # noqa: S310  (our gateway)
    for tries_left in reversed(range(TRIES)):
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
                answer: Json = orjson.loads(response.read())
                return answer
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE or not tries_left:
                raise TargetError(_said(error.code, error.read())) from None
            time.sleep(RETRY_SECONDS)
        except OSError as error:
            raise TargetError(f"the gateway does not answer: {error}") from None
    raise AssertionError  # the last try returns or raises


def _said(code: int | None, body: bytes | str | None) -> str:
    """Return what a server said, in its own words where it has some."""
    try:
        document = orjson.loads(body or b"")
        return str(document.get("error") or document.get("message") or f"HTTP {code}")
    except (ValueError, AttributeError):
        return f"HTTP {code}"


def _namespace(document: Json) -> str:
    return str(document["metadata"].get("namespace", "default"))


__all__ = ["ClusterTarget", "EmbeddedTarget", "Target", "TargetError", "choose_target"]
