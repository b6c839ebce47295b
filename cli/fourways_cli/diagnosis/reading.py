"""Reads the facts that `fourways doctor` judges from an API server. It changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fourways_api import API_VERSION, PLURAL
from fourways_api.deployment import GROUP
from fourways_operator.plan.parts import COMPONENT_LABEL

from ..targets.base import TIMEOUT_SECONDS, TargetError
from .cluster import ClusterFacts, Json

OPERATOR = "app.kubernetes.io/name=fourways,app.kubernetes.io/component=operator"
STORE_SECRET = "fourways-store"  # noqa: S105  (a name)
JSON = "application/json"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
"""Without the values of a Secret."""


class ApiReader:
    """GET requests to an API server; ``login`` is a ClusterLogin."""

    def __init__(self, login: Any, denied: type[Exception], unreachable: type[Exception]) -> None:
        self._request = login.request
        self._denied = denied
        self._unreachable = unreachable

    def get(self, path: str, accept: str = JSON, **options: str) -> Json | None:
        """Return an object: None if it may not be read, empty if there is none.

        Raises:
            TargetError: the API server does not answer.

        """
        return self._ask("get", path, header_params={"Accept": accept}, **options)

    def _ask(self, method: str, path: str, **options: Any) -> Json | None:
        try:
            found: Json = self._request(
                method,
                path,
                serializer=lambda _, data: data,
                _request_timeout=TIMEOUT_SECONDS,
                **options,
            )
        except self._denied as error:
            if getattr(error, "status", None) == HTTPStatus.NOT_FOUND:
                return {}
            return None
        except self._unreachable as error:
            raise TargetError(f"the API server does not answer: {error}") from None
        return found

    def ahead_seconds(self) -> float | None:
        """Return by how much the API server's clock is at least ahead of this machine's.

        Negative: it is behind. None: it does not say. Raises TargetError.
        """
        before = datetime.now(UTC)
        answer = self._ask("get", "/version", serialize=False)
        after = datetime.now(UTC)
        try:
            date = parsedate_to_datetime(getattr(answer, "headers", {})["Date"])
        except (LookupError, ValueError):
            return None
        date = date.replace(tzinfo=date.tzinfo or UTC)
        # Sent in between, and cut to whole seconds.
        earliest, latest = (before - date).total_seconds() - 1, (after - date).total_seconds()
        return 0.0 if earliest <= 0 <= latest else -min((earliest, latest), key=abs)

    def items(self, path: str, **options: str) -> list[Json] | None:
        """Return the objects of a list; None if it may not be read. Raises TargetError."""
        found = self.get(path, **options)
        return None if found is None else list(found.get("items") or [])

    def may(self, verb: str, resource: str, namespace: str) -> bool:
        """Return whether these credentials allow a verb. Raises TargetError."""
        asked = {"namespace": namespace, "verb": verb, "group": GROUP, "resource": resource}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        found = self._ask("post", path, body=review) or {}
        return bool((found.get("status") or {}).get("allowed"))


def read_facts(api: ApiReader, namespace: str) -> ClusterFacts:
    """Return what the API server says of itself and a namespace. Raises TargetError."""
    inside = f"/api/v1/namespaces/{quote(namespace, safe='')}"
    custom = f"/apis/{API_VERSION}/namespaces/{quote(namespace, safe='')}"
    crd = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{PLURAL}.{GROUP}"
    groups = (api.get("/apis") or {}).get("groups") or []
    secret = api.get(f"{inside}/secrets/{STORE_SECRET}", METADATA)
    return ClusterFacts(
        version=str((api.get("/version") or {}).get("gitVersion", "unknown")),
        groups=frozenset(str(group["name"]) for group in groups),
        crd=api.get(crd),
        operators=api.items("/api/v1/pods", label_selector=OPERATOR),
        gateways=api.items(f"{inside}/pods", label_selector=f"{COMPONENT_LABEL}=gateway"),
        store_secret=None if secret is None else bool(secret),
        ahead_seconds=api.ahead_seconds(),
        may_create=api.may("create", PLURAL, namespace),
        quotas=api.items(f"{inside}/resourcequotas") or [],
        storage_classes=api.items("/apis/storage.k8s.io/v1/storageclasses"),
        deployments=api.items(f"{custom}/{PLURAL}") or [],
    )
