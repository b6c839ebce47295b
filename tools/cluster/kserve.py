"""KServe's controller on the cluster: Standard mode, no ingress, no cert-manager.

Its charts are included in its Go module. On our own cluster the controller is the program built
here; on kind it is the image that the charts name. A certificate of our own replaces the one that
cert-manager would issue.
"""

import base64
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tools.cluster import node, operators
from tools.cluster.config import KSERVE_VERSION, Checkout
from tools.cluster.detect import Kind
from tools.cluster.errors import ClusterError
from tools.cluster.gobuild import Binaries, build
from tools.cluster.operators import PATIENCE, Json
from tools.cluster.shell import run, step, succeeds, wait_for

NAMESPACE = "kserve"
_MODULE = f"github.com/kserve/kserve@v{KSERVE_VERSION}"
_IMAGE = f"localhost/fourways-kserve:{KSERVE_VERSION}"
_DEPLOYMENT = "kserve-controller-manager"
_WEBHOOK_HOST = "kserve-webhook-server-service.kserve.svc"
_VALUES = {
    "kserve.controller.deploymentMode": "Standard",
    "kserve.controller.gateway.disableIngressCreation": "true",
    "kserve.controller.gateway.disableIstioVirtualHost": "true",
    # Otherwise a test of KEDA waits for five minutes.
    "kserve.autoscaler.scaleDownStabilizationWindowSeconds": "5",
}
_CERTIFICATES = frozenset({"Certificate", "Issuer"})
_WEBHOOKS = frozenset({"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"})
# Last: their kinds and webhooks must exist first.
_OWN_OBJECTS = frozenset({"ClusterStorageContainer"})
_PROBE = {
    "apiVersion": "serving.kserve.io/v1beta1",
    "kind": "InferenceService",
    "metadata": {"name": "probe", "namespace": "default"},
    "spec": {"predictor": {"containers": [{"name": "kserve-container", "image": "probe"}]}},
}


def install(checkout: Checkout, which: Kind, kubeconfig: Path) -> None:
    """Install KServe's controller and wait for it. A given cluster must already have it."""
    if which is Kind.GIVEN:
        if not succeeds(["kubectl", "--kubeconfig", kubeconfig, "get", "inferenceservices", "-A"]):
            raise ClusterError(f"this cluster has no KServe: install {KSERVE_VERSION} or newer")
        return
    binaries = build(("kserve",) if which is Kind.LOCAL else ())
    kubectl = [str(binaries.kubectl), "--kubeconfig", str(kubeconfig)]
    if _answers(kubectl):
        return
    with step(f"KServe {KSERVE_VERSION}"):
        image = None
        if which is Kind.LOCAL:
            image = _IMAGE
            node.load_binary(checkout, image, binaries.path("kserve"))
        _apply(kubectl, binaries, image)
        wait_for("KServe", lambda: _answers(kubectl), seconds=PATIENCE, hint="pods of kserve")


def _apply(kubectl: list[str], binaries: Binaries, image: str | None) -> None:
    charts = operators.module_folder(_MODULE) / "charts"
    kinds = _rendered(binaries, charts / "kserve-crd", {})
    operators.apply_kinds(kubectl, "KServe", NAMESPACE, kinds)
    objects = _fitted(_rendered(binaries, charts / "kserve-resources", _VALUES), image)
    operators.apply(kubectl, [o for o in objects if o["kind"] not in _OWN_OBJECTS])
    rollout = ["rollout", "status", f"deployment/{_DEPLOYMENT}", f"--timeout={PATIENCE:.0f}s"]
    run([*kubectl, "-n", NAMESPACE, *rollout])
    operators.apply(kubectl, [o for o in objects if o["kind"] in _OWN_OBJECTS])


def _rendered(binaries: Binaries, chart: Path, values: Mapping[str, str]) -> list[Json]:
    given = [word for name, value in values.items() for word in ("--set-string", f"{name}={value}")]
    text = run([binaries.path("helm"), "template", "kserve", chart, "-n", NAMESPACE, *given])
    return operators.documents(text)


def _fitted(objects: list[Json], image: str | None) -> list[Json]:
    """Remove objects that this cluster does not need, and give the webhooks a certificate."""
    key, certificate = _certificate()
    fitted = [o for o in objects if o["kind"] not in _CERTIFICATES]
    for obj in fitted:
        if obj["kind"] == "Deployment":
            _fit_deployment(obj, image)
        if obj["kind"] in _WEBHOOKS:
            for webhook in obj["webhooks"]:
                webhook["clientConfig"]["caBundle"] = certificate
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "kserve-webhook-server-cert", "namespace": NAMESPACE},
        "type": "kubernetes.io/tls",
        "data": {"tls.crt": certificate, "tls.key": key},
    }
    return [secret, *fitted]


def _fit_deployment(deployment: Json, image: str | None) -> None:
    pod = deployment["spec"]["template"]["spec"]
    pod["containers"] = [c for c in pod["containers"] if c["name"] == "manager"]
    manager = pod["containers"][0]
    # With a tenth of a core, its limit, each reconcile takes seconds.
    manager["resources"] = {"requests": {"cpu": "50m", "memory": "128Mi"}}
    for probe in ("readinessProbe", "livenessProbe"):
        manager[probe] |= {"initialDelaySeconds": 1, "periodSeconds": 2}
    if image is not None:
        operators.run_ours(pod, image, "/kserve")


def _certificate() -> tuple[str, str]:
    """Return key and certificate of the webhooks' host, in PEM and that in base64."""
    with tempfile.TemporaryDirectory() as folder:
        key, certificate = Path(folder) / "tls.key", Path(folder) / "tls.crt"
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        names = ["-subj", "/CN=kserve-webhook", "-addext", f"subjectAltName=DNS:{_WEBHOOK_HOST}"]
        files = ["-keyout", str(key), "-out", str(certificate)]
        run([*command.split(), *files, "-days", "3650", *names])
        return tuple(base64.b64encode(f.read_bytes()).decode() for f in (key, certificate))  # type: ignore[return-value]


def _answers(kubectl: list[str]) -> bool:
    """Check what no status shows: whether the webhooks accept a service.

    The webhooks are created last; without them everything is accepted, so the check waits for the
    mutating one.
    """
    defaulter = "mutatingwebhookconfiguration/inferenceservice.serving.kserve.io"
    if not succeeds([*kubectl, "get", defaulter]):
        return False
    try:
        run(
            [*kubectl, "create", "--dry-run=server", "-f", "-"],
            input_text=json.dumps(_PROBE),
            timeout=15,
        )
    except ClusterError:
        return False
    return True
