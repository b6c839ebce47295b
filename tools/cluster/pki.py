"""Certificates and kubeconfigs of the local cluster.

One authority signs everything. The keys are elliptic-curve keys, because eight RSA keys would add
seconds to every `up`. The openssl program is used, because the standard library cannot sign
certificates.
"""

import base64
from pathlib import Path

import yaml

from tools.cluster.config import KUBERNETES_SERVICE_IP, NODE_NAME, Checkout
from tools.cluster.shell import run

# Certificate's name -> its subject; RBAC's built-in bindings refer to the groups (O=).
_SUBJECTS = {
    "apiserver": "/CN=kube-apiserver",
    "apiserver-kubelet-client": "/O=system:masters/CN=kube-apiserver-kubelet-client",
    "front-proxy-client": "/CN=front-proxy-client",
    "admin": "/O=system:masters/CN=fourways-admin",
    "controller-manager": "/CN=system:kube-controller-manager",
    "scheduler": "/CN=system:kube-scheduler",
    "kubelet": f"/O=system:nodes/CN=system:node:{NODE_NAME}",
    "proxy": "/CN=system:kube-proxy",
    "volumes": "/O=system:masters/CN=fourways-volumes",
}
_WITH_KUBECONFIG = ("controller-manager", "scheduler", "kubelet", "proxy", "volumes")
_DAYS = "3650"


def make(checkout: Checkout) -> None:
    """Write every key, certificate and kubeconfig; the state folder is new, and nothing is kept."""
    pki = checkout.pki
    pki.mkdir(parents=True, mode=0o700)
    _authority(pki)
    _service_account_key(pki)
    for name, subject in _SUBJECTS.items():
        _certificate(pki, name, subject, _names(checkout))
    for name in _WITH_KUBECONFIG:
        _kubeconfig(checkout, name, pki / f"{name}.kubeconfig")
    _kubeconfig(checkout, "admin", checkout.kubeconfig)


def _authority(pki: Path) -> None:
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    files = ["-keyout", str(pki / "ca.key"), "-out", str(pki / "ca.crt")]
    run([*command.split(), *files, "-days", _DAYS, "-subj", "/CN=fourways-ca"])


def _service_account_key(pki: Path) -> None:
    key = pki / "service-account.key"
    run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key])
    run(["openssl", "ec", "-in", key, "-pubout", "-out", pki / "service-account.pub"])


def _names(checkout: Checkout) -> str:
    """Every name and address of the cluster's servers."""
    hosts = ["localhost", NODE_NAME, "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    hosts.append("kubernetes.default.svc.cluster.local")
    addresses = ["127.0.0.1", checkout.node_ip, KUBERNETES_SERVICE_IP]
    return ",".join([f"DNS:{host}" for host in hosts] + [f"IP:{ip}" for ip in addresses])


def _certificate(pki: Path, name: str, subject: str, names: str) -> None:
    request, extensions = pki / f"{name}.csr", pki / f"{name}.ext"
    extensions.write_text(
        f"subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n", encoding="utf-8"
    )
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    run(["openssl", "req", *key, "-keyout", pki / f"{name}.key", "-out", request, "-subj", subject])
    authority = ["-CA", str(pki / "ca.crt"), "-CAkey", str(pki / "ca.key"), "-CAcreateserial"]
    files = ["-extfile", str(extensions), "-in", str(request), "-out", str(pki / f"{name}.crt")]
    run(["openssl", "x509", "-req", *authority, "-days", _DAYS, *files])
    request.unlink()
    extensions.unlink()


def _kubeconfig(checkout: Checkout, name: str, target: Path) -> None:
    """A kubeconfig that contains its certificates, so that it can be copied and mounted alone."""
    pki = checkout.pki
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "fourways",
                "cluster": {
                    "server": checkout.server,
                    "certificate-authority-data": _base64(pki / "ca.crt"),
                },
            }
        ],
        "users": [
            {
                "name": name,
                "user": {
                    "client-certificate-data": _base64(pki / f"{name}.crt"),
                    "client-key-data": _base64(pki / f"{name}.key"),
                },
            }
        ],
        "contexts": [{"name": "fourways", "context": {"cluster": "fourways", "user": name}}],
        "current-context": "fourways",
    }
    target.touch(mode=0o600)
    target.write_text(yaml.safe_dump(document), encoding="utf-8")


def _base64(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()
