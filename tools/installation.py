"""Fourways on a cluster: its images, its chart, the examples' files. Used by demo and tests.

It controls the cluster with kubectl and helm, as a user does.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from fourways_api.audience import DEPLOYMENTS_KEY
from tools.cluster import gobuild, kafka, nats
from tools.cluster.config import this_checkout
from tools.cluster.detect import Kind, detect
from tools.cluster.errors import ClusterError

ROOT = Path(__file__).parents[1]
CHART = ROOT / "charts" / "fourways"
DOCKERFILE = "runtimes/images/Dockerfile"
POSTGRES = "tools/cluster/images/postgres"
KAFKA = "tools/cluster/images/kafka"
NATS = "tools/cluster/images/nats"
IMAGES: dict[str, Callable[[], str]] = {
    "operator": lambda: f"fourways-operator={DOCKERFILE}:operator@.",
    "runtime": lambda: f"fourways-runtime={DOCKERFILE}:runtime@.",
    "ray": lambda: f"fourways-ray={DOCKERFILE}:ray@.",
    "postgres": lambda: f"fourways-postgres={POSTGRES}/Dockerfile@{POSTGRES}",
    "kafka": lambda: f"fourways-kafka={KAFKA}/Dockerfile@{kafka.files()}",
    "nats": lambda: f"fourways-nats={NATS}/Dockerfile@{nats.files()}",
}
"""The inputs of each image. The brokers' inputs are downloaded first."""

CLAIM = "fourways-examples"
COMMAND_SECONDS = 240
"""Longest time that one of our commands waits, in seconds."""
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"


def cluster_up() -> Path:
    """Start a cluster if necessary; return its kubeconfig."""
    output = _tool("up")
    return Path(output.strip().rpartition("KUBECONFIG=")[2])


def build_images(*without: str) -> dict[str, str]:
    """Build the images and load them onto the cluster's node; return a reference for each.

    If your cluster pulls images from a registry, name them in FOURWAYS_OPERATOR_IMAGE,
    FOURWAYS_RUNTIME_IMAGE, FOURWAYS_RAY_IMAGE, FOURWAYS_POSTGRES_IMAGE, FOURWAYS_KAFKA_IMAGE and
    FOURWAYS_NATS_IMAGE; those are not built. A broker whose files are not available is skipped with
    a message.
    """
    given = {name: os.environ.get(f"FOURWAYS_{name.upper()}_IMAGE", "") for name in IMAGES}
    for name in without:
        del given[name]
    found = {name: reference for name, reference in given.items() if reference}
    specs = {}
    for name in given.keys() - found.keys():
        try:
            specs[name] = IMAGES[name]()
        except ClusterError as error:
            print(f"no image of {name}: {error}", file=sys.stderr)
    references = _tool("images", *specs.values()).split() if specs else []
    return found | dict(zip(specs, references, strict=True))


def _tool(*args: str) -> str:
    command = [sys.executable, "-m", "tools.cluster", *args]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


@dataclass(frozen=True)
class Cluster:
    """A cluster to install onto. ``images`` are references by the names of ``IMAGES``."""

    kubeconfig: Path
    images: dict[str, str] = field(default_factory=dict)

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        """Run kubectl; return its output."""
        return self._run(program("kubectl"), *args, stdin=stdin)

    def start_kubectl(self, *args: str) -> subprocess.Popen[str]:
        """Start kubectl; the caller communicates with it and ends it."""
        return subprocess.Popen(
            [program("kubectl"), *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self.environment(),
        )

    def helm(self, *args: str) -> str:
        """Run helm; return its output."""
        return self._run(program("helm"), *args)

    def get(self, *args: str) -> dict:  # type: ignore[type-arg]
        """Return an object, or a list of them, as JSON."""
        answer: dict = orjson.loads(self.kubectl("get", *args, "-o", "json"))  # type: ignore[type-arg]
        return answer

    def make_namespace(self, name: str) -> None:
        """Create a namespace that enforces Pod Security `restricted`."""
        self.kubectl("create", "namespace", name)
        self.kubectl("label", "namespace", name, RESTRICTED)

    def install(self, namespace: str, *options: str, release: str = "fourways") -> None:
        """Install the chart, or upgrade to it, with the built images and a trial PostgreSQL."""
        values = [f"{where}.image.{part}" for where, part in self._image_values()]
        self.helm(
            "upgrade",
            "--install",
            release,
            str(CHART),
            "--namespace",
            namespace,
            *(a for v in values for a in ("--set", v)),
            "--set",
            "trialPostgresql.enabled=true",
            # Another release, or the test suite, may have installed the CRD.
            "--take-ownership",
            "--wait",
            "--timeout",
            "3m",
            *options,
        )

    def _image_values(self) -> Iterator[tuple[str, str]]:
        places = {
            "operator": "operator",
            "runtime": "runtime",
            "ray": "ray",
            "postgres": "trialPostgresql",
            "nats": "trialNats",
        }
        for name, place in places.items():
            if name not in self.images:
                continue
            repository, _, tag = self.images[name].rpartition(":")
            yield place, f"repository={repository}"
            yield place, f"tag={tag}"

    def install_kserve(self) -> bool:
        """Wait for KServe's controller; return False if a given cluster has none."""
        return _installed("kserve")

    def install_kuberay(self) -> bool:
        """Wait for KubeRay's operator; return False if a given cluster has none."""
        return _installed("kuberay")

    def install_keda(self) -> bool:
        """Wait for KEDA; return False if a given cluster has none."""
        return _installed("keda")

    def install_flux(self) -> bool:
        """Wait for Flux's kustomize-controller; return False if a given cluster has none."""
        return _installed("flux")

    def install_cnpg(self) -> bool:
        """Wait for CloudNativePG's operator; return False if a given cluster has none."""
        return _installed("cnpg")

    def give_secret(
        self, namespace: str, name: str, files: dict[str, str], deployments: str = ""
    ) -> None:
        """Create or replace a Secret; its contents appear in no command line.

        ``deployments`` are the names of the deployments that may use it, separated by commas.
        """
        if deployments:
            files = {DEPLOYMENTS_KEY: deployments, **files}
        document = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name},
            "stringData": files,
        }
        self.kubectl("-n", namespace, "apply", "-f", "-", stdin=orjson.dumps(document).decode())

    def gateway_token(self, namespace: str, account: str = "fourways-gateway") -> str:
        """Return a token of a ServiceAccount for the namespace's gateway."""
        options = ("--audience", "fourways", "--duration", "1h")
        return self.kubectl("-n", namespace, "create", "token", account, *options).strip()

    def share_store(self, namespace: str, name: str, deployments: str) -> None:
        """Create a Secret of another name with the trial PostgreSQL's connection string."""
        uri = self.get("-n", namespace, "secret", "fourways-store")["data"]["uri"]
        self.give_secret(namespace, name, {"uri": base64.b64decode(uri).decode()}, deployments)

    def sql(self, namespace: str, text: str) -> None:
        """Run SQL in the trial PostgreSQL."""
        self.kubectl(
            "-n",
            namespace,
            "exec",
            "-i",
            "fourways-trial-postgresql-0",
            "--",
            "psql",
            "--quiet",
            "--username=fourways",
            "--dbname=fourways",
            "--set=ON_ERROR_STOP=1",
            stdin=text,
        )

    def fill_claim(self, namespace: str, folder: Path, name: str = CLAIM) -> None:
        """Create a claim and copy a folder's files into it, with a temporary pod."""
        objects = f"{claim(name)}---\n{idle_pod('loader', self.images['runtime'], name)}"
        self.kubectl("-n", namespace, "apply", "-f", "-", stdin=objects)
        self.kubectl(
            "-n", namespace, "wait", "--for=condition=Ready", "pod/loader", "--timeout=90s"
        )
        with tempfile.TemporaryFile() as archive:
            with tarfile.open(fileobj=archive, mode="w") as tar:
                tar.add(folder, arcname=".", filter=_anonymous)
            archive.seek(0)
            # Python unpacks it, so that the image does not need tar. The archive is our own.
            unpack = (
                "import sys, tarfile; "
                "tarfile.open(fileobj=sys.stdin.buffer, mode='r|').extractall('/claim')"
            )
            subprocess.run(
                [
                    program("kubectl"),
                    "-n",
                    namespace,
                    "exec",
                    "-i",
                    "loader",
                    "--",
                    "python",
                    "-c",
                    unpack,
                ],
                stdin=archive,
                check=True,
                env=self.environment(),
                timeout=60,
            )
        self.kubectl("-n", namespace, "delete", "pod", "loader", "--grace-period=1")

    @contextmanager
    def forwarded(self, namespace: str, target: str, port: int) -> Iterator[str]:
        """Forward a port of a Service or pod to this machine; yields the URL."""
        process = subprocess.Popen(
            [program("kubectl"), "-n", namespace, "port-forward", target, f":{port}"],
            stdout=subprocess.PIPE,
            text=True,
            env=self.environment(),
        )
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
            TimeoutError: has the last message of each.
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
        """Return the environment in which kubectl and fourways use this cluster."""
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig)}


def _installed(what: str) -> bool:
    try:
        _tool(what)
    except subprocess.CalledProcessError:
        if detect(this_checkout()) is not Kind.GIVEN:
            raise
        return False
    return True


def program(name: str) -> str:
    """Return a program of the cluster's tools, such as helm: the one on the PATH, or one built."""
    return shutil.which(name) or str(gobuild.build().path(name))


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 65532
    member.uname = member.gname = ""
    return member


def idle_pod(name: str, image: str, claim: str | None = None) -> str:
    """Return a pod that waits for commands, with a claim at /claim if one is named."""
    mounts = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108  (the pod's own)
    volumes: list[dict[str, object]] = [{"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}]
    if claim:
        mounts.append({"name": "claim", "mountPath": "/claim"})
        volumes.append({"name": "claim", "persistentVolumeClaim": {"claimName": claim}})
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  automountServiceAccountToken: false
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    seccompProfile: {{type: RuntimeDefault}}
  containers:
    - name: idle
      image: {image}
      imagePullPolicy: IfNotPresent
      command: [python, -c, "import signal; signal.pause()"]
      securityContext:
        allowPrivilegeEscalation: false
        capabilities: {{drop: [ALL]}}
        readOnlyRootFilesystem: true
      resources:
        requests: {{cpu: 20m, memory: 64Mi}}
        limits: {{cpu: "1", memory: 256Mi}}
      volumeMounts: {orjson.dumps(mounts).decode()}
  volumes: {orjson.dumps(volumes).decode()}
"""


def claim(name: str, size: str = "64Mi") -> str:
    """Return a claim with storage on one node."""
    return f"""
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: {name}}}
spec:
  accessModes: [ReadWriteOnce]
  resources: {{requests: {{storage: {size}}}}}
"""
