"""Make the cluster match one key: observe, plan, prune, apply, observe, tell.

It owns the order of things and nothing else: what should be there is decided by ``plan``, what is
said of it by ``status``, what an apply would change by ``difference``. It must never ask what
changed: each run looks at everything, so a lost event, a doubled one, a stale read or a death
half-way through costs a run, never the outcome.

Writes are ordered so that dying after any of them is harmless: the excess goes first (two
schedulers must not run one model), children before status (status tells of what is there),
status before events (an event may be lost, but is never told twice).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache

from fourways_api import KIND, ModelDeployment, Problem, ProgressStatus

from .cluster import FIELD_MANAGER, MODEL_DEPLOYMENT, STATUS_MANAGER, Cluster, kind_of
from .difference import difference
from .errors import (
    ApiFault,
    DependencyNotReady,
    Forbidden,
    HookFailed,
    Invalid,
    ObjectFault,
    OperatorError,
)
from .events import events_of
from .facts import Facts, Json, OperatorSettings
from .plan import (
    COMPONENT_LABEL,
    DEPLOYMENT,
    DEPLOYMENT_LABEL,
    GATEWAY,
    INFERENCE_SERVICE,
    JOB,
    KINDS,
    MANAGED_BY,
    MANAGER,
    POD,
    RAY_JOB,
    later_kinds,
    observed_of,
    plan,
    plan_gateway,
    plan_runs,
)
from .runs import is_under_way
from .specs import ParsedSpec, parsed_spec
from .status import pinned_digest, requeue_after, status_of
from .work_queue import Key

logger = logging.getLogger(__name__)

NOTHING_KNOWN: Mapping[str, ProgressStatus] = {}
OUR_LABELS = {MANAGED_BY: MANAGER}
GATEWAY_LABELS = {**OUR_LABELS, COMPONENT_LABEL: "gateway"}


@dataclass(frozen=True, slots=True)
class ReconcileResult:
    """The result of reconciling a deployment.

    ``wrote``: an object of it was written. ``requeue_after``: seconds after which to look again
    even if no event comes. ``lacks``: the cluster does not have every kind of object it needs.
    """

    status: Json
    wrote: bool = False
    requeue_after: float | None = None
    lacks: bool = False


async def reconcile(
    key: Key,
    cluster: Cluster,
    settings: OperatorSettings,
    now: Callable[[], datetime],
    progress: Mapping[str, ProgressStatus] = NOTHING_KNOWN,
) -> ReconcileResult | None:
    """Make the cluster match a key; return what is said of the deployment, None where none is.

    ``progress`` is what is known of its run at work, by the run's name.

    Raises:
        OperatorError: something is in the way; try again later.

    """
    if not key.name:
        await _reconcile_gateway(key.namespace, cluster, settings)
        return None
    deployment = await cluster.get(MODEL_DEPLOYMENT, key.namespace, key.name)
    if deployment is None or _is_going(deployment):
        # Its children are garbage collected by their owner reference.
        return None
    children = await _children(cluster, deployment)
    intent = _intent_of(deployment, settings, children)
    outcome = ApplyOutcome()
    if intent.spec is not None:
        outcome = await _converge(cluster, intent.wanted, children, _owner_of(deployment))
        for kind in later_kinds(intent.spec):
            if not await cluster.has(kind):
                outcome.missing.add(kind.kind)
        if outcome.writes:
            children = await _children(cluster, deployment)
    facts = await _observe(cluster, deployment, settings)
    facts = replace(
        facts,
        wanted=intent.wanted,
        children=children,
        jobs=tuple(child for child in children if JOB.of(child)),
        conflicts=(*facts.conflicts, *outcome.conflicts),
        missing=tuple(sorted(outcome.missing)),
        faults=tuple(str(f) for f in outcome.faults if isinstance(f, _TOLD)),
        progress=progress,
        now=now(),
    )
    status = status_of(facts, intent.problems, intent.spec)
    await _tell(cluster, deployment, status)
    if outcome.faults:
        raise outcome.faults[0]
    return ReconcileResult(status, outcome.writes > 0, requeue_after(facts), bool(outcome.missing))


_TOLD = (Forbidden, Invalid, HookFailed)
"""Faults that somebody has to do something about; the others pass."""


async def _reconcile_gateway(namespace: str, cluster: Cluster, settings: OperatorSettings) -> None:
    owners = [d for d in await cluster.list(MODEL_DEPLOYMENT, namespace, {}) if not _is_going(d)]
    *lists, services, jobs = await asyncio.gather(
        *(cluster.list(k, namespace, GATEWAY_LABELS) for k in KINDS),
        cluster.list(INFERENCE_SERVICE, namespace, OUR_LABELS),
        cluster.list(JOB, namespace, OUR_LABELS),
    )
    there = {_name(obj): obj for objects in lists for obj in objects}
    observed = observed_of(services, jobs, there.get(f"{DEPLOYMENT.kind}/{GATEWAY}"))
    wanted = plan_gateway(namespace, owners, settings, observed)
    taken = await _names_taken(cluster, [obj for obj in wanted if _name(obj) not in there])
    if taken:
        # Half a gateway is worse than none: a deployment waits for it, and says what is in the way.
        raise DependencyNotReady(
            f"the gateway waits for names that somebody else holds: {', '.join(taken)}"
        )
    outcome = await _converge(cluster, wanted, tuple(there.values()), Owner())
    if outcome.faults:
        raise outcome.faults[0]


# ---------------------------------------------------------------- observing


async def _children(cluster: Cluster, deployment: Json) -> tuple[Json, ...]:
    namespace, labels = deployment["metadata"]["namespace"], _labels_of(deployment)
    lists = await asyncio.gather(*(cluster.list(kind, namespace, labels) for kind in KINDS))
    return tuple(obj for objects in lists for obj in objects)


async def _observe(cluster: Cluster, deployment: Json, settings: OperatorSettings) -> Facts:
    namespace, labels = deployment["metadata"]["namespace"], _labels_of(deployment)
    gateway, pods, gateway_pods = await asyncio.gather(
        cluster.list(DEPLOYMENT, namespace, GATEWAY_LABELS),
        cluster.list(POD, namespace, labels),
        cluster.list(POD, namespace, GATEWAY_LABELS),
    )
    taken: tuple[str, ...] = ()
    if not gateway:
        taken = await _names_taken(cluster, plan_gateway(namespace, [deployment], settings))
    return Facts(
        deployment=deployment,
        pods=(*pods, *gateway_pods),
        gateway=next((g for g in gateway if g["metadata"]["name"] == GATEWAY), None),
        conflicts=taken,
    )


async def _names_taken(cluster: Cluster, wanted: Sequence[Json]) -> tuple[str, ...]:
    found = await asyncio.gather(*(_find(cluster, obj) for obj in wanted))
    return tuple(_name(f) for f in found if f is not None and not _has_labels(f, GATEWAY_LABELS))


async def _find(cluster: Cluster, obj: Json) -> Json | None:
    return await cluster.get(kind_of(obj), obj["metadata"]["namespace"], obj["metadata"]["name"])


@dataclass(frozen=True, slots=True)
class Intent:
    """What a deployment's spec comes to: the objects it should have, or what is wrong with it."""

    spec: ModelDeployment | None
    problems: tuple[Problem, ...]
    wanted: tuple[Json, ...]


def _intent_of(deployment: Json, settings: OperatorSettings, children: Sequence[Json]) -> Intent:
    found = parsed_spec(deployment)
    if found.spec is None:
        return Intent(None, found.problems, ())
    pinned = pinned_digest(deployment)
    jobs = [child for child in children if JOB.of(child) and is_under_way(child)]
    runs = plan_runs(found.spec, settings, pinned, jobs)
    return Intent(found.spec, (), (*_planned(found, settings, pinned), *runs))


@lru_cache(maxsize=1024)
def _planned(found: ParsedSpec, settings: OperatorSettings, pinned: str | None) -> tuple[Json, ...]:
    """Plan. Pure, so remembered."""
    assert found.spec is not None  # noqa: S101  (the caller looked)
    return plan(found.spec, settings, pinned)


# ---------------------------------------------------------------- converging


@dataclass(frozen=True, slots=True)
class Owner:
    """Who the objects at hand belong to; without a name, to all deployments of the namespace."""

    name: str = ""
    uid: str = ""

    def controls(self, obj: Json) -> bool:
        """Tell whether it is this owner's to change and delete."""
        if not self.name:
            return any(r["kind"] == KIND for r in obj["metadata"].get("ownerReferences", []))
        controller = _controller(obj)
        return controller is not None and controller["uid"] == self.uid

    def outlived(self, obj: Json) -> bool:
        """Tell whether it belongs to a deployment of the same name that is no more."""
        controller = _controller(obj)
        return (
            bool(self.name)
            and controller is not None
            and (controller["kind"], controller["name"]) == (KIND, self.name)
            and controller["uid"] != self.uid
        )

    def may_hold(self, obj: Json, wanted: Json) -> bool:
        """Tell whether an object under a wanted name may be written to.

        One with our labels and no controller was left behind on purpose (``--cascade=orphan``):
        it is taken up again.
        """
        labels = {k: v for k, v in wanted["metadata"]["labels"].items() if k in _OURS}
        controller = _controller(obj)
        return _has_labels(obj, labels) and (controller is None or self.controls(obj))


_OURS = frozenset({MANAGED_BY, DEPLOYMENT_LABEL, COMPONENT_LABEL})


@dataclass(slots=True)
class ApplyOutcome:
    """What came of making objects match."""

    writes: int = 0
    conflicts: list[str] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)
    faults: list[OperatorError] = field(default_factory=list)


async def _converge(
    cluster: Cluster, wanted: Sequence[Json], there: Sequence[Json], owner: Owner
) -> ApplyOutcome:
    outcome = ApplyOutcome()
    names = {_name(obj) for obj in wanted}
    kept = {}
    for obj in there:
        excess = owner.controls(obj) and _name(obj) not in names
        if (excess or owner.outlived(obj)) and not _is_going(obj):
            logger.info("%s/%s: deletes it", obj["metadata"]["namespace"], _name(obj))
            await cluster.delete(obj)
            outcome.writes += 1
        elif not excess and not owner.outlived(obj):
            kept[_name(obj)] = obj
    for obj in wanted:
        try:
            await _converge_one(cluster, obj, kept.get(_name(obj)), owner, outcome)
        except (ObjectFault, DependencyNotReady) as fault:
            outcome.faults.append(fault)
    return outcome


async def _converge_one(
    cluster: Cluster, wanted: Json, found: Json | None, owner: Owner, outcome: ApplyOutcome
) -> None:
    if not await cluster.has(kind_of(wanted)):
        outcome.missing.add(wanted["kind"])
        return
    # A list by label does not show what has the name but not the label.
    found = found or await _find(cluster, wanted)
    if found is None:
        await cluster.apply(wanted, None)
        outcome.writes += 1
    elif _is_going(found) or owner.outlived(found):
        raise DependencyNotReady(f"waits until the old {_name(found)} is gone")
    elif not owner.may_hold(found, wanted):
        outcome.conflicts.append(_name(found))
    elif JOB.of(wanted) or RAY_JOB.of(wanted):
        # Neither can be changed; its name says what it does.
        return
    elif (first := difference(wanted, found, FIELD_MANAGER)) is not None:
        logger.info("%s/%s: %s", wanted["metadata"]["namespace"], _name(wanted), first)
        await cluster.apply(wanted, found["metadata"]["uid"])
        outcome.writes += 1


async def _tell(cluster: Cluster, deployment: Json, status: Json) -> None:
    wanted = {"apiVersion": deployment["apiVersion"], "status": status}
    if difference(wanted, deployment, STATUS_MANAGER, "status") is None:
        return
    await cluster.write_status(deployment, status)
    for event in events_of(deployment.get("status"), status):
        try:
            await cluster.emit(deployment, event)
        except ApiFault as fault:
            # Status says it already; an event is a courtesy.
            logger.warning("event %s is lost: %s", event.reason, fault)


# ---------------------------------------------------------------- reading objects


def _owner_of(deployment: Json) -> Owner:
    return Owner(deployment["metadata"]["name"], deployment["metadata"]["uid"])


def _labels_of(deployment: Json) -> dict[str, str]:
    return {MANAGED_BY: MANAGER, DEPLOYMENT_LABEL: deployment["metadata"]["name"]}


def _controller(obj: Json) -> Json | None:
    references: list[Json] = obj["metadata"].get("ownerReferences", [])
    return next((r for r in references if r.get("controller")), None)


def _is_going(obj: Json) -> bool:
    return "deletionTimestamp" in obj["metadata"]


def _has_labels(obj: Json, labels: Mapping[str, str]) -> bool:
    return labels.items() <= (obj["metadata"].get("labels") or {}).items()


def _name(obj: Json) -> str:
    return f"{obj['kind']}/{obj['metadata']['name']}"
