"""The calls that the operator makes to a cluster, and the field managers that it writes as.

It decides nothing, and knows no client: ``kubernetes_cluster`` makes the calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from fourways_api import API_VERSION, KIND, PLURAL

from .events import Event
from .facts import Json, Kind
from .kinds import KINDS

MODEL_DEPLOYMENT = Kind(API_VERSION, KIND, PLURAL)

STATUS_MANAGER = "fourways-status"
SCALE_MANAGER = "fourways-scale"
"""Sets the replicas of Deployments that KServe made; it owns no other field of them."""


class Cluster(Protocol):
    """The calls the operator makes to a cluster. Every one may raise an ``ApiFault``."""

    async def list(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str]
    ) -> tuple[Json, ...]:
        """Return the objects with these labels; none if the kind does not exist."""

    async def has(self, kind: Kind) -> bool:
        """Tell whether the kind existed at the last ``discover``."""

    async def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        """Return one object, or None."""

    async def apply(self, obj: Json, uid: str | None) -> None:
        """Apply these fields to an object.

        ``uid`` is that of the live object, which must still exist. None means that the object is
        new; a field that another manager has meanwhile set differently is then a Conflict.
        """

    async def scale(self, deployment: Json, replicas: int) -> None:
        """Set the number of replicas of a live Deployment, whoever made it, and nothing else."""

    async def delete(self, obj: Json) -> None:
        """Delete this object (by uid). It is not an error if it no longer exists."""

    async def write_status(self, deployment: Json, status: Json) -> None:
        """Replace a deployment's status."""

    async def emit(self, deployment: Json, event: Event) -> None:
        """Create a Kubernetes event about a deployment."""

    async def last_warning(self, obj: Json, reason: str) -> str | None:
        """Return the message of an object's latest Warning with this reason, or None."""

    async def get_lease(self, namespace: str, name: str) -> Json | None:
        """Return a Lease, or None."""

    async def write_lease(self, lease: Json) -> None:
        """Create a Lease, or replace it at its resourceVersion. Otherwise it is a Conflict."""

    async def everywhere(self, kind: Kind, labels: Mapping[str, str]) -> tuple[Json, ...]:
        """Return the objects with these labels in every watched namespace that can be listed.

        Raises the first fault if no namespace can be listed.
        """

    async def discover(self) -> frozenset[Kind]:
        """Discover which kinds exist; return those that the operator uses."""


def kind_of(obj: Json) -> Kind:
    """Return the kind of one of the operator's own objects."""
    kinds = (MODEL_DEPLOYMENT, *KINDS)
    return next(kind for kind in kinds if kind.of(obj))
