"""A cluster as a target, accessed with the kubeconfig."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from http import HTTPStatus
from typing import Any

from fourways_api import API_VERSION, PLURAL, Metadata, PurgeConfig
from fourways_api.callers import GatewayAccess
from fourways_api.installing import install_command
from fourways_operator.plan.batch import name_of
from fourways_operator.plan.parts import GATEWAY
from fourways_operator.pods import report_of
from fourways_operator.runs import JOB_LABEL

from .. import jobs
from . import cluster_reads
from .base import (
    API_KEY_VARIABLE,
    RETRY_SECONDS,
    TIMEOUT_SECONDS,
    ClusterChoice,
    Json,
    PurgeRequest,
    TargetError,
    refusal_of,
)
from .objects import ClusterObjects
from .observed import Inspection, LogLine, LogQuery
from .pod_stream import run_in_pod

FORWARDED_AUTHORIZATION = "X-Fourways-Authorization"
EXEC_SECONDS = 120.0
"""Maximum time from the last byte that a command in a pod is sent to its end."""

TOKEN_SECONDS = 600
"""Validity of a token requested for one command: the minimum that the API server allows."""


class ClusterTarget:
    """A cluster, accessed with the kubeconfig as kubectl does."""

    def __init__(self, choice: ClusterChoice) -> None:
        self._kubeconfig = choice.kubeconfig
        no_host = "" if choice.explicit else "no `fourways up` is running here, and "
        try:
            from .. import kubeconfig
        except ImportError:
            raise TargetError(
                f"{no_host}the Kubernetes client is missing: {install_command('operator')}"
            ) from None
        try:
            self._login = kubeconfig.log_in(choice.kubeconfig, choice.context)
        except kubeconfig.NoCluster as error:
            fix = "" if choice.explicit else "; start `fourways up FILE` here, or set KUBECONFIG"
            raise TargetError(f"{no_host}no cluster can be reached: {error}{fix}") from None
        self._tokens: dict[str, str] = {}
        self._errors = kubeconfig.ApiException
        self._unreachable = kubeconfig.Unreachable

    def where(self, namespace: str | None) -> str:
        """Return the kubeconfig's context and the namespace."""
        inside = f"namespace {namespace}" if namespace else "all namespaces"
        return f"cluster {self._login.name}, {inside}"

    @cached_property
    def objects(self) -> ClusterObjects:
        """Objects of any kind."""
        return ClusterObjects(self._send)

    def inspect(self, namespace: str, name: str) -> Inspection:
        """Return the pods and events of a deployment and of what it owns."""
        return cluster_reads.inspect(self._read, namespace, name)

    def logs(self, namespace: str, name: str, query: LogQuery) -> Iterator[LogLine]:
        """Yield lines of the logs of a deployment's pods."""
        pods = cluster_reads.pods_of(self._read, namespace, name)
        return cluster_reads.logs(self._log, pods, query)

    def forward_command(self, namespace: str, port: int) -> list[str]:
        """Return the command that makes a port of loopback lead to a namespace's gateway."""
        file = ["--kubeconfig", str(self._kubeconfig)] if self._kubeconfig else []
        where = [*file, "--context", self._login.name, "-n", namespace]
        return ["kubectl", *where, "port-forward", f"service/{GATEWAY}", f"{port}:http"]

    def execute(
        self,
        namespace: str,
        pod: str,
        container: str,
        command: list[str],
        parts: Iterable[bytes],
    ) -> tuple[int, str]:
        """Run a command in a pod, with data on its standard input.

        Returns its exit code and what it wrote to standard error.
        """
        from kubernetes.stream import stream

        opened = self._call(
            stream,
            self._login.core.connect_get_namespaced_pod_exec,
            pod,
            namespace,
            container=container,
            command=command,
            stdin=True,
            stdout=True,
            stderr=True,
            tty=False,
            _preload_content=False,
        )
        return run_in_pod(opened, parts, EXEC_SECONDS)

    def pods(self, labels: str) -> list[Json]:
        """Return the pods of all namespaces with these labels."""
        return self._read("/api/v1/pods", label_selector=labels)

    def _read(self, path: str, **options: Any) -> list[Json]:
        items: list[Json] = self._send("get", path, **options).get("items") or []
        return items

    def _send(self, method: str, path: str, **options: Any) -> Any:
        return self._call(
            self._login.request, method, path, serializer=lambda _, data: data, **options
        )

    def _log(self, pod: str, namespace: str, **options: Any) -> Any:
        # A log that is followed has no end, so the time-out is that of the connection.
        read = self._login.core.read_namespaced_pod_log
        return self._call(read, pod, namespace, _preload_content=False, **options)

    def default_namespace(self) -> str:
        """Return the namespace of the kubeconfig's context, as kubectl uses it."""
        return self._login.namespace

    def deployments(self, namespace: str | None) -> list[Json]:
        """Return the ModelDeployments of a namespace, or of all."""
        group, version = API_VERSION.split("/")
        api = self._login.custom_objects
        if namespace is None:
            found = self._call(api.list_cluster_custom_object, group, version, PLURAL)
        else:
            found = self._call(api.list_namespaced_custom_object, group, version, namespace, PLURAL)
        items: list[Json] = found["items"]
        return items

    def run(
        self, namespace: str, name: str, resume: str | None = None, priority: str | None = None
    ) -> str:
        """Create a Job from the deployment's CronJob, as `kubectl create job --from` does."""
        return self._create(jobs.run_job(self._cron(namespace, name), resume, priority))

    def rollback(self, namespace: str, name: str, run: str) -> str:
        """Create a Job that rolls back to an earlier run."""
        return self._create(jobs.rollback_job(self._cron(namespace, name), run))

    def data_uid(self, namespace: str, name: str) -> str | None:
        """Return the uid to which the data of a ModelDeployment belongs."""
        for document in self.deployments(namespace):
            if document["metadata"]["name"] == name:
                return Metadata.model_validate(document["metadata"]).data_uid
        return None

    def purge(self, request: PurgeRequest) -> list[Json]:
        """Create the Job, wait for its end, and return what it reports."""
        namespace = request.namespace
        config = PurgeConfig(namespace=namespace, name=request.name, uids=request.uids)
        template = self.gateway_pod(namespace)
        try:
            job = jobs.purge_job(config, template, request.image, request.store_secret)
        except jobs.NoImage as error:
            raise TargetError(str(error)) from None
        name = self._create(job)
        deadline = time.monotonic() + request.wait
        while time.monotonic() < deadline:
            read = self._call(self._login.batch.read_namespaced_job, name, namespace)
            conditions = self._login.plain(read).get("status", {}).get("conditions") or []
            if any(
                c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in conditions
            ):
                return self._stored(namespace, name)
            time.sleep(RETRY_SECONDS)
        raise TargetError(f"Job {name} did not end within {request.wait:g} s; it continues")

    def _stored(self, namespace: str, job: str) -> list[Json]:
        pods = self._call(
            self._login.core.list_namespaced_pod,
            namespace,
            label_selector=f"{JOB_LABEL}={job}",
        )
        reports = [r for pod in self._login.plain(pods)["items"] if (r := report_of(pod))]
        done = next((r for r in reports if r.outcome == "Succeeded"), None)
        if done is None:
            why = reports[-1].message if reports else "see its events"
            raise TargetError(f"Job {job} failed: {why}")
        return [data.to_json() for data in done.stored]

    def gateway_pod(self, namespace: str) -> Json | None:
        """Return the pod template of the namespace's gateway, if it has one."""
        found = self._if_there(self._login.apps.read_namespaced_deployment, GATEWAY, namespace)
        if found is None:
            return None
        template: Json = self._login.plain(found)["spec"]["template"]
        return template

    def _cron(self, namespace: str, name: str) -> Json:
        cron = self._call(self._login.batch.read_namespaced_cron_job, name_of(name), namespace)
        document: Json = self._login.plain(cron)
        return document

    def _create(self, job: Json) -> str:
        namespace = job["metadata"]["namespace"]
        made = self._call(self._login.batch.create_namespaced_job, namespace, job)
        return str(made.metadata.name)

    def gateway(
        self,
        namespace: str,
        path: str,
        body: Json | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Json:
        """Send a request through the API server, without port forwarding.

        If the gateway asks for credentials and $FOURWAYS_API_KEY is not set, a token of the
        gateway's own ServiceAccount is requested: whoever may create one may ask everything.
        """
        token = self._tokens.get(namespace) or os.environ.get(API_KEY_VARIABLE)
        try:
            return self._proxied(namespace, path, body, headers, token)
        except TargetError as error:
            if error.code != HTTPStatus.UNAUTHORIZED or token is not None:
                raise
        token = self._tokens[namespace] = self._token(namespace)
        return self._proxied(namespace, path, body, headers, token)

    def _proxied(
        self,
        namespace: str,
        path: str,
        body: Json | None,
        headers: Mapping[str, str] | None,
        token: str | None,
    ) -> Json:
        service = f"/api/v1/namespaces/{namespace}/services/{GATEWAY}:http/proxy"
        # The API server's proxy consumes `Authorization`, so the token travels under another name.
        credentials = {FORWARDED_AUTHORIZATION: f"Bearer {token}"} if token else {}
        answer: Json = self._call(
            self._login.request,
            "post" if body else "get",
            service + path,
            body=body,
            header_params={**credentials, **(headers or {})},
            serializer=lambda _, data: data,
        )
        return answer

    def _token(self, namespace: str) -> str:
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [GatewayAccess().audience],
                "expirationSeconds": TOKEN_SECONDS,
            },
        }
        try:
            made = self._call(
                self._login.core.create_namespaced_service_account_token,
                GATEWAY,
                namespace,
                request,
            )
        except TargetError as error:
            raise TargetError(
                f"the gateway needs credentials: set {API_KEY_VARIABLE}, or get the right to "
                f"create tokens of ServiceAccount {GATEWAY} ({error})",
                error.code,
            ) from None
        return str(made.status.token)

    def secret(self, namespace: str, name: str) -> dict[str, str] | None:
        """Return the data of a Secret, each value in base64; None if there is none."""
        found = self._if_there(self._login.core.read_namespaced_secret, name, namespace)
        return None if found is None else dict(found.data or {})

    def write_secret(self, namespace: str, name: str, data: Mapping[str, str | None]) -> None:
        """Set keys of a Secret, or remove those that are None; create it if there is none."""
        core, text = self._login.core, {k: v for k, v in data.items() if v is not None}
        if self.secret(namespace, name) is None:
            metadata = {"name": name, "namespace": namespace}
            secret = {"metadata": metadata, "type": "Opaque", "stringData": text}
            self._call(core.create_namespaced_secret, namespace, secret)
            return
        encoded = {
            k: None if v is None else base64.b64encode(v.encode()).decode() for k, v in data.items()
        }
        self._call(core.patch_namespaced_secret, name, namespace, {"data": encoded})

    def _if_there(self, read: Any, name: str, namespace: str) -> Any:
        """Return an object, None if there is none."""
        try:
            return self._call(read, name, namespace)
        except TargetError as error:
            if error.code == HTTPStatus.NOT_FOUND:
                return None
            raise

    def _call(self, function: Any, *args: Any, **options: Any) -> Any:
        try:
            return function(*args, **{"_request_timeout": TIMEOUT_SECONDS} | options)
        except self._errors as error:
            raise refusal_of(error.status, error.body) from None
        except self._unreachable as error:
            raise TargetError(f"the API server does not answer: {error}") from None
