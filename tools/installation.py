"""Fourways on a cluster: its images, its chart, the examples' files. Used by demo and tests alike.

Talks to the cluster by kubectl and helm, as a user does.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from tools.cluster import gobuild

ROOT = Path(__file__).parents[1]
CHART = ROOT / "charts" / "fourways"
DOCKERFILE = "runtimes/images/Dockerfile"
POSTGRES = "tools/cluster/images/postgres"
IMAGES = {
    "operator": f"fourways-operator={DOCKERFILE}:operator@.",
    "runtime": f"fourways-runtime={DOCKERFILE}:runtime@.",
    "postgres": f"fourways-postgres={POSTGRES}/Dockerfile@{POSTGRES}",
}
CLAIM = "fourways-examples"
COMMAND_SECONDS = 240
"""No command of ours waits longer for itself."""
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"


def cluster_up() -> Path:
    """Have a cluster; return its kubeconfig."""
    output = _tool("up")
    return Path(output.strip().rpartition("KUBECONFIG=")[2])


def build_images() -> dict[str, str]:
    """Build the images and put them on the cluster's node; return a reference for each.

    Images that a cluster of yours pulls from a registry are named by FOURWAYS_OPERATOR_IMAGE,
    FOURWAYS_RUNTIME_IMAGE and FOURWAYS_POSTGRES_IMAGE; then nothing is built.
    """
    given = {name: os.environ.get(f"FOURWAYS_{name.upper()}_IMAGE", "") for name in IMAGES}
    if all(given.values()):
        return given
    references = _tool("images", *IMAGES.values()).split()
    return dict(zip(IMAGES, references, strict=True))


def _tool(*args: str) -> str:
    command = [sys.executable, "-m", "tools.cluster", *args]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


@dataclass(frozen=True)
class Cluster:
    """A cluster to install onto. ``images`` are references by name: operator, runtime, postgres."""

    kubeconfig: Path
    images: dict[str, str] = field(default_factory=dict)

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        """Run kubectl; return what it printed."""
        return self._run(_program("kubectl"), *args, stdin=stdin)

    def helm(self, *args: str) -> str:
        """Run helm; return what it printed."""
        return self._run(_program("helm"), *args)

    def get(self, *args: str) -> dict:  # type: ignore[type-arg]
        """Return an object, or a list of them, as JSON."""
        answer: dict = orjson.loads(self.kubectl("get", *args, "-o", "json"))  # type: ignore[type-arg]
        return answer

    def make_namespace(self, name: str) -> None:
        """Make a namespace that enforces Pod Security `restricted`."""
        self.kubectl("create", "namespace", name)
        self.kubectl("label", "namespace", name, RESTRICTED)

    def install(self, namespace: str, *options: str, release: str = "fourways") -> None:
        """Install, or upgrade to, the chart with the images at hand and a trial PostgreSQL."""
        values = [f"{where}.image.{part}" for where, part in self._image_values()]
        self.helm(
            "upgrade", "--install", release, str(CHART), "--namespace", namespace,
            *(a for v in values for a in ("--set", v)),
            "--set", "trialPostgresql.enabled=true",
            # Another release, or the suite itself, may have brought the CRD.
            "--take-ownership", "--wait", "--timeout", "3m", *options,
        )  # fmt: skip

    def _image_values(self) -> Iterator[tuple[str, str]]:
        places = {"operator": "operator", "runtime": "runtime", "postgres": "trialPostgresql"}
        for name, place in places.items():
            repository, _, tag = self.images[name].rpartition(":")
            yield place, f"repository={repository}"
            yield place, f"tag={tag}"

    def fill_claim(self, namespace: str, folder: Path) -> None:
        """Make the examples' claim and put a folder's files into it, by a pod that goes away."""
        self.kubectl("-n", namespace, "apply", "-f", "-", stdin=_loader(self.images["runtime"]))
        self.kubectl(
            "-n", namespace, "wait", "--for=condition=Ready", "pod/loader", "--timeout=90s"
        )
        with tempfile.TemporaryFile() as archive:
            with tarfile.open(fileobj=archive, mode="w") as tar:
                tar.add(folder, arcname=".", filter=_anonymous)
            archive.seek(0)
            # Python unpacks it, so that the image need not carry tar. The archive is our own.
            unpack = (
                "import sys, tarfile; "
                "tarfile.open(fileobj=sys.stdin.buffer, mode='r|').extractall('/claim')"
            )
            subprocess.run(
                [_program("kubectl"), "-n", namespace, "exec", "-i", "loader", "--",
                 "python", "-c", unpack],
                stdin=archive, check=True, env=self.environment(), timeout=60,
            )  # fmt: skip
        self.kubectl("-n", namespace, "delete", "pod", "loader", "--grace-period=1")

    @contextmanager
    def forwarded(self, namespace: str, target: str, port: int) -> Iterator[str]:
        """Forward a port of a Service or pod to this machine; yields the URL."""
        process = subprocess.Popen(
            [_program("kubectl"), "-n", namespace, "port-forward", target, f":{port}"],
            stdout=subprocess.PIPE, text=True, env=self.environment(),
        )  # fmt: skip
        try:
            assert process.stdout is not None  # noqa: S101  (it is a pipe)
            match = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
            if match is None:
                raise RuntimeError(f"kubectl port-forward {target} ended: {process.wait()}")
            yield f"http://127.0.0.1:{match.group(1)}"
        finally:
            process.terminate()
            process.wait()

    def await_ready(self, namespace: str, *names: str, seconds: float = 120) -> None:
        """Wait until deployments are Ready.

        Raises:
            TimeoutError: says what each one said last.

        """
        deadline = time.monotonic() + seconds
        said: dict[str, str] = {}
        while time.monotonic() < deadline:
            for name in names:
                status = self.get("-n", namespace, "modeldeployment", name).get("status", {})
                ready = {c["type"]: c for c in status.get("conditions", [])}.get("Ready", {})
                said[name] = f"{ready.get('status')} {ready.get('reason')}: {ready.get('message')}"
            if all(text.startswith("True") for text in said.values()):
                return
            time.sleep(0.5)
        raise TimeoutError("; ".join(f"{name} is {text}" for name, text in said.items()))

    def _run(self, *command: str, stdin: str | None = None) -> str:
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            env=self.environment(),
            timeout=COMMAND_SECONDS,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command[:4])} …: {done.stderr.strip()}")
        return done.stdout

    def environment(self) -> dict[str, str]:
        """Return the environment in which kubectl and fourways see this cluster."""
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig)}


def _program(name: str) -> str:
    return shutil.which(name) or str(gobuild.build().path(name))


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 65532
    member.uname = member.gname = ""
    return member


def _loader(image: str) -> str:
    return f"""
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: {CLAIM}}}
spec:
  accessModes: [ReadWriteOnce]
  resources: {{requests: {{storage: 64Mi}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: loader}}
spec:
  automountServiceAccountToken: false
  restartPolicy: Never
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    seccompProfile: {{type: RuntimeDefault}}
  containers:
    - name: loader
      image: {image}
      imagePullPolicy: IfNotPresent
      command: [python, -c, "import signal; signal.pause()"]
      securityContext:
        allowPrivilegeEscalation: false
        capabilities: {{drop: [ALL]}}
        readOnlyRootFilesystem: true
      resources:
        requests: {{cpu: 50m, memory: 64Mi}}
        limits: {{cpu: 500m, memory: 128Mi}}
      volumeMounts: [{{name: claim, mountPath: /claim}}]
  volumes:
    - name: claim
      persistentVolumeClaim: {{claimName: {CLAIM}}}
"""
