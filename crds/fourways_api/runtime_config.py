"""The configuration of each workload: one JSON document in its environment.

It travels inside the pod template, so it is as old as the pod that reads it, a change of it
rolls the workload, and a Job that is tried again sees what its first try saw. It names files
(mounted Secrets and claims) and holds no secret itself.
"""

from __future__ import annotations

import json
from typing import Annotated, Self

from pydantic import Field

from .base import ApiModel
from .callers import SERVERS_CA_FILE, TLS_DIR, CallerPolicy
from .contract import Contract, EntityKey
from .model import ModelReference, SecretReference
from .modes import Batch, Edge, FeatureLookup, Streaming, StreamSource
from .modes.batch import Share
from .monitoring import Monitoring
from .quality import Quality
from .reasons import MAX_REASON
from .status import BundleStatus, DriftStatus, QualityStatus
from .strategy import RoutedMode
from .values import Digest, FieldName

CONFIG_VARIABLE = "FOURWAYS_CONFIG"
"""Environment variable that holds the document."""

RUN_VARIABLE = "FOURWAYS_RUN"
"""Environment variable that holds the name of a batch run: its Job's, or, where a Job goes on with
a run or rolls back to it, that run's."""

MAX_CONFIG_BYTES = 96 * 1024
"""Linux refuses an environment string of 128 KiB; the rest is room for everything else."""

STORE_URI_FILE = "/etc/fourways/store/uri"
"""File with the prediction store's connection string, from a mounted Secret."""

VOLUMES_ROOT = "/fourways/volumes"
"""Folder under which claims are mounted, one a folder: pvc://CLAIM/PATH is CLAIM/PATH there."""

SECRETS_ROOT = "/etc/fourways/secrets"
"""Folder under which credential Secrets are mounted, one a folder."""

MODEL_IMAGE_DIR = "/fourways/model"
"""Where the image with the model is mounted (``model.imagePath``)."""

MODEL_IMAGE_SCHEME = "image"
"""Scheme of the worker's URIs of files in it: ``image:///PATH``. No spec can have it."""

CACHE_DIR = "/var/cache/fourways"
"""Private folder a workload downloads its model into."""

UNSIGNED = "unsigned"
"""Folder in the private folder in which a build leaves bundles for the signing."""

TERMINATION_LOG = "/dev/termination-log"
"""File whose text the kubelet reports as the pod's last words."""

TERMINAL_EXIT_CODES = (2, 3, 4, 5, 6, 7)
"""Exit codes of a worker after which trying again is pointless."""


def environment_text(document: ApiModel) -> str:
    """Return a document as the value of an environment variable: ASCII, one line.

    Kubernetes expands ``$$`` and ``$(NAME)`` in such values, and KServe fills in ``{{.Name}}`` in
    containers of its runtimes. Both are written as JSON escapes, so no layer finds anything to
    replace, no reader has to undo anything, and what the user wrote arrives unchanged.
    """
    text = json.dumps(document.to_json(), separators=(",", ":"))
    # JSON itself uses neither outside of strings, and in a string any character has an escape.
    return text.replace("$", r"\u0024").replace("{{", r"{\u007b")


ORIGIN_PATTERN = r"^(\*|https?://[A-Za-z0-9.\[\]:_-]+)$"
"""An origin as browsers write it, ``https://HOST[:PORT]`` without a path, or ``*``."""


class FetchPolicy(ApiModel):
    """Where a workload may download from."""

    schemes: tuple[str, ...] = ("file", "pvc", "http", "https", "s3", "gs", "az", "oci")
    """URI schemes allowed."""

    hosts: tuple[str, ...] = ("*",)
    """Hosts that URIs, brokers and databases may name: HOST, `*.example.com` for subdomains, `*`
    for all; empty: none. Addresses of metadata services are never reached."""

    timeout_seconds: float = 600.0
    """A download that takes longer is given up."""


class Paths(ApiModel):
    """Where things are on this host. In a pod the defaults hold; the embedded host sets its own."""

    store_uri_file: str = STORE_URI_FILE
    volumes_root: str = VOLUMES_ROOT
    secrets_root: str = SECRETS_ROOT
    cache_dir: str = CACHE_DIR
    model_image_dir: Annotated[str, Field(exclude=True)] = MODEL_IMAGE_DIR
    """Where the image with the model is mounted. It is not written: in pods the default holds."""

    termination_log: str = TERMINATION_LOG
    deployment: Annotated[str, Field(exclude=True)] = ""
    """Deployment that Secrets are opened for. It is not written: a process takes it from the name
    or the route in its own configuration."""

    def of(self, deployment: str) -> Paths:
        """Return the same places, with Secrets opened for this deployment."""
        return self.model_copy(update={"deployment": deployment})


class RuntimeConfig(ApiModel):
    """Configuration of a worker."""

    namespace: str
    name: str
    uid: str = ""
    """To whom predictions belong: the deployment's uid, or the one it continues. Empty: to the
    name."""

    model: ModelReference
    digest: Digest | None = None
    """Digest the model must have: the spec's, or the one pinned at its first download."""

    contract: Contract
    monitoring: Monitoring | None = None
    quality: Quality | None = None
    batch: Batch | None = None
    threads: Annotated[int, Field(ge=1)] = 1
    memory_bytes: Annotated[int, Field(ge=1)] = 2**30
    fetch: FetchPolicy = FetchPolicy()
    paths: Paths = Paths()

    def with_own_secrets(self) -> Self:
        """Return the configuration with paths whose Secrets are opened for its own deployment."""
        return self.model_copy(update={"paths": self.paths.of(self.name)})


class ServerTls(ApiModel):
    """The certificate of a model server, and where it answers with it."""

    secret: str
    """Name of the mounted Secret, for messages."""

    folder: str = TLS_DIR
    """Folder with ``tls.crt`` and ``tls.key``."""

    authority_secret: str
    authority_file: str = SERVERS_CA_FILE
    """Where gateways have the authority from, by which the server judges its own certificate."""

    host: str
    """Name that gateways verify the certificate for."""

    port: int = 8443


class WakeConfig(ApiModel):
    """How a gateway treats requests for a deployment that scales to zero."""

    idle_seconds: Annotated[float, Field(gt=0)] = 300.0
    """Time without a request after which the gateway reports the deployment as idle."""

    timeout_seconds: Annotated[float, Field(gt=0)] = 30.0
    """Maximum time that a request waits for a replica."""

    stored: bool = False
    """Whether stored predictions answer meanwhile."""


class FleetDrift(ApiModel):
    """How a gateway compares what devices tell of their records with the training profile."""

    window_seconds: Annotated[float, Field(gt=0)]
    """Time for which a device's last report counts."""

    max_drift: Annotated[float, Field(gt=0)]
    """Population stability index above which a field has drifted."""


class Route(ApiModel):
    """A deployment whose answers are not, or not only, a batch run in the store.

    Batch deployments have none: the store says what was published and what it looks like.
    """

    deployment: str
    mode: RoutedMode
    version: str
    """The model's version, as the spec names it."""

    url: str | None = None
    """Where the model server answers (realtime); None while it has no address yet."""

    timeout_seconds: float = 1.0
    """A request that takes longer is given up (realtime)."""

    max_body_bytes: int = 16 * 2**20
    max_answer_bytes: int = 64 * 2**20
    """A larger response of the model server is given up (realtime)."""

    model_name: str | None = None
    """Name of the model in the paths of a runtime of KServe; None: ours answers (realtime)."""

    wake: WakeConfig | None = None
    """How requests wait for a replica (realtime); None: there always is one."""

    source: StreamSource | None = None
    """Where a question without a stored answer becomes an event (streaming)."""

    freshness_seconds: float = 300.0
    """A stored answer older than this counts as missing (streaming)."""

    publish: str | None = None
    """Folder with the deployment's bundles, one a target (edge)."""

    publish_credentials: SecretReference | None = None

    entity_key: EntityKey | None = None
    """Key questions are asked by (realtime), or that ``features`` are looked up by (edge)."""

    features: FeatureLookup | None = None
    """Inputs devices may ask for (edge); ``inputs`` is filled in with names."""

    drift: FleetDrift | None = None
    """How records of devices are compared (edge); None: devices report none."""


Origin = Annotated[str, Field(pattern=ORIGIN_PATTERN, max_length=270)]


class GatewayConfig(ApiModel):
    """Configuration of a namespace's gateway."""

    namespace: str
    owners: dict[str, str] | None = None
    """The uid of each deployment that is answered for, by name. None: rows are answered by name."""

    routes: tuple[Route, ...] = ()
    fetch: FetchPolicy = FetchPolicy()
    """Where bundles may be read from."""

    port: int = 8080
    host: str = "0.0.0.0"  # noqa: S104  (a pod's own network)
    max_body_bytes: int = 16 * 2**20
    max_keys: int = 10_000
    """Maximum number of entity keys in one request."""

    access_log: bool | None = None
    """Whether each request is logged. None: no."""

    store_timeout_seconds: float = 2.0
    callers: CallerPolicy | None = None
    """Who may send requests; None: everybody."""

    allowed_origins: tuple[Origin, ...] = ()
    """Origins whose web pages may send requests and read responses; ``*``: all."""

    tls_dir: str | None = None
    """Folder with the certificate, ``tls.crt`` and ``tls.key``; None: plain HTTP only."""

    tls_port: int = 8443
    grpc_port: int | None = None
    """Port of the protocol over gRPC, with the certificate if there is one; None: not served."""

    servers_ca: str | None = None
    """File with the authority that model servers with https addresses are verified by; None: those
    of the system."""

    paths: Paths = Paths()


class StoredData(ApiModel):
    """What the prediction store holds of one uid of a deployment."""

    uid: Annotated[str, Field(max_length=64)]
    """Empty for rows of a version that knew no uids."""

    since: Annotated[str, Field(max_length=40)] = ""
    """When the uid was first seen; empty if that is not known."""

    runs: int = 0
    rows: int = 0
    """Predictions of published runs."""

    live: int = 0
    """Predictions of a stream."""

    dead_letters: int = 0


class RunReport(ApiModel):
    """A batch worker's last words, as JSON in the pod's termination message."""

    outcome: str
    """Succeeded or Failed."""

    reason: Annotated[str, Field(max_length=MAX_REASON)] = ""
    """A ``Reason``, such as DigestMismatch; empty where it succeeded."""

    message: str = ""
    """What happened, for people. Never a remote body, never a secret."""

    rows: int = 0
    rejects: int = 0
    run: Annotated[str, Field(max_length=253)] | None = None
    """Run that answers come from now (rollback)."""

    digest: Annotated[str, Field(max_length=71)] | None = None
    version: Annotated[str, Field(max_length=63)] | None = None
    drift: DriftStatus | None = None
    """How the run's records differ from the training profile (batch)."""

    quality: QualityStatus | None = None
    """How well predictions agree with labels (batch)."""

    bundles: tuple[BundleStatus, ...] = ()
    """What was published for devices (edge)."""

    stored: tuple[StoredData, ...] = ()
    """What the store holds, by uid (purge)."""


class StoredAnswers(ApiModel):
    """Which answers of a model server are stored, to be compared with labels later.

    It has no more of ``spec.quality``, so that another table or interval restarts no model server.
    """

    output: FieldName
    share: Share


class ServerConfig(RuntimeConfig):
    """Configuration of a model server: the model, as for every worker, and where to listen."""

    port: int = 8080
    host: str = "0.0.0.0"  # noqa: S104  (a pod's own network)
    max_body_bytes: int = 16 * 2**20
    timeout_seconds: Annotated[float, Field(gt=0)] = 1.0
    """A request that takes longer is refused."""

    grpc_port: int | None = None
    """Port of the protocol over gRPC; None: not served."""

    access_log: bool | None = None
    """Whether each request is logged. None: no."""

    tls: ServerTls | None = None
    """Certificate and port of the protocol. ``port`` then has only probes, metrics and faults.
    None: ``port`` has everything, without encryption."""

    features: FeatureLookup | None = None
    stored: StoredAnswers | None = None
    """What is stored of answers. None: nothing."""

    max_batch_rows: Annotated[int, Field(ge=1, le=2**20)] = 1024
    """Maximum number of rows that the model scores at once, of one request or several."""


class StreamConfig(RuntimeConfig):
    """Configuration of a stream worker: the model, the events, and the port of its metrics."""

    streaming: Streaming
    port: int = 8080
    """Port of health and metrics."""

    host: str = "0.0.0.0"  # noqa: S104  (a pod's own network)


class QualityConfig(RuntimeConfig):
    """Configuration of a quality worker, which compares a model server's answers with labels."""

    port: int = 8080
    """Port of health and metrics."""

    host: str = "0.0.0.0"  # noqa: S104  (a pod's own network)


class PurgeConfig(ApiModel):
    """Configuration of a purge, which removes data of deleted deployments from the store."""

    namespace: str
    name: str
    uids: tuple[str, ...] = ()
    """The uids whose data is removed. Without any, nothing is: the report lists what there is."""

    paths: Paths = Paths()


class EdgeConfig(RuntimeConfig):
    """Configuration of a bundle build."""

    edge: Edge
    cluster: str | None = None
    """Name of the cluster, which the signed release carries; None: the installation has none."""
