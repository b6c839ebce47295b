"""The observed state of the cluster as plain data: the input of status. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fourways_api import ProgressStatus, RunStatus
from fourways_api.callers import ClusterIssuer, GatewayAccess
from fourways_api.worker_faults import WorkerFaults

Json = dict[str, Any]

FIELD_MANAGER = "fourways"
"""Field manager of the operator's applies."""


def rfc3339(moment: datetime) -> str:
    """Return a moment as Kubernetes writes it: in UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object that the operator may own, with its names in the API."""

    api_version: str
    kind: str
    plural: str

    @property
    def group(self) -> str:
        """API group; empty for the core group."""
        return self.api_version.rpartition("/")[0]

    def of(self, obj: Json) -> bool:
        """Tell whether an object is of this kind."""
        return bool(obj["apiVersion"] == self.api_version and obj["kind"] == self.kind)


@dataclass(frozen=True, slots=True)
class OperatorSettings:
    """Settings of the operator's installation."""

    runtime_image: str
    ray_image: str = "fourways-ray"
    """The runtime image with Ray, for Ray clusters."""

    signing_image: str = ""
    """Image of the container that signs bundles, with the driver of an HSM; empty: the runtime
    image."""

    store_secret: str = "fourways-store"  # noqa: S105  (a name)
    gateway_store_secret: str | None = None
    """Secret with the address that gateways read the store by; None: the workers'."""

    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    """Secrets with credentials of the images' registry, in each namespace, for every pod."""

    fixed_user: bool = True
    """Whether pods name the user that they run as; else the platform assigns one (OpenShift)."""

    authorities: tuple[str, str] | None = None
    """ConfigMap in each namespace, and its key, with the certificates of all authorities that
    workloads trust; None: those of the image."""

    gateway_replicas: int = 1
    allowed_hosts: tuple[str, ...] = ("*",)
    """Hosts that workloads may connect to; ``*``: all. None: nothing by name."""

    allowed_images: tuple[str, ...] | None = None
    """Patterns of images that specs may name; None: all. ``*`` stands for any characters but ``/``,
    ``**`` for any."""

    allowed_keys: tuple[str, ...] | None = None
    """Patterns of labels and annotations that specs may set on pods and ServiceAccounts; None: all.
    ``*`` and ``**`` as for images."""

    allowed_schemes: tuple[str, ...] = ("file", "pvc", "http", "https", "s3", "gs", "az", "oci")
    store_port: int = 5432
    """Port of the prediction store: workloads may connect to it and to what their spec names."""

    egress_networks: tuple[str, ...] = ("0.0.0.0/0", "::/0")
    """Networks that workloads may connect to, without the forbidden ones."""

    dns_peers: str = (
        '[{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},'
        ' "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}]'
    )
    """Peers of a NetworkPolicy that answer DNS, as JSON."""

    gateway_peers: str = (
        '[{"namespaceSelector": {}}, {"ipBlock": {"cidr": "0.0.0.0/0"}},'
        ' {"ipBlock": {"cidr": "::/0"}}]'
    )
    """Peers that may connect to gateways, besides the operator, as JSON."""

    metrics_peers: str = "[]"
    """Peers that may connect to model servers and stream workers, for metrics, as JSON."""

    egress_ports: tuple[int, ...] = ()
    """Other ports that workloads may connect to, for object stores and proxies on unusual ports."""

    identity: str = ""
    """Name of the installation, NAMESPACE/RELEASE, under which it holds namespaces."""

    # Key sets are dictionaries, so these two do not count in the hash by which plans are cached.
    access: GatewayAccess | None = field(default=None, hash=False)
    """Who may send requests to gateways; None: everybody."""

    cluster_issuer: ClusterIssuer | None = field(default=None, hash=False)
    """Vouches for ServiceAccounts; None: their tokens cannot be verified."""

    subject: str = ""
    """Subject of the operator's own token, which asks gateways about runs."""

    gateway_pod: str = "{}"
    """What the gateways' pods carry and where they run, as JSON: labels, annotations, variables
    (``env``), and fields of a pod's spec, such as tolerations."""

    gateway_tls_secret: str = ""
    """Secret with the gateways' certificate in each namespace; empty: no TLS."""

    server_tls_secret: str = ""
    """Secret with the certificate of model servers in each namespace; ``{deployment}`` stands for
    the deployment's name. Empty: gateways ask them without encryption."""

    server_ca_secret: str = ""
    """Secret whose ``ca.crt`` gateways verify model servers by; empty: that of the certificate."""

    gateway_origins: tuple[str, ...] = ()
    """Origins whose web pages may use gateways; ``*``: all."""

    gateway_grpc: bool = False
    """Whether gateways also serve the protocol over gRPC."""

    tracing: tuple[tuple[str, str], ...] = ()
    """Variables of OpenTelemetry for what answers requests and events; empty: no traces."""

    access_log: bool = False
    """Whether gateways and model servers log each request."""

    prometheus_url: str = ""
    """Prometheus from which KEDA reads the gateways' metrics; empty: there is none."""

    cluster_name: str = ""
    """Name of the cluster in the signed releases of device bundles; empty: they name none."""

    @property
    def servers_authority(self) -> str:
        """The Secret whose ``ca.crt`` model servers are verified by."""
        return self.server_ca_secret or self.server_tls_secret


@dataclass(frozen=True, slots=True)
class StoreAnswer:
    """The run that served predictions at the time ``at``, according to the gateway, or None."""

    at: datetime
    current: RunStatus | None


@dataclass(frozen=True, slots=True)
class Demand:
    """The requests for a deployment that scales to zero, as its namespace's gateways saw them."""

    waiting: int = 0
    """Requests that wait for a replica."""

    idle: bool = False
    """Whether all gateways say that no request came for as long as the spec allows."""

    cold_start_seconds: float | None = None
    """How long the first request of the last wake waited; None: none was seen."""

    woken_at: str | None = None
    """When its replica was ready, RFC 3339."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The observed state of one deployment, and of what it depends on."""

    deployment: Json
    """The live ModelDeployment."""

    wanted: tuple[Json, ...] = ()
    """The objects it should have."""

    children: tuple[Json, ...] = ()
    """The live objects of these kinds with its labels."""

    pods: tuple[Json, ...] = ()
    """Its own pods and the gateway's."""

    gateway: Json | None = None
    """The live Deployment of the namespace's gateway."""

    conflicts: tuple[str, ...] = ()
    """Planned objects, KIND/NAME, whose names are taken by objects of other owners."""

    missing: tuple[str, ...] = ()
    """Planned kinds that the cluster does not have."""

    faults: tuple[str, ...] = ()
    """Error messages of applies that the API server refused."""

    gateway_fault: str | None = None
    """Why the API server refused an object of the namespace's gateway."""

    plan_fault: str | None = None
    """Why no objects could be planned from a valid spec."""

    refused_pods: Mapping[str, str] = field(default_factory=dict)
    """Why the API server refuses to create a Job's pods, by the Job's name."""

    progress: Mapping[str, ProgressStatus] = field(default_factory=dict)
    """Progress of the runs in progress, by name."""

    worker_faults: Mapping[str, WorkerFaults] = field(default_factory=dict)
    """What running workers report about themselves, by the pod's name."""

    unheard: frozenset[str] = frozenset()
    """Names of the pods that were asked for their faults and have not answered yet."""

    demand: Demand | None = None
    """The requests for it, if it scales to zero; None while that is not known."""

    operator: str = ""
    """Name of the installation that manages the deployment; empty if it has none."""

    store: StoreAnswer | None = None
    """The run in the prediction store that serves predictions; None if it is not known."""

    gateway_answer: int | None = None
    """Status code of the gateway's last answer whether the deployment is ready; None: not known."""

    asks_gateway: bool = False
    """Whether the gateway is asked that once objects of the deployment serve predictions."""

    now: datetime = field(default_factory=lambda: datetime.min)

    @property
    def jobs(self) -> tuple[Json, ...]:
        """Its runs and builds."""
        return tuple(child for child in self.children if child["kind"] == "Job")
