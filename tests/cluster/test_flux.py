"""Flux itself: a Kustomization with `wait: true` is Ready when its ModelDeployment is.

Building Flux takes minutes once, so `make test` leaves this out; tests/transitions/test_kstatus.py
holds what Flux reads of a status.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator

import httpx
import pytest
import yaml

from fourways_operator.facts import Json
from tests.kit.cluster.modes_rig import NAMESPACE, Plant, changed, example
from tests.kit.cluster.script_server import script_server
from tests.kit.waiting import until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.long,
    pytest.mark.timeout(1200),
    pytest.mark.usefixtures("flux"),
]

NAME = "by-flux"
MINUTES = 240.0
"""Seconds for what Flux waits for: the InferenceService, and its own interval of five seconds."""
KUSTOMIZATION = "kustomization.kustomize.toolkit.fluxcd.io"
ARTIFACT = "externalartifact.source.toolkit.fluxcd.io"
STORAGE = """
import http.server
files = {}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_PUT(self):
        files[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
    def do_GET(self):
        found = files.get(self.path)
        self.send_response(404 if found is None else 200)
        self.end_headers()
        self.wfile.write(found or b"")
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("", 9090), Handler).serve_forever()
"""
"""Keeps what is put and returns it, as Flux's own source-controller does."""


def storage(image: str) -> list[Json]:
    return script_server("artifacts", NAMESPACE, image, STORAGE, 9090)


class Repository:
    """What a Git repository is to Flux: a revision with files, which a Kustomization applies."""

    def __init__(self, plant: Plant, url: str) -> None:
        self._plant = plant
        self._url = url

    def publish(self, document: Json) -> str:
        """Make a document the content of the newest revision; return the revision."""
        content = archive({"deployment.yaml": yaml.safe_dump(document).encode()})
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        path = f"/{digest.removeprefix('sha256:')}.tar.gz"
        httpx.put(f"{self._url}{path}", content=content, trust_env=False).raise_for_status()
        now = "2026-12-01T00:00:00Z"
        status = {
            "artifact": {
                "digest": digest,
                "lastUpdateTime": now,
                "path": path,
                "revision": digest,
                "size": len(content),
                "url": f"http://artifacts.{NAMESPACE}.svc.cluster.local:9090{path}",
            },
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "reason": "Succeeded",
                    "message": "stored",
                    "lastTransitionTime": now,
                }
            ],
        }
        patch = yaml.safe_dump({"status": status})
        self.kubectl("patch", ARTIFACT, NAME, "--subresource=status", "--type=merge", "-p", patch)
        return digest

    def kubectl(self, *words: str) -> str:
        return self._plant.cluster.kubectl("-n", NAMESPACE, *words)

    def kustomization(self) -> Json:
        return self._plant.cluster.get("-n", NAMESPACE, KUSTOMIZATION, NAME)

    def said(self, status: str, revision: str) -> str:
        """Wait until Ready is so for a revision; return its reason and message."""

        def holds() -> Json | None:
            found = self.kustomization().get("status", {})
            ready = next((c for c in found.get("conditions", []) if c["type"] == "Ready"), {})
            current = found.get("lastAttemptedRevision") == revision
            return ready if current and ready.get("status") == status else None

        ready = until(holds, f"Flux says {status} of {revision}", seconds=MINUTES)
        return f"{ready['reason']}: {ready['message']}"

    def reconcile(self) -> None:
        """Have Flux apply the same revision once more, and wait until it has."""
        at = str(len(self.kubectl("get", "events")))
        self.kubectl(
            "annotate", KUSTOMIZATION, NAME, f"reconcile.fluxcd.io/requestedAt={at}", "--overwrite"
        )
        until(
            lambda: self.kustomization()["status"].get("lastHandledReconcileAt") == at,
            "Flux reconciles when asked",
            seconds=MINUTES,
        )


def archive(files: dict[str, bytes]) -> bytes:
    """Return a tar.gz."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def repository(modes: Plant) -> Iterator[Repository]:
    """A source and a Kustomization of it with `wait: true`; gone afterwards, with what it made."""
    kubectl = modes.cluster.kubectl
    # The operator may have started before KServe was there: until it looks again, it says so.
    with modes.deployed(example("come-back.yaml")):
        modes.ready("come-back", MINUTES)
    objects = storage(modes.cluster.images["runtime"])
    kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))
    kubectl("-n", NAMESPACE, "wait", "--for=condition=Ready", "pod/artifacts", "--timeout=60s")
    meta = {"name": NAME, "namespace": NAMESPACE}
    source = {"kind": "ExternalArtifact", "name": NAME}
    made = [
        {
            "apiVersion": "source.toolkit.fluxcd.io/v1",
            "kind": "ExternalArtifact",
            "metadata": meta,
            "spec": {"sourceRef": {"kind": "Repository", "name": NAME}},
        },
        {
            "apiVersion": "kustomize.toolkit.fluxcd.io/v1",
            "kind": "Kustomization",
            "metadata": meta,
            "spec": {
                "interval": "1h",
                "retryInterval": "1h",
                "timeout": "4m",
                "path": "./",
                "prune": True,
                "wait": True,
                "sourceRef": source,
                "targetNamespace": NAMESPACE,
            },
        },
    ]
    with modes.cluster.forwarded(NAMESPACE, "svc/artifacts", 9090) as url:
        kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(made))
        yield Repository(modes, url)
    # Flux's finalizer takes the ModelDeployment away, as `prune` says.
    kubectl("-n", NAMESPACE, "delete", KUSTOMIZATION, NAME, "--timeout=60s")
    kubectl("-n", NAMESPACE, "delete", ARTIFACT, NAME)
    kubectl("-n", NAMESPACE, "delete", "pod/artifacts", "svc/artifacts", "--wait=false")
    until(lambda: not modes.pods(NAME), f"the pods of {NAME} are gone", seconds=90)


def settled(plant: Plant) -> Json:
    """Return what an apply must not change: generations, and who owns which fields."""
    served = f"/apis/serving.kserve.io/v1beta1/namespaces/{NAMESPACE}/inferenceservices"
    objects = [plant.deployment(NAME), plant.get(f"{served}/{NAME}-realtime")]
    return {
        obj["kind"]: [
            obj["metadata"]["generation"],
            [(m["manager"], m.get("fieldsV1")) for m in obj["metadata"]["managedFields"]],
        ]
        for obj in objects
    }


def test_flux_waits_for_a_deployment_and_sees_what_stops_it(
    modes: Plant, repository: Repository
) -> None:
    document = example("come-back.yaml", NAME)
    good = repository.publish(document)
    repository.said("True", good)
    status = modes.deployment(NAME)["status"]
    ready = {c["type"]: c["status"] for c in status["conditions"]}["Ready"]
    assert ready == "True", "Flux says that it is ready only when it is"

    # Nothing drifts: another apply of the same changes nothing.
    before = settled(modes)
    repository.reconcile()
    assert settled(modes) == before

    # What stops an update is seen at once, not when Flux's patience ends.
    broken = repository.publish(changed(document, "model.digest", f"sha256:{'0' * 64}"))
    said = repository.said("False", broken)
    assert said.startswith("HealthCheckFailed: ")
    assert "failed early due to stalled resources" in said
    assert f"ModelDeployment/{NAMESPACE}/{NAME} status: 'Failed'" in said
    assert f"not sha256:{'0' * 64}" in modes.message(NAME, "Stalled")

    # What the rules of the kind refuse is said by Flux in their words.
    wrong = repository.publish(changed(document, "realtime.maxReplicas", 0))
    assert "spec.realtime.maxReplicas" in repository.said("False", wrong)

    mended = repository.publish(changed(document, "model.version", "1.0.1"))
    repository.said("True", mended)
    assert modes.deployment(NAME)["status"]["model"]["version"] == "1.0.1"
