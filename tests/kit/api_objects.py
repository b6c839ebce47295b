"""An API server over HTTP that holds objects in memory, for tests of the command line.

It knows discovery, reading, server-side apply without field owners, merge patches, deletion, logs
and the exec of a pod's command, as far as the command line uses them.
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]

KINDS = {
    "/api/v1": {
        "Secret": "secrets",
        "Pod": "pods",
        "Event": "events",
        "PersistentVolumeClaim": "persistentvolumeclaims",
    },
    "/apis/fourways.dev/v1alpha1": {"ModelDeployment": "modeldeployments"},
    "/apis/batch/v1": {"Job": "jobs", "CronJob": "cronjobs"},
    "/apis/apps/v1": {"Deployment": "deployments"},
}


@dataclass(slots=True)
class ApiObjects:
    """The objects of a cluster by path, and what it was asked."""

    objects: dict[str, Json] = field(default_factory=dict)
    logs: dict[str, bytes] = field(default_factory=dict)
    """By pod."""

    asked: list[tuple[str, str, Json]] = field(default_factory=list)
    """Method, path and query of each request that changes something."""

    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Status and message of the refusal, by method."""

    status_when_created: Json = field(default_factory=dict)
    """The status of objects that are created by POST."""

    port: int = 0
    changes: int = 0

    def add(self, base: str, document: Json, namespace: str = "team") -> Json:
        """Store an object; return it."""
        resource = KINDS[base][document["kind"]]
        path = f"{base}/namespaces/{namespace}/{resource}/{document['metadata']['name']}"
        self.changes += 1
        stored = copy.deepcopy(document)
        stored["metadata"] |= {"namespace": namespace, "resourceVersion": str(self.changes)}
        stored["metadata"].setdefault("uid", f"uid-{self.changes}")
        self.objects[path] = stored
        return stored

    def answer(self, method: str, target: str, body: bytes, kind: str) -> tuple[int, Any]:
        """Return the status and the body of an answer."""
        split = urlsplit(target)
        path, query = split.path, {k: v[0] for k, v in parse_qs(split.query).items()}
        if method != "GET":
            self.asked.append((method, path, {**query, "body": json.loads(body or b"{}")}))
            if method in self.refusals:
                code, message = self.refusals[method]
                return code, {"kind": "Status", "message": message}
        if path in KINDS:
            listed = [
                {"name": name, "kind": kind, "namespaced": True}
                for kind, name in KINDS[path].items()
            ]
            return 200, {"resources": listed}
        if path.endswith("/log"):
            pod = path.split("/")[-2]
            if pod in self.logs:
                return 200, self.logs[pod]
            return 400, {"message": f"container of {pod} is waiting to start"}
        if method == "PATCH":
            return self._patch(path, query, json.loads(body), kind)
        if method == "POST":
            return 201, self._create(path, json.loads(body))
        if path in self.objects:
            found = self.objects[path]
            if method == "DELETE":
                del self.objects[path]
            return 200, found
        if path.rpartition("/")[2] in {n for kinds in KINDS.values() for n in kinds.values()}:
            return 200, {"items": self._list(path, query)}
        return 404, {"message": f"{path} not found"}

    def _list(self, path: str, query: Json) -> list[Json]:
        label, _, value = query.get("labelSelector", "").partition("=")
        items = [o for p, o in self.objects.items() if p.rpartition("/")[0] == path]
        return [
            o for o in items if not label or (o["metadata"].get("labels") or {}).get(label) == value
        ]

    def _create(self, path: str, document: Json) -> Json:
        base, _, inside = path.partition("/namespaces/")
        metadata = document["metadata"]
        metadata.setdefault("name", f"{metadata.get('generateName', '')}{self.changes}")
        status = {"status": self.status_when_created} if self.status_when_created else {}
        return self.add(base, {**document, **status}, inside.split("/")[0])

    def _patch(self, path: str, query: Json, changes: Json, kind: str) -> tuple[int, Json]:
        before = self.objects.get(path)
        if before is None and "apply" not in kind:
            return 404, {"message": f"{path} not found"}
        after = merged(copy.deepcopy(before or {}), changes)
        after["metadata"]["namespace"] = path.split("/namespaces/")[1].split("/")[0]
        if before is None or merged(copy.deepcopy(before), changes) != before:
            self.changes += 1
            after["metadata"]["resourceVersion"] = str(self.changes)
            after["metadata"].setdefault("uid", f"uid-{self.changes}")
        if "dryRun" not in query:
            self.objects[path] = after
        return 200, after


def merged(into: Json, changes: Json) -> Json:
    """Merge changes into an object, as a merge patch does."""
    for key, value in changes.items():
        if isinstance(value, dict):
            into[key] = merged(into.get(key) or {}, value)
        elif value is None:
            into.pop(key, None)
        else:
            into[key] = value
    return into


@contextmanager
def api_objects() -> Iterator[ApiObjects]:
    """Serve objects at a port of loopback."""
    held = ApiObjects()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            kind = self.headers.get("Content-Type") or ""
            status, document = held.answer(self.command, self.path, body, kind)
            text = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815  (named by the base class)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        held.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield held
        finally:
            server.shutdown()
            thread.join()


def kubeconfig_of(
    port: int, file: Path, contexts: Mapping[str, str | None] = MappingProxyType({"mine": "team"})
) -> Path:
    """Write a kubeconfig with the namespaces of contexts, the first the current one; return it."""
    file.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": next(iter(contexts)),
                "users": [{"name": "u", "user": {}}],
                "clusters": [{"name": "k", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
                "contexts": [
                    {"name": name, "context": {"cluster": "k", "user": "u", **_in(namespace)}}
                    for name, namespace in contexts.items()
                ],
            }
        )
    )
    return file


def _in(namespace: str | None) -> dict[str, str]:
    return {"namespace": namespace} if namespace else {}
