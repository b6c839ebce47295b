"""What the tests of the modes share: one installed operator, and deployments that come and go."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from fourways_api.audience import EVERY_DEPLOYMENT
from fourways_cli.embedded.given import PUBLIC_KEY, SIGNING_KEY, make_signing_key
from fourways_operator.facts import Json
from fourways_operator.plan.parts import DEPLOYMENT_LABEL
from fourways_operator.plan.purge import PURGE_LABEL
from tests.kit.cluster.operator_rig import Api
from tests.kit.cluster.told import tell
from tests.kit.waiting import until
from tools.demo.questions import ARTIFACTS, EXAMPLES, SHOP_SECRET
from tools.installation import COMMAND_SECONDS, Cluster, claim

NAMESPACE = "fw-test-modes"
BUNDLES = "fourways-bundles"
SIGNING = "device-signing"
TRUNCATED = "pvc://fourways-examples/broken/truncated.onnx"
NAMED_WITHIN = 30.0
"""Seconds within which what is wrong is said."""


def example(path: str, name: str | None = None, **spec: Any) -> Json:
    """Return an example's document, with parts of its spec replaced."""
    document: Json = yaml.safe_load((EXAMPLES / path).read_text("utf-8"))
    if name:
        document["metadata"]["name"] = name
    document["spec"] |= spec
    return document


def changed(document: Json, path: str, value: Any) -> Json:
    """Return a document with one field, such as ``model.digest``, replaced; None takes it away."""
    *folders, last = path.split(".")
    spec = document["spec"] = {**document["spec"]}
    return {**document, "spec": _changed(spec, folders, last, value)}


def _changed(part: Json, folders: list[str], last: str, value: Any) -> Json:
    if folders:
        return {**part, folders[0]: _changed(part.get(folders[0], {}), folders[1:], last, value)}
    kept = {key: old for key, old in part.items() if key != last}
    return kept if value is None else {**kept, last: value}


@dataclass
class Timeline:
    """When things came about."""

    what: str
    started: float = field(default_factory=time.monotonic)
    marks: list[str] = field(default_factory=list)

    def mark(self, event: str) -> float:
        """Note that something has come about; return the seconds it took."""
        seconds = time.monotonic() - self.started
        self.marks.append(f"{event} {seconds:.1f} s")
        return seconds

    def tell(self) -> None:
        """Have it printed at the end."""
        tell(f"{self.what}: {', '.join(self.marks)}")


class Plant:
    """A namespace with the chart installed, and all that the examples name."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.api = Api(cluster.kubeconfig)
        self.public_key = folder / PUBLIC_KEY
        self._folder = folder

    def build(self) -> None:
        """Install, and make claims, Secrets and tables."""
        kubectl = self.cluster.kubectl
        kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=90s")
        self.cluster.make_namespace(NAMESPACE)
        # Who may ask is shown by test_callers.py; here the modes are asked without credentials.
        self.cluster.install(NAMESPACE, "--set", "gateway.auth.anonymous={*:*}")
        with tempfile.TemporaryDirectory() as folder:
            files = Path(folder, "files")
            shutil.copytree(ARTIFACTS, files)
            whole = (ARTIFACTS / "churn" / "model.onnx").read_bytes()
            (files / "broken").mkdir()
            (files / "broken" / "truncated.onnx").write_bytes(whole[: len(whole) // 2])
            self.cluster.fill_claim(NAMESPACE, files)
        kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=claim(BUNDLES, "256Mi"))
        make_signing_key(self._folder)
        private = (self._folder / SIGNING_KEY).read_text("ascii")
        self.cluster.give_secret(NAMESPACE, SIGNING, {SIGNING_KEY: private}, EVERY_DEPLOYMENT)
        self.cluster.sql(NAMESPACE, (ARTIFACTS / "come-back" / "shop.sql").read_text("utf-8"))
        self.cluster.share_store(NAMESPACE, SHOP_SECRET, EVERY_DEPLOYMENT)

    def remove(self) -> None:
        """Take it all away."""
        self.cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")

    # ------------------------------------------------------------ deployments

    @contextmanager
    def deployed(self, document: Json) -> Iterator[Timeline]:
        """Apply a deployment; afterwards it and its pods are gone, and what they took is free."""
        name = document["metadata"]["name"]
        timeline = Timeline(name)
        self.apply(document)
        try:
            yield timeline
        finally:
            self.delete(name)

    def apply(self, document: Json) -> None:
        """Apply a document with kubectl."""
        text = yaml.safe_dump(document)
        self.cluster.kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=text)

    def delete(self, name: str) -> None:
        """Delete a deployment, and wait until its pods are gone."""
        self.cluster.kubectl("-n", NAMESPACE, "delete", "modeldeployment", name, "--wait=false")
        until(lambda: not self.pods(name), f"the pods of {name} are gone", seconds=90)

    def ready(self, name: str, seconds: float = 120) -> Json:
        """Wait until a deployment is Ready; return its status."""
        return self.said(name, "Ready", seconds, status="True")

    def said(self, name: str, kind: str, seconds: float = NAMED_WITHIN, **wanted: str) -> Json:
        """Wait until a condition of a deployment's present generation is so; return the status."""
        last: Json = {}

        def holds() -> Json | None:
            document = self.deployment(name)
            status = document.get("status") or {}
            found = _conditions(status).get(kind, {})
            last.update(found)
            current = status.get("observedGeneration") == document["metadata"]["generation"]
            is_so = all(found.get(key) == value for key, value in wanted.items())
            return status if current and is_so else None

        try:
            return until(holds, f"{kind} of {name}", seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}: {wanted} wanted, {last}; {self.told(name)}") from None

    def message(self, name: str, kind: str) -> str:
        """Return the words of a condition."""
        return str(_conditions(self.deployment(name)["status"])[kind]["message"])

    def told(self, name: str) -> str:
        """Return what the conditions and pods of a deployment say, for people."""
        conditions = _conditions(self.deployment(name).get("status") or {})
        said = [f"{k} {c['status']} {c['reason']}: {c['message']}" for k, c in conditions.items()]
        for pod in self.pods(name):
            states = [s.get("state") for s in pod["status"].get("containerStatuses", [])]
            said.append(f"{pod['metadata']['name']} {pod['status'].get('phase')} {states}")
        return "\n  ".join(["", *said])

    def deployment(self, name: str) -> Json:
        """Return a live ModelDeployment."""
        return self.get(
            f"/apis/fourways.dev/v1alpha1/namespaces/{NAMESPACE}/modeldeployments/{name}"
        )

    def pods(self, name: str) -> list[Json]:
        """Return the pods of a deployment. The pod that purges its data outlives it: left out."""
        selector = quote(f"{DEPLOYMENT_LABEL}={name},!{PURGE_LABEL}")
        path = f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector={selector}"
        items: list[Json] = self.get(path)["items"]
        return items

    def fourways(self, *args: str, code: int = 0) -> str:
        """Run our command line on the namespace; return what it printed."""
        # `purge` names the namespace beside the deployment, which may no longer exist.
        namespace = () if args[0] == "purge" else ("-n", NAMESPACE)
        command = [sys.executable, "-m", "fourways_cli", *args, *namespace, "--cluster"]
        environment = self.cluster.environment() | {"COLUMNS": "250"}
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=COMMAND_SECONDS
        )
        assert done.returncode == code, f"{args}: {done.returncode} {done.stdout} {done.stderr}"
        return done.stdout + done.stderr

    def get(self, path: str) -> Json:
        """Return what is at a path of the API server."""
        return self.api.request("get", path)

    @contextmanager
    def gateway(self) -> Iterator[str]:
        """Forward the gateway's port, once no pod of it is about to go; yields the URL."""
        kubectl, name = self.cluster.kubectl, "deployment/fourways-gateway"
        # It goes with the last deployment of the namespace, and comes with the next.
        kubectl("-n", NAMESPACE, "wait", "--for=create", name, "--timeout=60s")
        kubectl("-n", NAMESPACE, "rollout", "status", name, "--timeout=60s")
        with self.cluster.forwarded(NAMESPACE, "svc/fourways-gateway", 80) as url:
            yield url


def _conditions(status: Json) -> dict[str, Json]:
    return {c["type"]: c for c in status.get("conditions", [])}


@contextmanager
def plant(cluster: Cluster, folder: Path) -> Iterator[Plant]:
    """Build a plant, and take it away."""
    built = Plant(cluster, folder)
    built.build()
    yield built
    with suppress(RuntimeError):
        built.remove()
