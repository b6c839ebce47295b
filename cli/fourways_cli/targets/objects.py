"""Objects of a cluster of any kind, by the paths of its API: read, applied, patched, deleted."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from .base import Json, TargetError

FIELD_MANAGER = "fourways-cli"
"""Owner of the fields that the command line sets."""

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"


class ClusterObjects:
    """Objects of a cluster. ``send`` makes a request of a path, and raises TargetError."""

    def __init__(self, send: Callable[..., Any]) -> None:
        self._send = send
        self._resources: dict[str, list[Json]] = {}

    def path(self, document: Json, namespace: str) -> str:
        """Return the path of an object; one without a namespace belongs to ``namespace``.

        Raises:
            TargetError: the cluster has no such kind, or the document names none.

        """
        version, kind = document.get("apiVersion"), document.get("kind")
        metadata = document.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        if not (isinstance(version, str) and isinstance(kind, str) and isinstance(name, str)):
            raise TargetError("an object needs apiVersion, kind and metadata.name")
        base = f"/apis/{version}" if "/" in version else f"/api/{version}"
        resource = next(
            (r for r in self._of(base) if r["kind"] == kind and "/" not in r["name"]), None
        )
        if resource is None:
            raise TargetError(f"the cluster has no kind {kind} of {version}: is its CRD installed?")
        if resource["namespaced"]:
            inside = str((metadata or {}).get("namespace") or namespace)
            base += f"/namespaces/{quote(inside, safe='')}"
        return f"{base}/{resource['name']}/{quote(name, safe='')}"

    def _of(self, base: str) -> list[Json]:
        if base not in self._resources:
            try:
                self._resources[base] = self._send("get", base)["resources"]
            except TargetError as error:
                if error.code != HTTPStatus.NOT_FOUND:
                    raise
                self._resources[base] = []
        return self._resources[base]

    def read(self, path: str) -> Json | None:
        """Return an object; None if there is none."""
        try:
            found: Json = self._send("get", path)
        except TargetError as error:
            if error.code == HTTPStatus.NOT_FOUND:
                return None
            raise
        return found

    def apply(
        self, path: str, document: Json, *, dry_run: bool = False, force: bool = False
    ) -> Json:
        """Apply an object on the server's side; return it. ``force`` takes over others' fields."""
        applied: Json = self._send(
            "patch",
            path,
            body=document,
            content_type=APPLY,
            field_manager=FIELD_MANAGER,
            force_conflicts="true" if force else None,
            dry_run="All" if dry_run else None,
        )
        return applied

    def create(self, path: str, document: Json) -> Json:
        """Create an object among those of a path; return it."""
        created: Json = self._send("post", path, body=document)
        return created

    def merge(self, path: str, changes: Json) -> Json:
        """Change some fields of an object; return it."""
        changed: Json = self._send(
            "patch", path, body=changes, content_type=MERGE, field_manager=FIELD_MANAGER
        )
        return changed

    def delete(self, path: str) -> None:
        """Delete an object; what it owns follows in the background."""
        self._send("delete", path, propagation_policy="Background")
