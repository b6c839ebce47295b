"""Make live objects match planned ones: delete the excess, then apply what differs.

It knows whose objects it may change (``Owner``), and continues with the next object when one is
refused. Other modules decide what to plan and what to report of the outcome.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fourways_api import KIND

from .cluster import Cluster, kind_of
from .difference import difference
from .errors import DependencyNotReady, ObjectFault, OperatorError
from .facts import FIELD_MANAGER, Json
from .kinds import GUARDS, JOB, RAY_JOB
from .plan.parts import COMPONENT_LABEL, DEPLOYMENT_LABEL, MANAGED_BY

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of the objects; without a name, all deployments of the namespace together."""

    name: str = ""
    uid: str = ""

    def controls(self, obj: Json) -> bool:
        """Tell whether this owner may change and delete the object."""
        if not self.name:
            return any(r["kind"] == KIND for r in obj["metadata"].get("ownerReferences", []))
        controller = _controller(obj)
        return controller is not None and controller["uid"] == self.uid

    def outlived(self, obj: Json) -> bool:
        """Tell whether it belongs to a deleted deployment of the same name."""
        controller = _controller(obj)
        return (
            bool(self.name)
            and controller is not None
            and (controller["kind"], controller["name"]) == (KIND, self.name)
            and controller["uid"] != self.uid
        )

    def may_hold(self, obj: Json, wanted: Json) -> bool:
        """Tell whether an object under a wanted name may be written to.

        An object of this owner may, even if somebody removed its labels: they are restored. An
        object with our labels and without a controller was orphaned on purpose
        (``--cascade=orphan``) and is adopted again.
        """
        controller = _controller(obj)
        if self.controls(obj) and (self.name or controller is None):
            return True
        labels = {k: v for k, v in wanted["metadata"]["labels"].items() if k in _OURS}
        return controller is None and has_labels(obj, labels)


_OURS = frozenset({MANAGED_BY, DEPLOYMENT_LABEL, COMPONENT_LABEL})


@dataclass(slots=True)
class ApplyOutcome:
    """The result of a converge: the number of writes, and what prevented others."""

    writes: int = 0
    conflicts: list[str] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)
    faults: list[OperatorError] = field(default_factory=list)


async def converge(
    cluster: Cluster, wanted: Sequence[Json], there: Sequence[Json], owner: Owner
) -> ApplyOutcome:
    """Delete what ``owner`` has in ``there`` and does not want, then apply what differs.

    Guards (ServiceAccount, NetworkPolicy) are applied first and deleted last. If one cannot be
    applied, or somebody else has its name, nothing that it guards is created or changed: a pod
    would run with somebody's identity, or without its fence.

    The outcome contains faults of single objects, and objects that cannot be written yet.

    Raises:
        ServerFault: the API server as a whole failed.

    """
    outcome = ApplyOutcome()
    names = {identity_of(obj) for obj in wanted}
    kept = {}
    for obj in sorted(there, key=is_guard):
        excess = owner.controls(obj) and identity_of(obj) not in names
        if (excess or owner.outlived(obj)) and not is_going(obj):
            logger.info("%s/%s: deleting it", obj["metadata"]["namespace"], identity_of(obj))
            await cluster.delete(obj)
            outcome.writes += 1
        elif not excess and not owner.outlived(obj):
            kept[identity_of(obj)] = obj
    for guards in (True, False):
        for obj in wanted:
            if is_guard(obj) is not guards:
                continue
            try:
                await _converge_one(cluster, obj, kept.get(identity_of(obj)), owner, outcome)
            except (ObjectFault, DependencyNotReady) as fault:
                outcome.faults.append(fault)
        if outcome.faults or outcome.conflicts or outcome.missing:
            break
    return outcome


def is_guard(obj: Json) -> bool:
    """Tell whether an object limits what pods may do: it comes before them, and goes after."""
    return any(kind.of(obj) for kind in GUARDS)


async def _converge_one(
    cluster: Cluster, wanted: Json, found: Json | None, owner: Owner, outcome: ApplyOutcome
) -> None:
    if not await cluster.has(kind_of(wanted)):
        outcome.missing.add(wanted["kind"])
        return
    # A list by label does not show an object that has the name but not the label.
    found = found or await find_live(cluster, wanted)
    if found is None:
        await cluster.apply(wanted, None)
        outcome.writes += 1
    elif is_going(found) or owner.outlived(found):
        raise DependencyNotReady(f"waiting for the old {identity_of(found)} to be deleted")
    elif not owner.may_hold(found, wanted):
        outcome.conflicts.append(identity_of(found))
    elif JOB.of(wanted) or RAY_JOB.of(wanted):
        # Neither can be changed; its name identifies its content.
        return
    elif (first := difference(wanted, found, FIELD_MANAGER)) is not None:
        logger.info("%s/%s: %s", wanted["metadata"]["namespace"], identity_of(wanted), first)
        await cluster.apply(wanted, found["metadata"]["uid"])
        outcome.writes += 1


async def find_live(cluster: Cluster, obj: Json) -> Json | None:
    """Return the live object with the kind and name of a planned one, or None."""
    return await cluster.get(kind_of(obj), obj["metadata"]["namespace"], obj["metadata"]["name"])


def _controller(obj: Json) -> Json | None:
    references: list[Json] = obj["metadata"].get("ownerReferences", [])
    return next((r for r in references if r.get("controller")), None)


def is_going(obj: Json) -> bool:
    """Tell whether an object is being deleted."""
    return "deletionTimestamp" in obj["metadata"]


def has_labels(obj: Json, labels: Mapping[str, str]) -> bool:
    """Tell whether an object has all of these labels."""
    return labels.items() <= (obj["metadata"].get("labels") or {}).items()


def identity_of(obj: Json) -> str:
    """Return KIND/NAME."""
    return f"{obj['kind']}/{obj['metadata']['name']}"
