"""Command lines and configuration files of the local cluster's daemons.

Pure except for `write_files`: it computes commands from a checkout and the built binaries, so that
the cluster's configuration can be read in one place.
"""

import json
from pathlib import Path
from typing import Any

import yaml

from tools.cluster.config import (
    DNS_SERVICE_IP,
    NODE_NAME,
    POD_CIDR,
    SERVICE_CIDR,
    Checkout,
)
from tools.cluster.gobuild import Binaries

PAUSE_IMAGE = "localhost/fourways-pause:1"
_ETCD = "http://127.0.0.1:2379"
_RUNTIME = "io.containerd.grpc.v1.cri"

# In the order of starting; clients exit with an error if the API server is not ready yet.
CONTROL_PLANE = ("etcd", "kube-apiserver")
NODE = ("containerd",)
CLIENTS = ("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "volumes")
ALL = (*CONTROL_PLANE, *NODE, *CLIENTS)
# Daemons that would restart other processes while these are being ended.
END_FIRST = ("kubelet", "kube-controller-manager", "containerd")


def commands(checkout: Checkout, binaries: Binaries) -> dict[str, list[str]]:
    """The command line of every daemon."""
    hyper, state = str(binaries.path("hyper")), checkout.state
    return {
        "etcd": _etcd(state),
        "kube-apiserver": [hyper, "kube-apiserver", *_flags(_api_server(checkout))],
        "containerd": ["containerd", "--config", str(state / "containerd.toml")],
        "kube-controller-manager": [
            hyper,
            "kube-controller-manager",
            *_flags(_controller_manager(checkout)),
        ],
        "kube-scheduler": [
            hyper,
            "kube-scheduler",
            f"--kubeconfig={checkout.pki}/scheduler.kubeconfig",
            "--leader-elect=false",
        ],
        "kubelet": [
            hyper,
            "kubelet",
            f"--config={state}/kubelet.yaml",
            f"--kubeconfig={checkout.pki}/kubelet.kubeconfig",
            f"--root-dir={state}/kubelet",
            f"--cert-dir={state}/kubelet-pki",
            f"--hostname-override={NODE_NAME}",
            f"--node-ip={checkout.node_ip}",
        ],
        "kube-proxy": [
            hyper,
            "kube-proxy",
            f"--config={state}/kube-proxy.yaml",
            f"--hostname-override={NODE_NAME}",
        ],
        "volumes": [
            hyper,
            "fourways-volumes",
            f"--kubeconfig={checkout.pki}/volumes.kubeconfig",
            f"--root={state}/volumes",
        ],
    }


def write_files(checkout: Checkout) -> None:
    """Write all configuration files that the commands refer to."""
    state = checkout.state
    for folder in ("cni", "kubelet/volume-plugins"):
        (state / folder).mkdir(parents=True)
    # No name server: pods use the cluster's DNS, and nothing in here can reach the Internet.
    (state / "resolv.conf").write_text("nameserver 127.0.0.1\n", encoding="utf-8")
    (state / "containerd.toml").write_text(_containerd(checkout), encoding="utf-8")
    network = json.dumps(_pod_network(checkout))
    (state / "cni/10-fourways.conflist").write_text(network, encoding="utf-8")
    documents = {
        "kubelet.yaml": _kubelet(checkout),
        "kube-proxy.yaml": _proxy(checkout),
        "audit-policy.yaml": _audit_policy(),
    }
    for name, document in documents.items():
        (state / name).write_text(yaml.safe_dump(document), encoding="utf-8")


def _flags(settings: dict[str, str | Path]) -> list[str]:
    return [f"--{name}={value}" for name, value in settings.items()]


def _etcd(state: Path) -> list[str]:
    settings: dict[str, str | Path] = {
        "data-dir": state / "etcd",
        "listen-client-urls": _ETCD,
        "advertise-client-urls": _ETCD,
        "listen-peer-urls": "http://127.0.0.1:2380",
        "logger": "zap",
    }
    # The cluster is recreated after a crash, so waiting for the disk gains nothing.
    return ["etcd", *_flags(settings), "--unsafe-no-fsync"]


def _api_server(checkout: Checkout) -> dict[str, str | Path]:
    pki, state = checkout.pki, checkout.state
    return {
        "etcd-servers": _ETCD,
        "advertise-address": checkout.node_ip,
        "secure-port": "6443",
        "service-cluster-ip-range": SERVICE_CIDR,
        "tls-cert-file": pki / "apiserver.crt",
        "tls-private-key-file": pki / "apiserver.key",
        "client-ca-file": pki / "ca.crt",
        "service-account-key-file": pki / "service-account.pub",
        "service-account-signing-key-file": pki / "service-account.key",
        "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "allow-privileged": "true",
        "kubelet-client-certificate": pki / "apiserver-kubelet-client.crt",
        "kubelet-client-key": pki / "apiserver-kubelet-client.key",
        # Otherwise `kubectl logs` resolves the node's name with DNS.
        "kubelet-preferred-address-types": "InternalIP",
        # Aggregated APIs (metrics) return 403 without a front-proxy certificate.
        "proxy-client-cert-file": pki / "front-proxy-client.crt",
        "proxy-client-key-file": pki / "front-proxy-client.key",
        "requestheader-client-ca-file": pki / "ca.crt",
        "requestheader-allowed-names": "front-proxy-client",
        "requestheader-username-headers": "X-Remote-User",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        # Tests compare the verbs granted to a service account with those that it used.
        "audit-policy-file": state / "audit-policy.yaml",
        "audit-log-path": checkout.log_dir / "audit.log",
        "audit-log-maxsize": "500",
        "audit-log-maxbackup": "2",
    }


def _controller_manager(checkout: Checkout) -> dict[str, str | Path]:
    return {
        "kubeconfig": checkout.pki / "controller-manager.kubeconfig",
        "service-account-private-key-file": checkout.pki / "service-account.key",
        "root-ca-file": checkout.pki / "ca.crt",
        "use-service-account-credentials": "true",
        "allocate-node-cidrs": "true",
        "cluster-cidr": POD_CIDR,
        "leader-elect": "false",
    }


def _containerd(checkout: Checkout) -> str:
    state = checkout.state
    return f"""version = 2
root = "{state}/containerd/root"
state = "{state}/containerd/state"
[grpc]
  address = "{checkout.containerd_socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{state}/containerd/opt"
[plugins."{_RUNTIME}"]
  sandbox_image = "{PAUSE_IMAGE}"
  netns_mounts_under_state_dir = true
  # Lowering a score needs CAP_SYS_RESOURCE, which root in a virtual machine or container may lack;
  # without this every sandbox then dies with "can't get final child's PID from pipe: EOF".
  restrict_oom_score_adj = true
  [plugins."{_RUNTIME}".containerd]
    default_runtime_name = "runc"
    [plugins."{_RUNTIME}".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."{_RUNTIME}".containerd.runtimes.runc.options]
        SystemdCgroup = false
        Root = "{state}/containerd/runc"
  [plugins."{_RUNTIME}".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{state}/cni"
"""


def _pod_network(checkout: Checkout) -> dict[str, Any]:
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "hairpinMode": True,
        "ipMasq": True,
        "ipam": {
            "type": "host-local",
            "dataDir": f"{checkout.state}/cni-addresses",
            "ranges": [[{"subnet": "10.244.0.0/24"}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": checkout.netns, "plugins": [bridge, portmap]}


def _kubelet(checkout: Checkout) -> dict[str, Any]:
    state, pki = checkout.state, checkout.pki
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{checkout.netns}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "containerRuntimeEndpoint": f"unix://{checkout.containerd_socket}",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{pki}/kubelet.crt",
        "tlsPrivateKeyFile": f"{pki}/kubelet.key",
        "clusterDNS": [DNS_SERVICE_IP],
        "clusterDomain": "cluster.local",
        "resolvConf": f"{state}/resolv.conf",
        "podLogsDir": f"{checkout.log_dir}/pods",
        "volumePluginDir": f"{state}/kubelet/volume-plugins",
        # The disk is the developer's: neither remove images nor evict pods when it is almost full.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "nodefs.available": "1%",
            "imagefs.available": "1%",
            "memory.available": "100Mi",
        },
        "maxPods": 110,
    }


def _proxy(checkout: Checkout) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": f"{checkout.pki}/proxy.kubeconfig"},
        "mode": "nftables",
        "clusterCIDR": POD_CIDR,
        # The table's size is a setting of the machine, not of the namespace: leave it unchanged.
        "conntrack": {"maxPerCore": 0},
    }


def _audit_policy() -> dict[str, Any]:
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{"level": "Metadata"}],
    }
