"""What a target is: its methods, the options that choose one, and its error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import orjson

from .observed import Inspection, LogLine, LogQuery

Json = dict[str, Any]
TIMEOUT_SECONDS = 30.0
GATEWAY_WAIT_SECONDS = 25.0
"""Maximum time that a gateway waits for a prediction: less than the request time-out."""

RETRY_SECONDS = 1.0
"""The gateway's Retry-After while a store or a model server is unavailable."""

NAMED_DEPLOYMENTS = 5
"""Number of deployments that a message about an unknown one lists."""

API_KEY_VARIABLE = "FOURWAYS_API_KEY"
"""Environment variable with the API key that gateways are asked with."""


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

    def where(self, namespace: str | None) -> str:
        """Return the words that tell people where a command acts; None: in all namespaces."""
        ...

    def inspect(self, namespace: str, name: str) -> Inspection:
        """Return the pods and events of a deployment."""
        ...

    def logs(self, namespace: str, name: str, query: LogQuery) -> Iterator[LogLine]:
        """Yield lines of the logs of a deployment's pods."""
        ...

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


def refusal_of(code: int | None, body: bytes | str | None) -> TargetError:
    """Return the error for a refusal, with the server's own message if it sent one."""
    try:
        document = orjson.loads(body or b"")
        message = str(document.get("error") or document.get("message") or f"HTTP {code}")
        return TargetError(message, code, document)
    except (ValueError, AttributeError):
        return TargetError(f"HTTP {code}", code)
