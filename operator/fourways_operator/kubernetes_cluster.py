"""The only module that sends requests to the API server, and so the only one that writes.

It owns the verbs (the chart's RBAC is generated from ``GRANTS``) and the time-outs; ``api_faults``
maps HTTP responses to ``errors``. It decides nothing and caches no object: each read is a LIST or
GET that the API server answers from etcd, so the operator never decides by data older than the
call. It remembers only which kinds exist, until the next ``discover``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fourways_api import API_VERSION, GROUP, KIND, PLURAL

from .api_faults import fault_of
from .cluster import MODEL_DEPLOYMENT, SCALE_MANAGER, STATUS_MANAGER, kind_of
from .errors import ApiUnreachable, Conflict, Forbidden, ObjectGone
from .events import Event
from .facts import FIELD_MANAGER, Json, Kind, rfc3339
from .kinds import DEPLOYMENT, EVENT, KINDS, LEASE, OBSERVED

logger = logging.getLogger(__name__)

CONNECT_SECONDS, READ_SECONDS = 3.0, 15.0
PAGE = 500
MAX_EVENT_MESSAGE = 1024


@dataclass(frozen=True, slots=True)
class Grant:
    """Verbs the operator needs on one resource: a rule of its Role."""

    group: str
    resource: str
    verbs: tuple[str, ...]


GRANTS: tuple[Grant, ...] = (
    Grant(GROUP, PLURAL, ("get", "list", "watch")),
    Grant(GROUP, f"{PLURAL}/status", ("patch",)),
    # Applying an object that does not exist yet needs create as well as patch.
    *(
        Grant(k.group, k.plural, ("get", "list", "watch", "create", "patch", "delete"))
        for k in KINDS
    ),
    *(Grant(k.group, k.plural, ("list", "watch")) for k in OBSERVED),
    # Read when a Job has no pods: only its events say why.
    Grant("", "events", ("create", "list")),
    # Which installation manages a namespace.
    Grant(LEASE.group, LEASE.plural, ("get", "create", "update")),
)
"""Exactly the rights that the operator uses. Watching needs only list and watch."""


class KubernetesCluster:
    """A cluster behind the Kubernetes API: blocking calls in a bounded thread pool."""

    def __init__(
        self,
        client: Any,
        namespaces: tuple[str, ...] = (),
        *,
        threads: int = 8,
        counted: Callable[[str, str], None] = lambda verb, kind: None,
    ) -> None:
        """``client`` is a DynamicClient; no ``namespaces`` means all of them."""
        self._client = client
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="api")
        self._counted = counted
        self._present: dict[str, frozenset[str]] = {}

    async def list(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str]
    ) -> tuple[Json, ...]:
        """See Cluster."""
        if not await self._exists(kind):
            return ()
        selector = ",".join(f"{k}={v}" for k, v in labels.items()) or None
        objects: list[Json] = []
        rest: str | None = None
        while True:
            try:
                page = await self._call(
                    "get",
                    _path(kind, namespace),
                    "list",
                    kind,
                    label_selector=selector,
                    limit=PAGE,
                    _continue=rest,
                )
            except ObjectGone:
                if rest is not None:
                    raise
                # The kind was removed after the last discovery.
                self._present.pop(kind.api_version, None)
                return ()
            objects.extend(
                {"apiVersion": kind.api_version, "kind": kind.kind, **item}
                for item in page["items"]
            )
            rest = page["metadata"].get("continue")
            if not rest:
                return tuple(objects)

    async def has(self, kind: Kind) -> bool:
        """See Cluster."""
        return await self._exists(kind)

    async def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        """See Cluster."""
        try:
            return await self._call("get", _path(kind, namespace, name), "get", kind)
        except ObjectGone:
            return None

    async def apply(self, obj: Json, uid: str | None) -> None:
        """See Cluster."""
        await self._apply(obj, uid, FIELD_MANAGER, "")

    async def scale(self, deployment: Json, replicas: int) -> None:
        """See Cluster."""
        meta = deployment["metadata"]
        body = {
            "apiVersion": DEPLOYMENT.api_version,
            "kind": DEPLOYMENT.kind,
            "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
            "spec": {"replicas": replicas},
        }
        await self._apply(body, meta["uid"], SCALE_MANAGER, "")

    async def write_status(self, deployment: Json, status: Json) -> None:
        """See Cluster."""
        meta = deployment["metadata"]
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
            "status": status,
        }
        await self._apply(body, meta["uid"], STATUS_MANAGER, "/status")

    async def _apply(self, obj: Json, uid: str | None, manager: str, subresource: str) -> None:
        kind = kind_of(obj)
        meta = obj["metadata"]
        body = obj if uid is None else {**obj, "metadata": {**meta, "uid": uid}}
        await self._call(
            "patch",
            _path(kind, meta["namespace"], meta["name"]) + subresource,
            "patch",
            kind,
            body=body,
            content_type="application/apply-patch+yaml",
            field_manager=manager,
            force_conflicts=uid is not None,
        )

    async def delete(self, obj: Json) -> None:
        """See Cluster."""
        kind = kind_of(obj)
        meta = obj["metadata"]
        body = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "preconditions": {"uid": meta["uid"]},
            "propagationPolicy": "Background",
        }
        try:
            await self._call(
                "delete", _path(kind, meta["namespace"], meta["name"]), "delete", kind, body=body
            )
        except (ObjectGone, Conflict):
            # Either it does not exist, or its name belongs to another object: it is gone.
            return

    async def emit(self, deployment: Json, event: Event) -> None:
        """See Cluster."""
        meta = deployment["metadata"]
        now = rfc3339(datetime.now(UTC))
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{meta['name']}.", "namespace": meta["namespace"]},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": meta["name"],
                "namespace": meta["namespace"],
                "uid": meta["uid"],
            },
            "type": event.type,
            "reason": event.reason,
            "message": event.message[:MAX_EVENT_MESSAGE],
            "source": {"component": FIELD_MANAGER},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        await self._call("post", _path(EVENT, meta["namespace"]), "create", EVENT, body=body)

    async def last_warning(self, obj: Json, reason: str) -> str | None:
        """See Cluster."""
        meta = obj["metadata"]
        selector = f"involvedObject.uid={meta['uid']},type=Warning,reason={reason}"
        page = await self._call(
            "get",
            _path(EVENT, meta["namespace"]),
            "list",
            EVENT,
            field_selector=selector,
            limit=PAGE,
        )
        latest = max(page["items"], key=_event_time, default=None)
        return str(latest.get("message", "")) if latest else None

    async def get_lease(self, namespace: str, name: str) -> Json | None:
        """See Cluster."""
        return await self.get(LEASE, namespace, name)

    async def write_lease(self, lease: Json) -> None:
        """See Cluster."""
        meta = lease["metadata"]
        if "resourceVersion" in meta:
            path = _path(LEASE, meta["namespace"], meta["name"])
            await self._call("put", path, "update", LEASE, body=lease)
        else:
            path = _path(LEASE, meta["namespace"])
            await self._call("post", path, "create", LEASE, body=lease)

    async def everywhere(self, kind: Kind, labels: Mapping[str, str]) -> tuple[Json, ...]:
        """See Cluster."""
        lists = await asyncio.gather(
            *(self.list(kind, namespace, labels) for namespace in self._namespaces),
            return_exceptions=True,
        )
        refused = []
        for namespace, found in zip(self._namespaces, lists, strict=True):
            if isinstance(found, Forbidden | ObjectGone):
                # A deleted namespace loses its Role too. The other namespaces must not wait for it.
                logger.warning("namespace %s is left out: %s", namespace, found)
                refused.append(found)
            elif isinstance(found, BaseException):
                raise found
        if len(refused) == len(lists):
            raise refused[0]
        return tuple(
            obj for found in lists if not isinstance(found, BaseException) for obj in found
        )

    async def discover(self) -> frozenset[Kind]:
        """See Cluster."""
        self._present.clear()
        kinds = (MODEL_DEPLOYMENT, *KINDS, *OBSERVED)
        return frozenset([kind for kind in kinds if await self._exists(kind)])

    async def read(self, path: str) -> Json:
        """Return a document of the API server that belongs to no kind. Raises ApiFault."""
        # The key set has a media type of its own, and the API server offers no other: 406.
        headers = {"header_params": {"Accept": "application/json, */*"}}
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._threads, lambda: self._request("get", path, f"get {path}", headers)
        )

    async def _exists(self, kind: Kind) -> bool:
        known = self._present.get(kind.api_version)
        # The CRD may be deleted and installed again. Without it no gateway has an owner, so its
        # absence is not remembered.
        if known is None or (kind == MODEL_DEPLOYMENT and kind.plural not in known):
            path = "/api/v1" if kind.group == "" else f"/apis/{kind.api_version}"
            try:
                answer = await self._call("get", path, "get", kind)
            except ObjectGone:
                answer = {"resources": []}
            known = frozenset(r["name"] for r in answer["resources"])
            self._present[kind.api_version] = known
        return kind.plural in known

    async def _call(self, method: str, path: str, verb: str, kind: Kind, **parameters: Any) -> Json:
        if verb not in ("get", "list"):
            self._counted(verb, kind.kind)
        loop = asyncio.get_running_loop()
        what = f"{verb} {path.rpartition('/namespaces/')[2]}"
        return await loop.run_in_executor(
            self._threads, lambda: self._request(method, path, what, parameters)
        )

    def _request(self, method: str, path: str, what: str, parameters: Json) -> Json:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            answer: Json = self._client.request(
                method,
                path,
                serializer=lambda _, data: data,
                _request_timeout=(CONNECT_SECONDS, READ_SECONDS),
                **parameters,
            )
        except ApiException as error:
            raise fault_of(what, error.status or 0, error.body, error.headers or {}) from None
        except HTTPError as error:
            raise ApiUnreachable(f"{what}: {type(error).__name__}: {error}") from None
        return answer

    def close(self) -> None:
        """Release the threads; calls in progress end at their time-outs."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def connect(kubeconfig: str | None = None, threads: int = 8) -> Any:
    """Log in as the pod's ServiceAccount, or else by kubeconfig; return a DynamicClient.

    ``kubeconfig`` defaults to the value of KUBECONFIG at the start of the process.
    """
    # Imported here: it takes half of a cold start, and planning and tests do not need it.
    from kubernetes import client, config
    from kubernetes.dynamic import DynamicClient

    configuration = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except config.ConfigException:
        config.load_kube_config(kubeconfig, client_configuration=configuration)  # type: ignore[no-untyped-call]
    # Only the work queue decides about retries, so a time-out is not retried here.
    configuration.retries = False
    configuration.connection_pool_maxsize = threads
    # The client's own discovery caches a file in /tmp named after the server's address: it cannot
    # be written to a read-only root, and another cluster at the same address would read it.
    api = client.ApiClient(configuration)
    return DynamicClient(api, discoverer=lambda *_: None)  # type: ignore[no-untyped-call]


def _path(kind: Kind, namespace: str | None, name: str | None = None) -> str:
    root = "/api/v1" if kind.group == "" else f"/apis/{kind.api_version}"
    within = f"/namespaces/{namespace}" if namespace else ""
    return f"{root}{within}/{kind.plural}" + (f"/{name}" if name else "")


def _event_time(event: Json) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")
