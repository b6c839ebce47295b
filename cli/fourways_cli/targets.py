"""Where commands act: the host running here, or the cluster of the current kubeconfig.

Both answer the same three questions, so that commands need not care which it is.
"""

from __future__ import annotations

import copy
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Protocol

import orjson

from fourways_api import API_VERSION
from fourways_operator.plan import GATEWAY
from fourways_operator.plan.batch import name_of

from .embedded.control import ask, control_path

Json = dict[str, Any]
TIMEOUT_SECONDS = 10.0


class TargetError(RuntimeError):
    """A question the target could not answer; the text is for people."""


class Target(Protocol):
    """Where ModelDeployments live."""

    def deployments(self, namespace: str) -> list[Json]:
        """Return a namespace's ModelDeployments with their status."""
        ...

    def run(self, namespace: str, name: str) -> str:
        """Start a batch run now; return its name."""
        ...

    def gateway(self, namespace: str, path: str, body: Json | None = None) -> Json:
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

    def run(self, namespace: str, name: str) -> str:
        """Start a run and wait for its end."""
        answer = ask(self._state, {"do": "run", "namespace": namespace, "name": name})
        if "error" in answer:
            raise TargetError(answer["error"])
        return str(answer["run"])

    def gateway(self, namespace: str, path: str, body: Json | None = None) -> Json:
        """Ask the host's gateway."""
        gateways = self._status()["gateways"]
        if namespace not in gateways:
            raise TargetError(f"no gateway for namespace {namespace} here")
        return _ask(gateways[namespace] + path, body)

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

    def run(self, namespace: str, name: str) -> str:
        """Make a Job from the deployment's CronJob, as `kubectl create job --from` does."""
        api = self._client.BatchV1Api(self._dynamic.client)
        cron = self._call(api.read_namespaced_cron_job, name_of(name), namespace)
        template = copy.deepcopy(cron.spec.job_template)
        owner = self._client.V1OwnerReference(
            api_version="batch/v1", kind="CronJob", name=cron.metadata.name, uid=cron.metadata.uid
        )
        job = self._client.V1Job(
            metadata=self._client.V1ObjectMeta(
                generate_name=f"{name_of(name)}-",
                labels=template.metadata.labels,
                annotations={"cronjob.kubernetes.io/instantiate": "manual"},
                owner_references=[owner],
            ),
            spec=template.spec,
        )
        return str(self._call(api.create_namespaced_job, namespace, job).metadata.name)

    def gateway(self, namespace: str, path: str, body: Json | None = None) -> Json:
        """Ask the gateway through the API server, which needs no port to be forwarded."""
        service = f"/api/v1/namespaces/{namespace}/services/{GATEWAY}:http/proxy"
        answer: Json = self._call(
            self._dynamic.request,
            "post" if body else "get", service + path,
            body=body, serializer=lambda _, data: data,
        )  # fmt: skip
        return answer

    def _call(self, function: Any, *args: Any, **options: Any) -> Any:
        try:
            return function(*args, _request_timeout=TIMEOUT_SECONDS, **options)
        except self._errors as error:
            raise TargetError(_said(error.status, error.body)) from None


def _ask(url: str, body: Json | None) -> Json:
    data = None if body is None else orjson.dumps(body)
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310  (our gateway)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
            answer: Json = orjson.loads(response.read())
            return answer
    except urllib.error.HTTPError as error:
        raise TargetError(_said(error.code, error.read())) from None
    except OSError as error:
        raise TargetError(f"the gateway does not answer: {error}") from None


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
