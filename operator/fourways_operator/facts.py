"""What the cluster has, as plain data: the input of status. Nothing here talks to anyone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fourways_api import ProgressStatus

Json = dict[str, Any]


def rfc3339(moment: datetime) -> str:
    """Return a moment as Kubernetes writes it: in UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object the operator may own, as the API names it."""

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
    """What the operator was installed with."""

    runtime_image: str
    ray_image: str = "fourways-ray"
    """The same with Ray: what Ray clusters are made of."""

    store_secret: str = "fourways-store"  # noqa: S105  (a name)
    image_pull_policy: str = "IfNotPresent"
    gateway_replicas: int = 1
    allowed_hosts: tuple[str, ...] = ()
    allowed_schemes: tuple[str, ...] = ("file", "pvc", "http", "https", "s3", "gs", "az", "oci")
    store_port: int = 5432
    """Port of the prediction store: workloads may connect to it and to what their spec names."""

    egress_ports: tuple[int, ...] = ()
    """More ports workloads may connect to, for object stores and proxies on unusual ones."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was observed of one deployment.

    ``wanted`` are the objects it should have, ``children`` the live ones of their kinds with its
    labels. ``jobs`` are its runs and builds; ``pods`` are its own and the gateway's. ``gateway``
    is the live Deployment of the namespace's gateway, ``conflicts`` the planned objects whose
    names somebody else's hold, ``missing`` the planned kinds the cluster does not have, ``faults``
    what the API server refused. ``progress`` is what is known of the run at work, by its name.
    """

    deployment: Json
    wanted: tuple[Json, ...] = ()
    children: tuple[Json, ...] = ()
    jobs: tuple[Json, ...] = ()
    pods: tuple[Json, ...] = ()
    gateway: Json | None = None
    conflicts: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    progress: Mapping[str, ProgressStatus] = field(default_factory=dict)
    now: datetime = field(default_factory=lambda: datetime.min)
