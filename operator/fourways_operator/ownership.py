"""Which installation of the operator manages a namespace: the holder of a Lease there.

Two installations with different settings or versions that watch one namespace would overwrite each
other's objects for ever. So an installation takes the Lease ``fourways-operator`` of a namespace
before it reconciles anything there, and ignores a namespace whose Lease another installation holds.
Pods of one installation share its identity, so a rolling update needs no handover.

A Lease that was not renewed for its duration is taken over. Deleting it hands a namespace over at
once. If the operator may not use Leases (it has the rights of an older chart), it continues without
one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from .cluster import Cluster
from .errors import Forbidden, ObjectGone
from .facts import Json
from .plan.parts import MANAGED_BY, MANAGER

logger = logging.getLogger(__name__)

LEASE_NAME = "fourways-operator"
RENEWALS = 3
"""A Lease lasts for this many renewal intervals."""


class Ownership:
    """The Leases of one installation. Use it only in its event loop."""

    def __init__(
        self,
        cluster: Cluster,
        identity: str,
        now: Callable[[], datetime],
        renew_seconds: float = 300.0,
    ) -> None:
        """``identity`` names the installation; empty means: use no Lease, manage everything."""
        self._cluster = cluster
        self._identity = identity
        self._now = now
        self._renew = timedelta(seconds=renew_seconds)
        self._held_since: dict[str, datetime] = {}
        self._others: dict[str, str] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def holder_of(self, namespace: str) -> str | None:
        """Return the other installation that manages a namespace; None if it is this one.

        Takes or renews the Lease if it is free, expired or this installation's own.

        Raises:
            Conflict: another installation has just written the Lease.
            OperatorError: the Lease cannot be read or written now.

        """
        if not self._identity or self._is_held(namespace):
            return None
        async with self._locks.setdefault(namespace, asyncio.Lock()):
            return None if self._is_held(namespace) else await self._looked(namespace)

    def _is_held(self, namespace: str) -> bool:
        held = self._held_since.get(namespace)
        return held is not None and self._now() - held < self._renew

    async def _looked(self, namespace: str) -> str | None:
        try:
            other = await self._take(namespace)
        except Forbidden as fault:
            logger.warning("namespace %s is managed without a Lease: %s", namespace, fault)
            self._held_since[namespace] = self._now()
            return None
        self._note(namespace, other)
        return other

    async def _take(self, namespace: str) -> str | None:
        lease = await self._cluster.get_lease(namespace, LEASE_NAME)
        spec = (lease or {}).get("spec") or {}
        holder, renewed = str(spec.get("holderIdentity") or ""), _moment(spec.get("renewTime"))
        lasts = timedelta(seconds=spec.get("leaseDurationSeconds") or 0)
        fresh = renewed is not None and self._now() - renewed < lasts
        if holder != self._identity and fresh and holder:
            return holder
        if holder == self._identity and renewed and self._now() - renewed < self._renew:
            self._held_since[namespace] = renewed
            return None
        try:
            await self._cluster.write_lease(self._lease(namespace, lease))
        except ObjectGone:
            return None  # the namespace is being deleted: there can be no contention
        self._held_since[namespace] = self._now()
        return None

    def _lease(self, namespace: str, live: Json | None) -> Json:
        meta: Json = {"name": LEASE_NAME, "namespace": namespace, "labels": {MANAGED_BY: MANAGER}}
        if live is not None:
            # So that the write is refused if somebody else has written in between.
            meta["resourceVersion"] = live["metadata"]["resourceVersion"]
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": meta,
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": int(RENEWALS * self._renew.total_seconds()),
                "renewTime": self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            },
        }

    def _note(self, namespace: str, other: str | None) -> None:
        if other is None:
            self._others.pop(namespace, None)
            return
        self._held_since.pop(namespace, None)
        if self._others.get(namespace) != other:
            self._others[namespace] = other
            logger.warning("namespace %s is managed by %s: ignoring it", namespace, other)


def _moment(text: object) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None
