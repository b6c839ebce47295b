"""A cluster and one of its namespaces, from what its API server says. Pure: facts to findings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fourways_api.crd import custom_resource_definition
from fourways_operator.pods import is_ready

from .findings import Diagnosis, fault, note, ok

Json = dict[str, Any]
LEAST_MINOR = 30
STARTING_SECONDS = 60.0
"""Age below which a gateway that is not ready is starting."""

SKEW_SECONDS = 30.0
"""Difference between two clocks from which on it is a fault."""

DENIED = "the credentials may not read it"


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """What was read. None: the API server refused to say."""

    version: str
    groups: frozenset[str]
    crd: Json | None
    """The CRD; empty if there is none."""

    operators: list[Json] | None
    """Pods of the operator, in all namespaces."""

    gateways: list[Json] | None
    store_secret: bool | None
    may_create: bool
    quotas: list[Json] = field(default_factory=list)
    storage_classes: list[Json] | None = None
    deployments: list[Json] = field(default_factory=list)
    ahead_seconds: float | None = None
    """By how much the API server's clock is ahead of this machine's; None: it did not say."""

    read_at: datetime = field(default_factory=lambda: datetime.now(UTC))


def look_at_cluster(facts: ClusterFacts, namespace: str) -> Iterator[Diagnosis]:
    """Yield findings about the cluster, then about the namespace."""
    yield _version(facts.version)
    if facts.ahead_seconds is not None:
        yield _clock(facts.ahead_seconds)
    yield _crd(facts.crd)
    yield _operator(facts.operators)
    yield from _groups(facts.groups)
    yield from _storage(facts.storage_classes)
    where = f"namespace {namespace}"
    if not facts.may_create:
        fix = "bind a role to you: the chart's ClusterRoles extend edit and admin"
        yield fault(where, "you may not create ModelDeployments", fix)
    yield _store(facts, where)
    yield from _gateway(facts, where)
    yield from _quotas(facts.quotas, where)
    yield from _deployments(facts.deployments)


def _version(text: str) -> Diagnosis:
    found = re.search(r"v?1\.(\d+)", text)
    if found is None or int(found[1]) < LEAST_MINOR:
        return fault("Kubernetes", text, f"1.{LEAST_MINOR} or later is needed")
    return ok("Kubernetes", text)


def _clock(ahead: float) -> Diagnosis:
    if abs(ahead) < SKEW_SECONDS:
        return ok("clock", "that of the API server and of this machine agree")
    direction = "ahead of" if ahead > 0 else "behind"
    return fault(
        "clock",
        f"the API server's is {abs(ahead):.0f} s {direction} this machine's: tokens and "
        "certificates are refused as expired or not valid yet, and ages are wrong",
        "synchronise both by NTP: timedatectl set-ntp true, here or on the control plane's node",
    )


def _crd(found: Json | None) -> Diagnosis:
    about = "custom resource"
    if found is None:
        return note(about, DENIED, "ask the cluster's admin whether Fourways is installed")
    if not found:
        return fault(about, "there is no ModelDeployment", "helm install fourways charts/fourways")
    if _schema(found) != _schema(custom_resource_definition()):
        return note(
            about,
            "it is that of another version of Fourways",
            "upgrade the chart or this program, so that both know the same fields",
        )
    return ok(about, "modeldeployments.fourways.dev, of this version")


def _schema(document: Json) -> Any:
    (version, *_) = document["spec"]["versions"]
    return version["schema"]["openAPIV3Schema"]["properties"]["spec"]


def _operator(pods: list[Json] | None) -> Diagnosis:
    if pods is None:
        return note("operator", DENIED, "ask the cluster's admin")
    if not pods:
        return fault("operator", "no pod of it runs", "helm install fourways charts/fourways")
    ready = [pod for pod in pods if is_ready(pod)]
    if not ready:
        name, namespace = pods[0]["metadata"]["name"], pods[0]["metadata"]["namespace"]
        return fault("operator", "it is not ready", f"kubectl -n {namespace} logs {name}")
    images = sorted({c["image"] for pod in ready for c in pod["spec"]["containers"]})
    return ok("operator", f"ready, {', '.join(images)}")


def _groups(groups: frozenset[str]) -> Iterator[Diagnosis]:
    if "serving.kserve.io" in groups:
        yield ok("KServe", "installed")
    else:
        fix = "install KServe 0.20 or later in Standard mode (docs/modes/realtime.md)"
        yield note("KServe", "not installed: real-time deployments wait for it", fix)
    if "metrics.k8s.io" not in groups:
        fix = "install metrics-server"
        yield note("metrics-server", "not installed: nothing scales by CPU", fix)
    if "keda.sh" not in groups:
        yield note("KEDA", "not installed: targetConcurrency needs it", "install KEDA")


def _storage(classes: list[Json] | None) -> Iterator[Diagnosis]:
    if classes is None:
        return
    default = "storageclass.kubernetes.io/is-default-class"
    if not any((c["metadata"].get("annotations") or {}).get(default) == "true" for c in classes):
        fix = "name a class in your claims, or mark one as default"
        yield note("storage", "no StorageClass is the default: claims without a class wait", fix)


def _store(facts: ClusterFacts, where: str) -> Diagnosis:
    if facts.store_secret is None:
        return note(where, f"Secret fourways-store: {DENIED}", "ask the namespace's owner")
    if not facts.store_secret:
        return fault(
            where,
            "no Secret fourways-store: batch and streaming have no prediction store",
            "fourways store init, or trialPostgresql.enabled=true in the chart",
        )
    return ok(where, "Secret fourways-store is there")


def _gateway(facts: ClusterFacts, where: str) -> Iterator[Diagnosis]:
    if facts.gateways is None:
        return
    if not facts.gateways:
        if facts.deployments:
            fix = "see the log of the operator"
            yield fault(where, "there are ModelDeployments, and no gateway", fix)
    elif any(map(is_ready, facts.gateways)):
        yield ok(where, "the gateway is ready")
    elif any(_is_new(pod, facts.read_at) for pod in facts.gateways):
        yield note(where, "the gateway is starting", "ask again in a minute")
    else:
        name = facts.gateways[0]["metadata"]["name"]
        fix = f"kubectl -n {where.split()[-1]} describe pod {name}"
        yield fault(where, "the gateway is not ready; perhaps its store does not answer", fix)


def _is_new(pod: Json, now: datetime) -> bool:
    created = datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
    return (now - created).total_seconds() < STARTING_SECONDS


def _quotas(quotas: list[Json], where: str) -> Iterator[Diagnosis]:
    for quota in quotas:
        status = quota.get("status") or {}
        used = status.get("used") or {}
        for what, hard in (status.get("hard") or {}).items():
            if used.get(what) == hard:
                name = quota["metadata"]["name"]
                fix = "raise it, or free what uses it: new pods are refused"
                yield note(where, f"quota {name} is used up: {what} {hard}", fix)


def _deployments(documents: list[Json]) -> Iterator[Diagnosis]:
    for document in documents:
        found = {c["type"]: c for c in (document.get("status") or {}).get("conditions") or []}
        name = document["metadata"]["name"]
        ready, degraded = found.get("Ready", {}), found.get("Degraded", {})
        fix = f"kubectl fourways status {name}; docs/reference/reasons.md"
        if degraded.get("status") == "True":
            said = f"{degraded.get('reason')}: {degraded.get('message')}"
            yield fault(f"deployment {name}", said, fix)
        elif ready.get("status") != "True":
            said = f"not ready: {ready.get('reason', 'no status yet')}: {ready.get('message', '')}"
            yield note(f"deployment {name}", said, fix)
        else:
            yield ok(f"deployment {name}", str(ready.get("message", "ready")))
