"""Names, paths and versions: everything about a cluster that is determined before anything runs.

All of it depends on the checkout's absolute path, so that two checkouts on one machine never
conflict, neither in the network nor on disk nor in the cgroup tree.
"""

import hashlib
import ipaddress
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

KUBERNETES_VERSION = "1.34.4"
HELM_VERSION = "3.20.2"
HELM4_VERSION = "4.3.1"
HELM4_SUM = "h1:UndCoLe9UPmNoL7IvWzaUXveL7T5t/ijoorEmgJdI9g="
"""What `go mod download` says of the module, as in a go.sum."""
COREDNS_VERSION = "1.13.1"
KSERVE_VERSION = "0.20.0"
KUBERAY_VERSION = "1.6.1"
KEDA_VERSION = "2.21.0"
KEDA_SUM = "h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps="
FLUX_VERSION = "1.9.6"
"""Of the kustomize-controller: the newest that Go 1.26 builds."""
FLUX_SUM = "h1:XB+G3A0mky0j5uVHZWv4oSlS2RvZBoNIUhstIvY0JKE="
FLUX_API_SUMS = (
    "github.com/fluxcd/kustomize-controller/api v1.9.6"
    " h1:7XiuW+l3YYXWeIwLJ8w34zHlJyMUEKosBIxLIki9J3I=",
    "github.com/fluxcd/kustomize-controller/api v1.9.6/go.mod"
    " h1:oRSEvNgNs07P6Tu3xtRigWxnxLkUCqatxbDv+gG3tLI=",
)
FLUX_SOURCE_SUM = "h1:nG534/bI6nVpyHra7ONAk6xDB3xPsVT+EOLHZHXPrrc="
"""Of the source-controller's module of the same version."""
CNPG_VERSION = "1.29.0"
CNPG_SUM = "h1:49Dm8+y4va7RODspJjeaK8uMWP3OGAD0gMsxhjm16Mo="

POD_CIDR = "10.244.0.0/16"
SERVICE_CIDR = "10.96.0.0/16"
KUBERNETES_SERVICE_IP = "10.96.0.1"
DNS_SERVICE_IP = "10.96.0.10"
NODE_NAME = "fourways"

PACKAGE = Path(__file__).resolve().parent
_STATE_ROOT = Path("/var/lib/fourways")
_LINK_NETWORK = ipaddress.ip_network("10.201.0.0/16")


def cache_root() -> Path:
    """Files that are expensive to create and equal for every checkout: binaries, base image,
    archives."""
    given = os.environ.get("FOURWAYS_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "fourways"


@dataclass(frozen=True)
class Checkout:
    """One checkout of the project, and the names of its cluster."""

    root: Path

    @cached_property
    def id(self) -> str:
        """Eight hex digits of a hash of the checkout's absolute path."""
        return hashlib.sha256(str(self.root).encode()).hexdigest()[:8]

    @property
    def state(self) -> Path:
        """Everything that the running cluster writes; deleted by `down`."""
        return _STATE_ROOT / self.id

    @property
    def run_dir(self) -> Path:
        """Process id files and sockets."""
        return self.state / "run"

    @property
    def log_dir(self) -> Path:
        """One log per daemon, the audit log, and the pods' logs."""
        return self.state / "log"

    @property
    def pki(self) -> Path:
        """Certificates and the daemons' kubeconfigs."""
        return self.state / "pki"

    @property
    def kubeconfig(self) -> Path:
        """The cluster administrator's kubeconfig, self-contained."""
        return self.state / "kubeconfig"

    @property
    def kind_kubeconfig(self) -> Path:
        """The folder for kind's files: Docker's users are not root, so it is not under /var/lib."""
        return self.root / ".cluster" / "kubeconfig"

    @property
    def containerd_socket(self) -> Path:
        """The socket of containerd; kept short, because a socket's path has at most 107
        characters."""
        return self.run_dir / "containerd.sock"

    @property
    def netns(self) -> str:
        """Name of the cluster's network namespace, its pod network and its cgroup."""
        return f"fw-{self.id}"

    @property
    def veth_host(self) -> str:
        """The host's end of the link into the namespace (interface names have 15 characters)."""
        return f"fwh-{self.id}"

    @property
    def veth_node(self) -> str:
        """The node's end of the link."""
        return f"fwn-{self.id}"

    @cached_property
    def _link(self) -> int:
        """First address of this checkout's /30."""
        index = int(self.id, 16) % (_LINK_NETWORK.num_addresses // 4)
        return int(_LINK_NETWORK.network_address) + 4 * index

    @property
    def host_ip(self) -> str:
        """The host's address on the link."""
        return str(ipaddress.ip_address(self._link + 1))

    @property
    def node_ip(self) -> str:
        """The node's address on the link, on which the API server listens."""
        return str(ipaddress.ip_address(self._link + 2))

    @property
    def server(self) -> str:
        """URL of the API server, the same from the host and from inside the namespace."""
        return f"https://{self.node_ip}:6443"


def this_checkout() -> Checkout:
    """The checkout that contains this package."""
    return Checkout(PACKAGE.parent.parent)
