"""fourways doctor: what is missing or wrong is named, with the fix, and nothing else."""

from __future__ import annotations

import copy
import json
import locale
import socket
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fourways_api.crd import custom_resource_definition
from fourways_api.installing import install_command
from fourways_cli.diagnosis import cluster, machine
from fourways_cli.diagnosis.cluster import ClusterFacts, look_at_cluster
from fourways_cli.diagnosis.reading import ApiReader, read_facts
from fourways_cli.main import app

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
CRD = custom_resource_definition()


@pytest.fixture(autouse=True)
def _one_crd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making it takes longer than all that is tested here."""
    monkeypatch.setattr(cluster, "custom_resource_definition", lambda: CRD)


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


def test_a_good_cluster_has_nothing_to_mend() -> None:
    facts = replace(GOOD, storage_classes=[CLASS])
    assert {finding.level for finding in look_at_cluster(facts, "shop")} == {"ok"}


@pytest.mark.parametrize(
    ("changes", "level", "about", "says", "fix"),
    [
        ({"version": "v1.27.3"}, "fault", "Kubernetes", "v1.27.3", "1.30"),
        ({"version": "unknown"}, "fault", "Kubernetes", "unknown", "1.30"),
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
    ],
)
def test_each_fault_of_a_cluster_is_named_with_its_fix(
    changes: dict[str, Any], level: str, about: str, says: str, fix: str
) -> None:
    found = look_at_cluster(replace(GOOD, **changes), "shop")
    told = [f for f in found if f.level == level and f.about == about and says in f.says]
    assert len(told) == 1
    assert fix in told[0].fix


class Refused(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Api:
    """An API server that refuses everything with a status."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.asked: list[tuple[str, str, str]] = []

    def request(self, method: str, path: str, **options: Any) -> Any:
        self.asked.append((method, path, options.get("header_params", {}).get("Accept", "")))
        raise Refused(self.status)


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_what_may_not_be_read_is_not_taken_for_absent(status: int) -> None:
    api = Api(status)
    facts = read_facts(ApiReader(api, Refused, OSError), "shop")
    assert (facts.crd, facts.store_secret) == (({}, False) if status == 404 else (None, None))
    secrets = [accept for _, path, accept in api.asked if "/secrets/" in path]
    assert len(secrets) == 1
    assert "PartialObjectMetadata" in secrets[0], "the values of a Secret are not asked for"
    list(look_at_cluster(facts, "shop"))


def test_a_machine_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(machine, "PORT", taken.getsockname()[1])
        monkeypatch.setattr(machine, "missing_packages", lambda: ["pyarrow"])
        arguments = ["doctor", "--machine", "-o", "json", "--state", str(tmp_path / "a" / "b")]
        done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    found = {each["about"]: each for each in json.loads(done.stdout)}
    assert found["runtime"]["level"] == "fault"
    assert found["runtime"]["fix"] == install_command("runtime")
    assert (found["port"]["level"], "--port" in found["port"]["fix"]) == ("note", True)
    assert found["disk"]["level"] == "ok"


@pytest.mark.parametrize(("name", "level"), [("C", "ok"), ("xx_XX.nosuch", "note")])
def test_the_locale_of_text_models_is_looked_at(
    name: str, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "TEXT_LOCALE", name)
    before = locale.setlocale(locale.LC_CTYPE)
    (found,) = (each for each in machine.look_at_machine(tmp_path) if each.about == "locale")
    assert found.level == level
    assert (f"localedef -i en_US -f UTF-8 {name}" in found.fix) == (level == "note")
    assert locale.setlocale(locale.LC_CTYPE) == before


def test_a_cluster_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["doctor", "--cluster", "--kubeconfig", str(tmp_path / "none")])
    assert done.exit_code == 1
    assert "there is no kubeconfig" in done.stderr
