"""The host running on this machine as a target: its control socket and its gateways."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar

import orjson

from fourways_runtime.errors import Unavailable
from fourways_runtime.retry import retry_until_available

from ..embedded.control import ask
from ..tables import namespace_of
from .base import (
    API_KEY_VARIABLE,
    RETRY_SECONDS,
    TIMEOUT_SECONDS,
    Json,
    PurgeRequest,
    TargetError,
    refusal_of,
)
from .log_files import log_lines
from .observed import MAX_SOURCES, Inspection, LogLine, LogQuery

T = TypeVar("T")
PATIENCE_SECONDS = 5.0


class EmbeddedTarget:
    """The host running on this machine."""

    def __init__(self, state: Path) -> None:
        self._state = state

    def where(self, namespace: str | None) -> str:
        """Return the state folder of the host, and the namespace."""
        inside = f"namespace {namespace}" if namespace else "all namespaces"
        return f"`fourways up` of {self._state}, {inside}"

    def inspect(self, namespace: str, name: str) -> Inspection:
        """Return the processes of a deployment as pods, and the events since the host started."""
        found = self._inspect(namespace, name)
        return Inspection(found["pods"], found["events"])

    def logs(self, namespace: str, name: str, query: LogQuery) -> Iterator[LogLine]:
        """Yield lines of the logs of a deployment's processes and of its latest run."""
        logs: dict[str, str] = self._inspect(namespace, name)["logs"]
        if query.previous:
            raise TargetError("a process of `fourways up` writes to one log over its restarts")
        if query.pod is not None and query.pod not in logs:
            raise TargetError(f"no log of {query.pod}; there are: {', '.join(logs) or 'none'}")
        chosen = [query.pod] if query.pod else list(logs)[:MAX_SOURCES]
        return log_lines({source: Path(logs[source]) for source in chosen}, query)

    def claim(self, name: str) -> Path:
        """Return the folder of a claim. Raises TargetError if the host has none of that name."""
        folder = self._state / "volumes" / name
        if "/" in name or name in (".", "..") or not folder.is_dir():
            raise TargetError(
                f"`fourways up` of {self._state} has no claim {name}: start it with "
                f"--volume {name}=FOLDER"
            )
        return folder.resolve()

    def _inspect(self, namespace: str, name: str) -> Json:
        answer = ask(self._state, {"do": "inspect", "namespace": namespace, "name": name})
        if "error" in answer:
            raise TargetError(answer["error"])
        return answer

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
        return _request(self.gateway_url(namespace) + path, body, headers or {})

    def gateway_url(self, namespace: str) -> str:
        """Return the address of a gateway once the host's own process listens there."""

        def look() -> str:
            gateways = self._status()["gateways"]
            gateway = gateways.get(namespace)
            if gateway is None:
                there = ", ".join(sorted(gateways)) or "none"
                raise TargetError(
                    f"nothing runs in namespace {namespace} here;"
                    f" namespaces with deployments: {there}"
                )
            if not gateway["listening"]:
                raise Unavailable(
                    f"the gateway of namespace {namespace} is not running:"
                    f" see its log, {gateway['log']}"
                )
            return str(gateway["url"])

        return _patiently(look)

    def _status(self) -> Json:
        return ask(self._state, {"do": "status"})


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
            refusal = refusal_of(error.code, error.read())
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
