"""Where commands act: the host that runs here, or a cluster of the kubeconfig.

Both have the same methods, so commands need not distinguish them.
"""

from __future__ import annotations

import base64
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol, TypeVar

import orjson

from fourways_api import API_VERSION, PLURAL, Metadata, PurgeConfig
from fourways_api.callers import GatewayAccess
from fourways_operator.plan.batch import name_of
from fourways_operator.plan.parts import GATEWAY
from fourways_operator.pods import report_of
from fourways_runtime.errors import Unavailable
from fourways_runtime.retry import retry_until_available

from . import jobs
from .embedded.control import ask, is_running
from .tables import namespace_of

Json = dict[str, Any]
T = TypeVar("T")
TIMEOUT_SECONDS = 30.0
GATEWAY_WAIT_SECONDS = 25.0
"""Maximum time that a gateway waits for a prediction: less than the request time-out."""

PATIENCE_SECONDS = 5.0
RETRY_SECONDS = 1.0
"""The gateway's Retry-After while a store or a model server is unavailable."""

NAMED_DEPLOYMENTS = 5
"""Number of deployments that a message about an unknown one lists."""


API_KEY_VARIABLE = "FOURWAYS_API_KEY"
"""Environment variable with the API key that gateways are asked with."""

FORWARDED_AUTHORIZATION = "X-Fourways-Authorization"
TOKEN_SECONDS = 600
"""Validity of a token requested for one command: the minimum that the API server allows."""


class TargetError(RuntimeError):
    """A request that the target could not answer; the text is for people.

    ``code`` is the HTTP status of the refusal, and ``document`` its body, if there is one.
    """

    def __init__(self, message: str, code: int | None = None, document: Json | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.document = document or {}


@dataclass(frozen=True, slots=True)
class ClusterChoice:
    """The options of a command that choose a cluster."""

    cluster: bool = False
    """Use the cluster even if a host runs here."""

    kubeconfig: Path | None = None
    """None: $KUBECONFIG, or ~/.kube/config."""

    context: str | None = None
    """None: the kubeconfig's current context."""

    @property
    def explicit(self) -> bool:
        """True when an option asks for a cluster."""
        return self.cluster or self.kubeconfig is not None or self.context is not None


@dataclass(frozen=True, slots=True)
class PurgeRequest:
    """What to remove; without ``uids``, only what there is is listed."""

    namespace: str
    name: str
    uids: tuple[str, ...] = ()
    image: str | None = None
    """None: the image of the namespace's gateway."""

    store_secret: str | None = None
    """None: the Secret of the namespace's gateway."""

    wait: float = 120.0
    """Maximum seconds that the Job may take."""

    def removing(self, uids: tuple[str, ...]) -> PurgeRequest:
        """Return the request that removes these uids' data."""
        return replace(self, uids=uids)


class Target(Protocol):
    """Where ModelDeployments live."""

    def default_namespace(self) -> str:
        """Return the namespace of a command that names none."""
        ...

    def deployments(self, namespace: str | None) -> list[Json]:
        """Return the ModelDeployments of a namespace, or of all, with their status."""
        ...

    def run(
        self, namespace: str, name: str, resume: str | None = None, priority: str | None = None
    ) -> str:
        """Start a batch run now, or resume one; return the Job's name."""
        ...

    def rollback(self, namespace: str, name: str, run: str) -> str:
        """Start a rollback to an earlier run; return the Job's name."""
        ...

    def data_uid(self, namespace: str, name: str) -> str | None:
        """Return the uid to which a deployment's data belongs; None if there is no deployment."""
        ...

    def purge(self, request: PurgeRequest) -> list[Json]:
        """Remove data of a name from the store, or list it; return it by uid."""
        ...

    def gateway(
        self,
        namespace: str,
        path: str,
        body: Json | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Json:
        """Send a request to a namespace's gateway: GET, or POST if there is a body."""
        ...


def named(documents: Sequence[Json], namespace: str, name: str) -> Json:
    """Return the deployment with a name. Raises TargetError, listing the existing ones."""
    for document in documents:
        if document["metadata"]["name"] == name:
            return document
    names = sorted(str(d["metadata"]["name"]) for d in documents)
    more = ", …" if len(names) > NAMED_DEPLOYMENTS else ""
    known = f"; there are: {', '.join(names[:NAMED_DEPLOYMENTS])}{more}" if names else ""
    raise TargetError(f"no ModelDeployment {name} in namespace {namespace}{known}")


def choose_target(state: Path, choice: ClusterChoice) -> Target:
    """Return the host running at ``state`` if there is one, else the cluster.

    Raises:
        TargetError: there is neither, or the kubeconfig cannot be used.

    """
    if not choice.explicit and is_running(state):
        return EmbeddedTarget(state)
    return ClusterTarget(choice)


class EmbeddedTarget:
    """The host running on this machine."""

    def __init__(self, state: Path) -> None:
        self._state = state

    def default_namespace(self) -> str:
        """Return "default", or the only namespace this host serves."""
        namespaces = {namespace_of(d) for d in self.deployments(None)}
        return namespaces.pop() if len(namespaces) == 1 else "default"

    def deployments(self, namespace: str | None) -> list[Json]:
        """Return the deployments that the host serves."""
        found: list[Json] = self._status()["deployments"]
        return [d for d in found if namespace in (None, namespace_of(d))]

    def run(
        self, namespace: str, name: str, resume: str | None = None, priority: str | None = None
    ) -> str:
        """Start a run when it is its turn."""
        if priority is not None:
            raise TargetError("--priority needs a cluster: `fourways up` has no scheduler")
        return self._start({"do": "run", "namespace": namespace, "name": name, "resume": resume})

    def rollback(self, namespace: str, name: str, run: str) -> str:
        """Start a rollback."""
        return self._start({"do": "rollback", "namespace": namespace, "name": name, "run": run})

    def data_uid(self, namespace: str, name: str) -> str | None:
        """Return the uid of a deployment that the host serves."""
        uids: dict[str, str] = self._status()["uids"]
        return uids.get(f"{namespace}/{name}")

    def purge(self, request: PurgeRequest) -> list[Json]:
        """Let the host run a purge."""
        names = {"namespace": request.namespace, "name": request.name, "uids": list(request.uids)}
        answer = ask(self._state, {"do": "purge", **names})
        if "error" in answer:
            raise TargetError(answer["error"])
        stored: list[Json] = answer["stored"]
        return stored

    def _start(self, request: Json) -> str:
        answer = ask(self._state, request)
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
        """Send a request to the host's gateway."""
        return _request(self._gateway(namespace) + path, body, headers or {})

    def _gateway(self, namespace: str) -> str:
        """Return the address of a gateway once the host's own process listens there."""

        def look() -> str:
            gateway = self._status()["gateways"].get(namespace)
            if gateway is None:
                raise TargetError(f"no gateway for namespace {namespace} here")
            if not gateway["listening"]:
                raise Unavailable(
                    f"the gateway of namespace {namespace} is not running:"
                    f" see its log, {gateway['log']}"
                )
            return str(gateway["url"])

        return _patiently(look)

    def _status(self) -> Json:
        return ask(self._state, {"do": "status"})


class ClusterTarget:
    """A cluster, accessed with the kubeconfig as kubectl does."""

    def __init__(self, choice: ClusterChoice) -> None:
        no_host = "" if choice.explicit else "no `fourways up` is running here, and "
        try:
            from . import kubeconfig
        except ImportError:
            raise TargetError(
                f"{no_host}the Kubernetes client is missing: pip install 'fourways[operator]'"
            ) from None
        try:
            self._login = kubeconfig.log_in(choice.kubeconfig, choice.context)
        except kubeconfig.NoCluster as error:
            raise TargetError(f"{no_host}no cluster can be reached: {error}") from None
        self._tokens: dict[str, str] = {}
        self._errors = kubeconfig.ApiException
        self._unreachable = kubeconfig.Unreachable

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
        template = self._gateway_pod(namespace)
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
            label_selector=f"batch.kubernetes.io/job-name={job}",
        )
        reports = [r for pod in self._login.plain(pods)["items"] if (r := report_of(pod))]
        done = next((r for r in reports if r.outcome == "Succeeded"), None)
        if done is None:
            why = reports[-1].message if reports else "see its events"
            raise TargetError(f"Job {job} failed: {why}")
        return [data.to_json() for data in done.stored]

    def _gateway_pod(self, namespace: str) -> Json | None:
        """Return the pod template of the namespace's gateway, if it has one."""
        try:
            found = self._call(self._login.apps.read_namespaced_deployment, GATEWAY, namespace)
        except TargetError as error:
            if error.code == HTTPStatus.NOT_FOUND:
                return None
            raise
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
        spec = {"audiences": [GatewayAccess().audience], "expirationSeconds": TOKEN_SECONDS}
        try:
            made = self._call(
                self._login.core.create_namespaced_service_account_token,
                GATEWAY,
                namespace,
                {"spec": spec},
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
        try:
            found = self._call(self._login.core.read_namespaced_secret, name, namespace)
        except TargetError as error:
            if error.code == HTTPStatus.NOT_FOUND:
                return None
            raise
        return dict(found.data or {})

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

    def _call(self, function: Any, *args: Any, **options: Any) -> Any:
        try:
            return function(*args, _request_timeout=TIMEOUT_SECONDS, **options)
        except self._errors as error:
            raise _refusal(error.status, error.body) from None
        except self._unreachable as error:
            raise TargetError(f"the API server does not answer: {error}") from None


def _request(url: str, body: Json | None, headers: Mapping[str, str]) -> Json:
    data = None if body is None else orjson.dumps(body)
    key = os.environ.get(API_KEY_VARIABLE)
    credentials = {"Authorization": f"Bearer {key}"} if key else {}
    headers = {"Content-Type": "application/json", **credentials, **headers}
    request = urllib.request.Request(url, data, headers)  # noqa: S310  (our gateway)

    def send() -> Json:
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
                answer: Json = orjson.loads(response.read())
                return answer
        except urllib.error.HTTPError as error:
            refusal = _refusal(error.code, error.read())
            if error.code == HTTPStatus.SERVICE_UNAVAILABLE:
                raise Unavailable(str(refusal)) from refusal
            raise refusal from None
        except OSError as error:
            raise TargetError(f"the gateway does not answer: {error}") from None

    return _patiently(send)


def _patiently(attempt: Callable[[], T]) -> T:
    """Retry what is unavailable for some seconds: a gateway restarts that fast."""
    try:
        return retry_until_available(attempt, PATIENCE_SECONDS, pause=RETRY_SECONDS)
    except Unavailable as error:
        if isinstance(error.__cause__, TargetError):
            raise error.__cause__ from None
        raise TargetError(str(error)) from None


def _refusal(code: int | None, body: bytes | str | None) -> TargetError:
    """Return the error for a refusal, with the server's own message if it sent one."""
    try:
        document = orjson.loads(body or b"")
        message = str(document.get("error") or document.get("message") or f"HTTP {code}")
        return TargetError(message, code, document)
    except (ValueError, AttributeError):
        return TargetError(f"HTTP {code}", code)


__all__ = [
    "ClusterChoice",
    "ClusterTarget",
    "EmbeddedTarget",
    "PurgeRequest",
    "Target",
    "TargetError",
    "choose_target",
    "named",
]
