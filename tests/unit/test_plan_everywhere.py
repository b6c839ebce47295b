"""What the installation adds to every pod: pull Secrets, and the authorities that it trusts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fourways_api import load_documents, parse
from fourways_operator.facts import Json, OperatorSettings
from fourways_operator.options import options_of, settings_of
from fourways_operator.plan.everywhere import pods_of
from fourways_operator.planning import plan, plan_gateway, plan_runs
from fourways_runtime.io.fetch import http
from tests.kit.certificates import TestAuthority
from tests.kit.planned import SETTINGS

GOLDEN = Path(__file__).parents[1] / "golden" / "plan"
FILE = "/etc/fourways/authorities/ca.crt"


def pods(source: Path, settings: OperatorSettings) -> Iterator[tuple[str, Json]]:
    """Yield every pod of a deployment, of a run of it, and of its namespace's gateway."""
    (document,) = load_documents(source.read_text())
    deployment = parse(document)
    standing = plan(deployment, settings)
    templates = [o["spec"]["jobTemplate"] for o in standing if o["kind"] == "CronJob"]
    runs = [{"metadata": {"name": "a-run"}, "spec": template["spec"]} for template in templates]
    for each in (
        *standing,
        *plan_runs(deployment, settings, None, runs),
        *plan_gateway("demo", [document], settings),
    ):
        for pod in pods_of(each):
            yield f"{each['kind']}/{each['metadata']['name']}", pod


SOURCES = sorted(GOLDEN.glob("*.in.yaml"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_every_pod_of_every_mode_gets_the_pull_secrets(source: Path) -> None:
    found = dict(pods(source, replace(SETTINGS, image_pull_secrets=("registry",))))
    assert "Deployment/fourways-gateway" in found
    assert len(found) >= 2
    for name, pod in found.items():
        assert {"name": "registry"} in pod["imagePullSecrets"], name
        names = [each["name"] for each in pod["imagePullSecrets"]]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_every_container_trusts_the_authorities(source: Path) -> None:
    for name, pod in pods(source, replace(SETTINGS, authorities=("company", "bundle.pem"))):
        if "containers" not in pod:
            continue  # a runtime of KServe
        (volume,) = (each for each in pod["volumes"] if each["name"] == "authorities")
        items = [{"key": "bundle.pem", "path": "ca.crt"}]
        assert volume["configMap"] == {"name": "company", "items": items}
        for container in (*pod.get("initContainers", []), *pod["containers"]):
            env = {each["name"]: each.get("value") for each in container["env"]}
            assert env["SSL_CERT_FILE"] == FILE, name
            assert any(
                each["mountPath"] == Path(FILE).parent.as_posix()
                for each in container["volumeMounts"]
            ), name


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_pods_leave_their_user_to_the_platform_and_stay_restricted(source: Path) -> None:
    for name, pod in pods(source, replace(SETTINGS, fixed_user=False)):
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & pod["securityContext"].keys(), name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        for container in (*pod.get("initContainers", []), *pod.get("containers", [])):
            assert "runAsUser" not in container["securityContext"], name


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_without_the_values_nothing_is_added(source: Path) -> None:
    for _, pod in pods(source, SETTINGS):
        assert all(each["name"] != "authorities" for each in pod.get("volumes", []))


def test_the_operator_takes_both_from_its_flags(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--image-pull-secrets", "one,two", "--authorities", "company/bundle.pem"]
    settings = settings_of(options_of(flags))
    assert settings.image_pull_secrets == ("one", "two")
    assert settings.authorities == ("company", "bundle.pem")
    assert settings_of(options_of([])).authorities is None
    assert settings_of(options_of([])).fixed_user
    assert not settings_of(options_of(["--fixed-user", "false"])).fixed_user
    with pytest.raises(SystemExit):
        options_of(["--authorities", "company"])
    assert "NAME/KEY" in capsys.readouterr().err


def test_the_fetcher_trusts_the_file_of_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "ca.crt"
    own.write_bytes(TestAuthority("company").pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(own))
    trusted = http._tls.__wrapped__().get_ca_certs()
    assert len(trusted) == 1, "in place of the image's authorities"
