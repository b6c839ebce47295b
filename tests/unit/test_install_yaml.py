"""The single file that installs, and the images that an installation pulls."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from fourways_operator.facts import OperatorSettings
from fourways_operator.options import options_of, settings_of
from fourways_operator.plan.everywhere import pods_of
from tools.install_yaml import (
    CHART,
    IMAGES,
    NAMESPACE,
    images_of,
    install_objects,
    pinned,
    rendered,
)

DIGESTS = {name: f"sha256:{index:064x}" for index, name in enumerate(IMAGES)}
REGISTRY = "registry.example/team"


@pytest.fixture(scope="module")
def objects(helm: str) -> list[dict[str, Any]]:
    return install_objects(helm, REGISTRY, DIGESTS)


@pytest.mark.thorough
def test_one_file_installs_into_a_namespace_of_its_own(objects: list[dict[str, Any]]) -> None:
    assert (objects[0]["kind"], objects[0]["metadata"]["name"]) == ("Namespace", NAMESPACE)
    kinds = {each["kind"] for each in objects}
    assert {"CustomResourceDefinition", "ClusterRole", "Deployment", "NetworkPolicy"} <= kinds
    assert "Pod" not in kinds, "the chart's test is no part of an installation"
    spaces = {each["metadata"].get("namespace") for each in objects}
    assert spaces <= {None, NAMESPACE}
    assert "Secret" not in kinds, "a file for everybody holds no password"
    (operator,) = (each for each in objects if each["kind"] == "Deployment")
    container = operator["spec"]["template"]["spec"]["containers"][0]
    variables = {each["name"]: each.get("value") for each in container["env"]}
    assert variables["FOURWAYS_NAMESPACES"] == "", "every namespace"


def test_nothing_of_helm_stays(objects: list[dict[str, Any]]) -> None:
    assert "helm.sh" not in yaml.safe_dump_all(objects)


def test_images_are_named_by_registry_and_digest(objects: list[dict[str, Any]]) -> None:
    expected = {f"{REGISTRY}/fourways-{name}@{digest}" for name, digest in DIGESTS.items()}
    assert set(images_of(objects)) == expected


def test_a_release_s_chart_pulls_the_same_images() -> None:
    text = (CHART / "values.yaml").read_text()
    before, after = yaml.safe_load(text), yaml.safe_load(pinned(text, REGISTRY, DIGESTS))
    for name, digest in DIGESTS.items():
        assert after[name]["image"]["repository"] == f"{REGISTRY}/fourways-{name}"
        assert after[name]["image"].pop("digest") == digest
        after[name]["image"] |= {"repository": f"fourways-{name}", "digest": ""}
    assert before == after


def test_the_chart_s_test_is_a_pod_that_restricted_namespaces_admit(helm: str) -> None:
    options = ("--show-only", "templates/tests/health.yaml")
    done = [each for each in rendered(helm, *options, skip_tests=False) if each["kind"] == "Pod"]
    (pod,) = done
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    spec = pod["spec"]
    (container,) = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    compile(container["args"][0], "test", "exec")


def settings_in(objects: list[dict[str, Any]]) -> OperatorSettings:
    """Return what the operator of these objects is told by its environment."""
    (operator,) = (each for each in objects if each["kind"] == "Deployment")
    variables = operator["spec"]["template"]["spec"]["containers"][0]["env"]
    with pytest.MonkeyPatch.context() as patched:
        for each in variables:
            patched.setenv(each["name"], each.get("value") or "")
        return settings_of(options_of([]))


@pytest.mark.thorough
def test_pull_secrets_reach_the_operator_and_every_other_pod(helm: str) -> None:
    trials = ("--set", "trialPostgresql.enabled=true", "--set", "trialNats.enabled=true")
    found = rendered(helm, "--set", "imagePullSecrets[0].name=registry", *trials)
    pods = [pod for each in found for pod in pods_of(each)]
    assert len(pods) >= 3
    assert all(pod["imagePullSecrets"] == [{"name": "registry"}] for pod in pods)
    assert settings_in(found).image_pull_secrets == ("registry",)
    assert settings_in(rendered(helm)).image_pull_secrets == ()


@pytest.mark.thorough
def test_one_value_names_the_registry_of_all_images_of_ours(helm: str) -> None:
    found = rendered(helm, "--set", "imageRegistry=registry.example.com/team")
    tags = [image.rpartition("registry.example.com/team/fourways-") for image in images_of(found)]
    assert [each[0] for each in tags] == ["", "", ""]
    assert [each[2].partition(":")[0] for each in tags] == ["operator", "ray", "runtime"]
    own = ("--set", "runtime.image.repository=elsewhere.example.com/mine")
    found = rendered(helm, "--set", "imageRegistry=registry.example.com/team", *own)
    assert settings_in(found).runtime_image.startswith("elsewhere.example.com/mine:")


@pytest.mark.thorough
def test_monitors_ask_for_native_histograms_beside_the_classic_ones(helm: str) -> None:
    on = ("--set", "monitoring.podMonitors.enabled=true")
    native = ("--set", "monitoring.podMonitors.nativeHistograms=true")
    for options, wanted in ((on, None), ((*on, *native), True)):
        monitors = [o for o in rendered(helm, *options) if o["kind"] == "PodMonitor"]
        assert len(monitors) == 2
        for each in monitors:
            assert each["spec"].get("convertClassicHistogramsToNHCB") is wanted
            assert each["spec"].get("scrapeClassicHistograms") is wanted


@pytest.mark.thorough
def test_level_and_variables_of_gateways_reach_the_operator(helm: str) -> None:
    told = settings_in(rendered(helm, "--set", "gateway.logLevel=error")).gateway_pod
    assert json.loads(told)["env"] == [{"name": "FOURWAYS_LOG_LEVEL", "value": "error"}]
    more = ("--set", "gateway.extraEnv[0].name=A", "--set", "gateway.extraEnv[0].value=b")
    told = settings_in(rendered(helm, *more)).gateway_pod
    assert json.loads(told)["env"] == [{"name": "A", "value": "b"}]
    assert json.loads(settings_in(rendered(helm)).gateway_pod)["env"] == []


@pytest.mark.thorough
def test_no_pod_names_a_user_where_the_platform_assigns_one(helm: str) -> None:
    trials = ("--set", "trialPostgresql.enabled=true", "--set", "trialNats.enabled=true")
    found = rendered(helm, "--set", "fixedUser=false", *trials, skip_tests=False)
    assert not settings_in(found).fixed_user
    for each in found:
        for pod in pods_of(each):
            assert "runAsUser" not in json.dumps(pod), each["metadata"]["name"]
            assert pod["securityContext"]["runAsNonRoot"] is True
    users = [pod["securityContext"].get("runAsUser") for e in rendered(helm) for pod in pods_of(e)]
    assert users == [65532]
    assert settings_in(rendered(helm)).fixed_user


@pytest.mark.thorough
def test_authorities_reach_the_operator(helm: str) -> None:
    found = rendered(helm, "--set", "authorities.configMapName=company")
    assert settings_in(found).authorities == ("company", "ca.crt")
    assert settings_in(rendered(helm)).authorities is None


@pytest.mark.thorough
def test_the_operator_runs_where_the_values_say(helm: str) -> None:
    pod = {
        "labels": {"team": "ml"},
        "annotations": {"a": "b"},
        "tolerations": [{"key": "infra", "operator": "Exists"}],
        "priorityClassName": "system-cluster-critical",
    }
    values = {"pod": pod, "logLevel": "debug", "extraEnv": [{"name": "A", "value": "b"}]}
    found = rendered(helm, "--set-json", f"operator={json.dumps(values)}")
    (operator,) = (each for each in found if each["kind"] == "Deployment")
    template = operator["spec"]["template"]
    assert template["metadata"]["labels"].items() > pod["labels"].items()
    assert template["metadata"]["annotations"] == pod["annotations"]
    assert template["spec"]["tolerations"] == pod["tolerations"]
    assert template["spec"]["priorityClassName"] == pod["priorityClassName"]
    env = {each["name"]: each.get("value") for each in template["spec"]["containers"][0]["env"]}
    assert (env["A"], env["FOURWAYS_LOG_LEVEL"]) == ("b", "debug")
