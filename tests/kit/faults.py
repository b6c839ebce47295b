"""Faults that people meet, as one list: what is wrong, and what is said of it.

``tests/unit/test_seeded_faults.py`` checks that the first sentence names the cause and the fix. The
tests of each place use the same tables for all else.
"""

from __future__ import annotations

import copy
import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from fourways_api import InvalidSpec, Problem, check, check_update, parse
from fourways_api.crd import custom_resource_definition
from fourways_cli.diagnosis import cluster
from fourways_cli.diagnosis.cluster import ClusterFacts, look_at_cluster
from fourways_runtime.scoring.model.sniff import fault_of
from tests.bad_manifests.cases import Case, bad
from tests.kit import status_facts
from tests.kit.status_facts import ended


@dataclass(frozen=True)
class Seeded:
    """A fault, and what the person who meets it reads."""

    name: str
    told: str
    cause: str
    """Words of the cause."""

    fix: str
    """Words of the fix."""

    @property
    def first_sentence(self) -> str:
        return self.told.split(". ")[0].partition("\n")[0]


def seeded() -> Iterator[Seeded]:
    """Yield the faults of manifests, clusters, model files and workers."""
    yield from _of_manifests()
    yield from _of_clusters()
    for first, wanted, words in FILES:
        told = fault_of(first, wanted) or ""
        yield Seeded(f"file of {wanted}: {first[:12]!r}", told, words[0], words[-1])
    for state, more, reason, cause, fix in RUNS:
        run = (
            status_facts.job("m-3", "2026-03-01T03:00:00Z"),
            status_facts.pod("m-3", state, **more),
        )
        message = status_facts.conditions(status_facts.facts(run))["Degraded"]["message"]
        if fix:
            yield Seeded(f"run: {reason}, {state}", message, cause, fix)


# ---------------------------------------------------------------- manifests


def problems_of(case: Case) -> tuple[Problem, ...]:
    """Return what the command line says of a wrong manifest."""
    try:
        deployment = parse(case.document)
        check(deployment)
        if case.stored:
            check_update(parse(case.stored), deployment)
    except InvalidSpec as error:
        return error.problems
    return ()


def _of_manifests() -> Iterator[Seeded]:
    """Yield each different problem once, whatever the field that has it."""
    seen = set()
    for case in bad():
        (problem,) = problems_of(case)
        if problem.fault not in seen:
            seen.add(problem.fault)
            yield Seeded(f"manifest: {case.name}", str(problem), case.says, problem.fix)


# ---------------------------------------------------------------- clusters

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
CRD = custom_resource_definition()


def pod(ready: bool = True, made: str = "2026-03-01T11:00:00Z") -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "namespace": "system", "creationTimestamp": made},
        "spec": {"containers": [{"image": "fourways-operator:1"}]},
        "status": {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }


def deployment(**conditions: str) -> dict[str, Any]:
    told = [
        {"type": kind, "status": status, "reason": "Why", "message": f"{kind} says"}
        for kind, status in conditions.items()
    ]
    return {"metadata": {"name": "churn"}, "status": {"conditions": told}}


GOOD = ClusterFacts(
    version="v1.33.1",
    groups=frozenset({"serving.kserve.io", "metrics.k8s.io", "keda.sh"}),
    crd=CRD,
    operators=[pod()],
    gateways=[pod()],
    read_at=AT,
    store_secret=True,
    may_create=True,
    storage_classes=[],
    deployments=[deployment(Ready="True", Degraded="False")],
)
CLASS = {"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}


def older_crd() -> dict[str, Any]:
    document = copy.deepcopy(CRD)
    (version, *_) = document["spec"]["versions"]
    del version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["edge"]
    return document


CLUSTERS: list[tuple[dict[str, Any], str, str, str, str]] = [
    ({"version": "v1.27.3"}, "fault", "Kubernetes", "v1.27.3", "1.30"),
    ({"version": "unknown"}, "fault", "Kubernetes", "unknown", "1.30"),
    ({"ahead_seconds": 95.2}, "fault", "clock", "is 95 s ahead of this machine's", "NTP"),
    ({"ahead_seconds": -30.0}, "fault", "clock", "is 30 s behind this machine's", "NTP"),
    ({"crd": {}}, "fault", "custom resource", "no ModelDeployment", "helm install"),
    ({"crd": None}, "note", "custom resource", "may not read", "admin"),
    ({"crd": older_crd()}, "note", "custom resource", "another version", "upgrade"),
    ({"operators": []}, "fault", "operator", "no pod", "helm install"),
    ({"operators": [pod(ready=False)]}, "fault", "operator", "not ready", "-n system logs p"),
    ({"operators": None}, "note", "operator", "may not read", "admin"),
    ({"groups": frozenset()}, "note", "KServe", "not installed", "install KServe 0.20"),
    ({"groups": frozenset()}, "note", "metrics-server", "scales by CPU", "metrics-server"),
    ({"groups": frozenset()}, "note", "KEDA", "targetConcurrency", "KEDA"),
    ({"storage_classes": [{"metadata": {}}]}, "note", "storage", "default", "class"),
    ({"may_create": False}, "fault", "namespace shop", "may not create", "role"),
    ({"store_secret": False}, "fault", "namespace shop", "fourways-store", "store init"),
    ({"store_secret": None}, "note", "namespace shop", "may not read", "owner"),
    ({"gateways": []}, "fault", "namespace shop", "no gateway", "log"),
    ({"gateways": [pod(ready=False)]}, "fault", "namespace shop", "gateway", "-n shop"),
    (
        {"gateways": [pod(ready=False, made="2026-03-01T11:59:30Z")]},
        "note",
        "namespace shop",
        "starting",
        "again",
    ),
    (
        {
            "quotas": [
                {
                    "metadata": {"name": "q"},
                    "status": {"hard": {"cpu": "4"}, "used": {"cpu": "4"}},
                }
            ]
        },
        "note",
        "namespace shop",
        "quota q is used up: cpu 4",
        "raise it",
    ),
    (
        {"deployments": [deployment(Ready="True", Degraded="True")]},
        "fault",
        "deployment churn",
        "Why: Degraded says",
        "status churn",
    ),
    (
        {"deployments": [deployment(Ready="False", Degraded="False")]},
        "note",
        "deployment churn",
        "Ready says",
        "status churn",
    ),
    ({"deployments": [{"metadata": {"name": "x"}}]}, "note", "deployment x", "no status", "x"),
]
"""Changes of ``GOOD``; the level, the subject, and words of the finding and of its fix."""


@contextmanager
def one_crd() -> Iterator[None]:
    """Have the CRD made once: that takes longer than to judge a cluster."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cluster, "custom_resource_definition", lambda: CRD)
        yield


def _of_clusters() -> Iterator[Seeded]:
    for changes, level, about, says, fix in CLUSTERS:
        with one_crd():
            findings = list(look_at_cluster(replace(GOOD, **changes), "shop"))
        for found in findings:
            if (found.level, found.about) == (level, about) and says in found.says:
                told = f"{found.about}: {found.says}; {found.fix}"
                yield Seeded(f"cluster: {about}, {says}", told, says, fix)


# ---------------------------------------------------------------- files


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr(zipfile.ZipInfo("data.pkl"), "x")  # dated 1980: its bytes are in names
    return file.getvalue()


FILES: list[tuple[bytes, Any, tuple[str, ...]]] = [
    (b"\x80\x04\x95\x10\0\0\0", "onnx", ("pickle", "not onnx", "skl2onnx", "skops")),
    (b"\x80\x02}q\0.", "xgboost", ("pickle", "none is ever loaded")),
    (b"\x80\x05\x95", "lightgbm", ("pickle",)),
    (b"\x80\x03\x95", "skops", ("pickle",)),
    (archive(), "onnx", ("zip archive", "PyTorch", "ONNX")),
    (b"\x89HDF\r\n\x1a\n\0", "onnx", ("Keras", "tf2onnx")),
    (b"\x1f\x8b\x08\0", "onnx", ("gzip", "unpack")),
    (b"version https://git-lfs.github.com/spec/v1\n", "onnx", ("git lfs pull",)),
    (b"\n<!DOCTYPE html><html>", "xgboost", ("web page", "check the URI")),
    (b"\x1c\0\0\0TFL3", "onnx", ("TensorFlow Lite", "spec.model.format to litert")),
    (b"tree\nversion=v4\n", "onnx", ("format to lightgbm",)),
    (b'{"learner":{"attributes"', "onnx", ("format to xgboost",)),
]
"""The first bytes of a file, the format of the manifest, and words of the cause and of the fix."""


# ---------------------------------------------------------------- runs

RUNS: list[tuple[dict[str, Any], dict[str, Any], str, str, str]] = [
    (
        {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
        {},
        "OOMKilled",
        "memory limit",
        "raise spec.resources.memory",
    ),
    (
        {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off 10s"}},
        {},
        "ImageUnavailable",
        "registry.test/runtime:1 cannot be pulled",
        "check that the image exists",
    ),
    (
        {"waiting": {"reason": "ErrImagePull", "message": "pull of x failed"}},
        {},
        "ImageUnavailable",
        "registry.test/runtime:1 cannot be pulled",
        "check that the image exists",
    ),
    ({"terminated": {"exitCode": 139}}, {}, "WorkerFailed", "exited with code 139", "see its log"),
    (
        {},
        {
            "conditions": [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "message": 'persistentvolumeclaim "t" not found',
                }
            ]
        },
        "Unschedulable",
        '"t" not found',
        "",
    ),
    (
        ended(75, outcome="Failed", reason="StoreUnavailable", message="no Secret"),
        {},
        "StoreUnavailable",
        "no Secret",
        "",
    ),
]
"""The state of a pod's container, more of its status, the reason, and words of the cause and of the
fix; no fix where Kubernetes or the worker says the sentence."""
