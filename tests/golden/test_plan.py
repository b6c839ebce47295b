"""What the plan emits, whole. `make update` rewrites the files; a reader reviews the diff."""

import os
from pathlib import Path

import pytest
import yaml

from fourways_api import check, load_documents, parse
from fourways_operator import planning as planner
from fourways_operator.facts import OperatorSettings
from fourways_operator.kinds import KINDS
from tests.kit.yaml_files import load_every_yaml

FOLDER = Path(__file__).parent / "plan"
SETTINGS = OperatorSettings(runtime_image="fourways-runtime:test", gateway_replicas=2)

RUN = "a-run-29406240"


@pytest.mark.parametrize("source", sorted(FOLDER.glob("*.in.yaml")), ids=lambda p: p.name)
def test_the_plan_is_as_recorded(source: Path) -> None:
    (document,) = load_documents(source.read_text())
    deployment = parse(document)
    check(deployment)
    standing = planner.plan(deployment, SETTINGS)
    crons = [o for o in standing if o["kind"] == "CronJob"]
    templates = [cron["spec"]["jobTemplate"] for cron in crons]
    runs = [{"metadata": {"name": RUN}, "spec": template["spec"]} for template in templates]
    objects = [
        *standing,
        *planner.plan_runs(deployment, SETTINGS, None, runs),
        *planner.plan_gateway("demo", [document], SETTINGS),
    ]
    text = yaml.safe_dump_all(objects, sort_keys=False)
    recorded = source.with_name(source.name.replace(".in.", ".out."))
    if os.environ.get("FOURWAYS_UPDATE_GOLDEN"):
        recorded.write_text(text)
    assert text == recorded.read_text()


@pytest.fixture(scope="module")
def recorded_objects() -> list[dict]:
    files = FOLDER.glob("*.out.yaml")
    return [obj for file in files for obj in load_every_yaml(file.read_text())]


def test_every_planned_kind_is_one_the_operator_may_touch(recorded_objects: list[dict]) -> None:
    assert recorded_objects
    for obj in recorded_objects:
        assert any(kind.of(obj) for kind in KINDS), obj["kind"]


def test_no_planned_object_carries_what_the_server_fills_in(recorded_objects: list[dict]) -> None:
    for obj in recorded_objects:
        assert not {"uid", "resourceVersion", "managedFields"} & set(obj["metadata"])
        assert "status" not in obj


def test_every_planned_pod_passes_pod_security_restricted(recorded_objects: list[dict]) -> None:
    for obj in recorded_objects:
        for pod in pods_in(obj):
            assert_restricted(pod)


def pods_in(obj: object) -> list[dict]:
    found = []
    if isinstance(obj, dict):
        if "containers" in obj:
            found.append(obj)
        for value in obj.values():
            found.extend(pods_in(value))
    elif isinstance(obj, list):
        for value in obj:
            found.extend(pods_in(value))
    return found


def assert_restricted(pod: dict) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    allowed = {"emptyDir", "secret", "persistentVolumeClaim", "configMap", "projected", "image"}
    for volume in pod["volumes"]:
        assert set(volume) - {"name"} <= allowed
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
        for amounts in (container["resources"]["requests"], container["resources"]["limits"]):
            assert set(amounts) - {"nvidia.com/gpu"} == {"cpu", "memory"}
