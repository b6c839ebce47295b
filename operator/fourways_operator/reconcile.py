"""Make the cluster match one key: observe, plan, prune, apply, observe, write status.

It owns only the order of these steps: ``planning`` decides which objects there should be,
``status`` what is reported of them, ``difference`` whether an apply would change anything. It must
never depend on what changed: each reconcile reads everything, so a lost or duplicate event, a stale
read or a crash half-way costs one reconcile and never affects the outcome.

Writes are ordered so that a crash after any of them is harmless: excess objects are deleted first
(two schedulers must not run one model), children are written before status (status reports what
exists), and status before events (an event may be lost, but is never emitted twice).

A fault of one deployment does not affect others. An exception while planning or computing the
status is logged with its stack and reported in that deployment's status. It is not retried until
something changes, since both are pure.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from fourways_api import ModelDeployment, ProgressStatus
from fourways_api.worker_faults import WorkerFaults

from .cluster import MODEL_DEPLOYMENT, STATUS_MANAGER, Cluster
from .converge import ApplyOutcome, Owner, converge, find_live, has_labels, identity_of, is_going
from .demand import NO_GATEWAYS, urls_of_gateways
from .difference import difference
from .errors import NEEDS_ACTION, ApiFault, DependencyNotReady, ObjectFault, OperatorError
from .events import events_of
from .facts import Demand, Facts, Json, OperatorSettings, StoreAnswer
from .intent import Intent, described, intent_of
from .kinds import DEPLOYMENT, INFERENCE_SERVICE, JOB, KINDS, POD
from .plan.parts import COMPONENT_LABEL, DEPLOYMENT_LABEL, GATEWAY, MANAGED_BY, MANAGER
from .plan.quality import is_quality
from .plan.routes import observed_of
from .planning import later_kinds, plan_gateway
from .pods import age, is_ready, server_failure_of
from .purges import PURGES, is_purge, settle
from .runs import without_pods
from .scaling import becomes_idle, replaces_a_sleeper, scaled_of, wanted_replicas
from .status import REFUSED_PODS_SECONDS, failed_status, requeue_after, should_answer, status_of
from .work_queue import Key
from .worker_faults import NO_WORKERS, urls_of_workers

logger = logging.getLogger(__name__)

OUR_LABELS = {MANAGED_BY: MANAGER}
GATEWAY_LABELS = {**OUR_LABELS, COMPONENT_LABEL: "gateway"}


@dataclass(frozen=True, slots=True)
class ReconcileResult:
    """The result of reconciling a deployment.

    ``wrote``: an object of it was written. ``requeue_after``: seconds until the next reconcile
    even without an event. ``lacks``: the cluster lacks a kind of object that it needs.
    ``workers``: where its running workers report their faults, by the pod's name. ``serves``:
    whether objects of it serve predictions, so that the gateway should answer for it.
    ``gateways``: where gateways report the demand for it, by the pod's name; empty if it does not
    scale to zero.
    """

    status: Json
    wrote: bool = False
    requeue_after: float | None = None
    lacks: bool = False
    workers: Mapping[str, str] = field(default_factory=dict)
    serves: bool = False
    gateways: Mapping[str, str] = field(default_factory=lambda: NO_GATEWAYS)


@dataclass(frozen=True, slots=True)
class Reported:
    """What is known about a deployment besides the current objects in the API server.

    ``progress``: the progress of its runs, by the run's name. ``store``: which run serves
    predictions. ``gateway_fault``: why the API server refused an object of the namespace's gateway.
    ``worker_faults``: what its running workers report, by the pod's name. ``asks_workers``: whether
    workers are asked at all. ``gateway_answer``: the status code with which the gateway last said
    whether the deployment is ready. ``asks_gateway``: whether it is asked at all. ``demand``: the
    requests for it, if it scales to zero.
    """

    progress: Mapping[str, ProgressStatus] = field(default_factory=dict)
    store: StoreAnswer | None = None
    gateway_fault: str | None = None
    worker_faults: Mapping[str, WorkerFaults] = field(default_factory=dict)
    asks_workers: bool = False
    gateway_answer: int | None = None
    asks_gateway: bool = False
    demand: Demand | None = None


NOTHING_REPORTED = Reported()


async def reconcile(
    key: Key,
    cluster: Cluster,
    settings: OperatorSettings,
    now: Callable[[], datetime],
    reported: Reported = NOTHING_REPORTED,
) -> ReconcileResult | None:
    """Make the cluster match a key; return the result for a deployment, or None without one.

    ``reported`` is what is known from earlier reconciles and from sources besides the API server.

    Raises:
        OperatorError: a dependency or the API server failed; retry later.

    """
    if not key.name:
        await _reconcile_gateway(key.namespace, cluster, settings)
        return None
    deployment = await cluster.get(MODEL_DEPLOYMENT, key.namespace, key.name)
    if deployment is None or is_going(deployment):
        # Its children are garbage collected by their owner reference. What has none starts now.
        if deployment is None:
            labels = {**PURGES, DEPLOYMENT_LABEL: key.name}
            waiting = await cluster.list(JOB, key.namespace, labels)
            _raise_first(await settle(cluster, settings, waiting, None))
        return None
    children, purges = await _children(cluster, deployment)
    intent = intent_of(deployment, settings, children)
    outcome = ApplyOutcome()
    if intent.spec is not None and intent.fault is None:
        outcome = await _converge(cluster, deployment, intent.spec, intent.wanted, children, purges)
        outcome.faults += await settle(cluster, settings, purges, intent.spec)
        await _scale(cluster, deployment, intent.spec, children, reported, outcome)
        if outcome.writes:
            children, _ = await _children(cluster, deployment)
    facts = await _observe(
        cluster, deployment, settings, intent, children, outcome, reported, now()
    )
    status = _status_of(facts, intent)
    await _write_status(cluster, deployment, status)
    _raise_first(outcome.faults)
    again = becomes_idle(intent.spec, deployment, status, reported.demand)
    return ReconcileResult(
        status,
        outcome.writes > 0,
        0.0 if again else requeue_after(facts),
        bool(outcome.missing),
        urls_of_workers(intent.spec, facts.pods),
        should_answer(facts, status),
        urls_of_gateways(intent.spec, facts.pods),
    )


async def _converge(
    cluster: Cluster,
    deployment: Json,
    spec: ModelDeployment,
    wanted: tuple[Json, ...],
    children: tuple[Json, ...],
    purges: tuple[Json, ...],
) -> ApplyOutcome:
    there = (*children, *purges)
    if await _waits_for_the_old(cluster, deployment, spec, wanted, children):
        wanted, there = _without_service(wanted), _without_service(there)
    outcome = await converge(cluster, wanted, there, _owner_of(deployment))
    for kind in later_kinds(spec):
        if not await cluster.has(kind):
            outcome.missing.add(kind.kind)
    return outcome


async def _waits_for_the_old(
    cluster: Cluster,
    deployment: Json,
    spec: ModelDeployment,
    wanted: Sequence[Json],
    children: Sequence[Json],
) -> bool:
    """Tell whether a sleeping version must be ready before a new one may replace it.

    It is not waited for if it fails: then it would not go on serving anyway.
    """
    if not replaces_a_sleeper(spec, deployment, wanted, children):
        return False
    namespace = deployment["metadata"]["namespace"]
    pods = await cluster.list(POD, namespace, _labels_of(deployment))
    servers = (pod for pod in pods if not (is_going(pod) or is_quality(pod)))
    return not any(is_ready(pod) or server_failure_of(pod) for pod in servers)


def _without_service(objects: Sequence[Json]) -> tuple[Json, ...]:
    return tuple(obj for obj in objects if not INFERENCE_SERVICE.of(obj))


async def _scale(
    cluster: Cluster,
    deployment: Json,
    spec: ModelDeployment,
    children: Sequence[Json],
    reported: Reported,
    outcome: ApplyOutcome,
) -> None:
    """Start a replica that requests wait for, or end the last one that nobody asks."""
    scaled = scaled_of(spec, children) if spec.spec.realtime else None
    if scaled is None or outcome.faults or is_going(scaled):
        return
    count = wanted_replicas(spec, deployment, scaled, reported.demand)
    if count is None:
        return
    meta = scaled["metadata"]
    logger.info("%s/%s: %d replicas", meta["namespace"], meta["name"], count)
    try:
        await cluster.scale(scaled, count)
        outcome.writes += 1
    except ObjectFault as fault:
        outcome.faults.append(fault)


def _status_of(facts: Facts, intent: Intent) -> Json:
    try:
        return status_of(facts, intent.problems, intent.spec)
    except Exception as error:
        meta = facts.deployment["metadata"]
        logger.exception("%s/%s: no status, please report it", meta["namespace"], meta["name"])
        return failed_status(facts, described(error))


async def _reconcile_gateway(namespace: str, cluster: Cluster, settings: OperatorSettings) -> None:
    owners = [d for d in await cluster.list(MODEL_DEPLOYMENT, namespace, {}) if not is_going(d)]
    *lists, services, jobs = await asyncio.gather(
        *(cluster.list(k, namespace, GATEWAY_LABELS) for k in KINDS),
        cluster.list(INFERENCE_SERVICE, namespace, OUR_LABELS),
        cluster.list(JOB, namespace, OUR_LABELS),
    )
    there = {identity_of(obj): obj for objects in lists for obj in objects}
    observed = observed_of(services, jobs, there.get(f"{DEPLOYMENT.kind}/{GATEWAY}"))
    wanted = plan_gateway(namespace, owners, settings, observed)
    taken = await _names_taken(cluster, [obj for obj in wanted if identity_of(obj) not in there])
    if taken:
        # A partial gateway is worse than none. The deployments report which names are taken.
        raise DependencyNotReady(
            f"the gateway waits for names that belong to objects of others: {', '.join(taken)}"
        )
    outcome = await converge(cluster, wanted, tuple(there.values()), Owner())
    _raise_first(outcome.faults)


# ---------------------------------------------------------------- observing


async def _children(
    cluster: Cluster, deployment: Json
) -> tuple[tuple[Json, ...], tuple[Json, ...]]:
    """Return its objects, and apart from them the Jobs that remove data."""
    namespace, labels = deployment["metadata"]["namespace"], _labels_of(deployment)
    lists = await asyncio.gather(*(cluster.list(kind, namespace, labels) for kind in KINDS))
    found = [obj for objects in lists for obj in objects]
    children = tuple(obj for obj in found if not is_purge(obj))
    return children, tuple(obj for obj in found if is_purge(obj))


def _raise_first(faults: Sequence[OperatorError]) -> None:
    if faults:
        raise faults[0]


async def _observe(
    cluster: Cluster,
    deployment: Json,
    settings: OperatorSettings,
    intent: Intent,
    children: tuple[Json, ...],
    outcome: ApplyOutcome,
    reported: Reported,
    now: datetime,
) -> Facts:
    namespace, labels = deployment["metadata"]["namespace"], _labels_of(deployment)
    gateway, pods, gateway_pods = await asyncio.gather(
        cluster.list(DEPLOYMENT, namespace, GATEWAY_LABELS),
        cluster.list(POD, namespace, labels),
        cluster.list(POD, namespace, GATEWAY_LABELS),
    )
    taken: tuple[str, ...] = ()
    if not gateway:
        taken = await _names_taken(cluster, plan_gateway(namespace, [deployment], settings))
    workers = urls_of_workers(intent.spec, pods) if reported.asks_workers else NO_WORKERS
    return Facts(
        deployment=deployment,
        wanted=intent.wanted,
        children=children,
        pods=(*pods, *gateway_pods),
        gateway=next((g for g in gateway if g["metadata"]["name"] == GATEWAY), None),
        conflicts=(*taken, *outcome.conflicts),
        missing=tuple(sorted(outcome.missing)),
        faults=tuple(str(f) for f in outcome.faults if isinstance(f, NEEDS_ACTION)),
        plan_fault=intent.fault,
        refused_pods=await _refused_pods(cluster, children, pods, now),
        progress=reported.progress,
        worker_faults=reported.worker_faults,
        unheard=frozenset(workers.keys() - reported.worker_faults.keys()),
        demand=reported.demand,
        operator=settings.identity,
        store=reported.store,
        gateway_fault=reported.gateway_fault,
        gateway_answer=reported.gateway_answer,
        asks_gateway=reported.asks_gateway,
        now=now,
    )


async def _refused_pods(
    cluster: Cluster, children: Sequence[Json], pods: Sequence[Json], now: datetime
) -> dict[str, str]:
    """Return why the API server refuses pods of Jobs in progress, by the Job's name.

    Only a Job's events say so, not its status. Events are not watched: they are read only when a
    Job has had no pod for so long that something must be wrong.
    """
    jobs = [child for child in children if JOB.of(child)]
    silent = [
        job for job in without_pods(jobs, pods) if (age(job, now) or 0.0) >= REFUSED_PODS_SECONDS
    ]
    answers = await asyncio.gather(*(cluster.last_warning(job, "FailedCreate") for job in silent))
    names = (job["metadata"]["name"] for job in silent)
    return {name: text for name, text in zip(names, answers, strict=True) if text is not None}


async def _names_taken(cluster: Cluster, wanted: Sequence[Json]) -> tuple[str, ...]:
    found = await asyncio.gather(*(find_live(cluster, obj) for obj in wanted))
    return tuple(
        identity_of(live)
        for live, obj in zip(found, wanted, strict=True)
        if live and not has_labels(live, GATEWAY_LABELS) and not Owner().may_hold(live, obj)
    )


# ---------------------------------------------------------------- writing status


async def _write_status(cluster: Cluster, deployment: Json, status: Json) -> None:
    wanted = {"apiVersion": deployment["apiVersion"], "status": status}
    if difference(wanted, deployment, STATUS_MANAGER, "status") is None:
        return
    await cluster.write_status(deployment, status)
    for event in events_of(deployment.get("status"), status):
        try:
            await cluster.emit(deployment, event)
        except ApiFault as fault:
            # The status contains the same information.
            logger.warning("event %s is lost: %s", event.reason, fault)


def _owner_of(deployment: Json) -> Owner:
    return Owner(deployment["metadata"]["name"], deployment["metadata"]["uid"])


def _labels_of(deployment: Json) -> dict[str, str]:
    return {MANAGED_BY: MANAGER, DEPLOYMENT_LABEL: deployment["metadata"]["name"]}
