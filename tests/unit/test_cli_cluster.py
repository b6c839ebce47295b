"""The commands that look at the objects of a cluster, and change them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import Result

from fourways_cli import applying
from fourways_cli.main import app
from fourways_cli.targets.cluster_reads import concerns
from tests.kit.api_objects import ApiObjects, api_objects, kubeconfig_of
from tests.kit.cli import CliRunner

GROUP = "/apis/fourways.dev/v1alpha1"
MDEP = f"{GROUP}/namespaces/team/modeldeployments"
EXAMPLES = Path(__file__).parents[2] / "examples"
EVIL = "[/x] \x1b[31mred"


@pytest.fixture
def api() -> Iterator[ApiObjects]:
    with api_objects() as served:
        yield served


@pytest.fixture
def config(api: ApiObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(applying, "POLL_SECONDS", 0.01)
    monkeypatch.chdir(tmp_path)
    return kubeconfig_of(api.port, tmp_path / "config")


def fourways(config: Path, command: str, *args: str, **options: Any) -> Result:
    arguments = [command, *args, "--kubeconfig", str(config)]
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "300"}, **options)


def churn(name: str = "churn", **spec: Any) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((EXAMPLES / "churn.yaml").read_text())
    document["metadata"]["name"] = name
    document["spec"] |= spec
    return document


def deployed(api: ApiObjects, name: str = "churn", ready: bool = True) -> dict[str, Any]:
    condition = {
        "type": "Ready",
        "status": str(ready),
        "reason": "Answering" if ready else "ModelNotFound",
        "message": "it answers" if ready else f"no file {EVIL}",
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    }
    status = {
        "mode": "batch",
        "modeReason": "staleness of a day is fine",
        "conditions": [condition],
    }
    return api.add(GROUP, {**churn(name), "status": status})


def pod(name: str, job: str, created: str, deployment: str = "churn") -> dict[str, Any]:
    labels = {"fourways.dev/deployment": deployment, "batch.kubernetes.io/job-name": job}
    metadata = {"name": name, "labels": labels, "creationTimestamp": created}
    waiting = {"reason": "ImagePullBackOff", "message": EVIL}
    state = {"restartCount": 2, "state": {"waiting": waiting}}
    return {
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [{"name": "worker"}]},
        "status": {"phase": "Running", "containerStatuses": [state]},
    }


def event(name: str, about: str, at: str, kind: str = "Job", message: str = "m") -> dict[str, Any]:
    return {
        "kind": "Event",
        "metadata": {"name": name},
        "involvedObject": {"kind": kind, "name": about},
        "type": "Warning",
        "reason": "FailedCreate",
        "message": message,
        "lastTimestamp": at,
        "count": 3,
    }


# ---------------------------------------------------------------- get


def test_tables_say_where_the_deployments_are(config: Path, api: ApiObjects) -> None:
    deployed(api)
    for command in ("get", "status"):
        done = fourways(config, command)
        assert done.exit_code == 0, done.output
        assert "churn" in done.stdout
        assert done.stderr == "cluster mine, namespace team\n"
        assert fourways(config, command, "-o", "json").stderr == ""


# ---------------------------------------------------------------- describe, events, logs


def test_a_deployment_is_described_in_full(config: Path, api: ApiObjects) -> None:
    deployed(api)
    api.add("/api/v1", pod("churn-batch-1-0-bcdfg", "churn-batch-1", "2026-01-01T00:00:00Z"))
    api.add("/api/v1", event("e", "churn-batch-1", "2026-01-01T00:00:01Z", message=EVIL))
    done = fourways(config, "describe", "churn")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    for title, words in (
        ("Where", "cluster mine, namespace team"),
        ("Why", "staleness of a day is fine"),
        ("Next step", "fourways predict churn KEY"),
        ("Ready", "it answers"),
        ("churn-batch-1-0-bcdfg", "ImagePullBackOff: [/x] \\x1b[31mred"),
        ("2026-01-01 00:00:01", "[/x] \\x1b[31mred"),
    ):
        assert any(title in line and words in line for line in lines), (title, done.stdout)
    told = json.loads(fourways(config, "describe", "churn", "-o", "json").stdout)
    assert told["deployment"]["metadata"]["name"] == "churn"
    assert [each["object"] for each in told["events"]] == ["Job/churn-batch-1"]
    assert yaml.safe_load(fourways(config, "describe", "churn", "-o", "yaml").stdout) == told


def test_a_deployment_that_is_not_ready_has_no_next_step(config: Path, api: ApiObjects) -> None:
    deployed(api, ready=False)
    done = fourways(config, "describe", "churn")
    assert "Next step" not in done.stdout
    assert "no file [/x] \\x1b[31mred" in done.stdout


@pytest.mark.parametrize("command", ["describe", "events", "logs", "delete"])
def test_an_unknown_deployment_is_named_with_the_known_ones(
    config: Path, api: ApiObjects, command: str
) -> None:
    deployed(api)
    done = fourways(config, command, "nosuch")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "no ModelDeployment nosuch in namespace team; there are: churn" in done.stderr


@pytest.mark.parametrize("command", ["get", "describe", "events"])
@pytest.mark.parametrize("output", ["xml", "jsonpath={.a}", ""])
def test_an_unknown_output_format_is_refused(config: Path, command: str, output: str) -> None:
    done = fourways(config, command, "churn", "-o", output)
    assert done.exit_code == 2
    assert "json" in done.output


@pytest.mark.parametrize(
    ("kind", "name", "ours"),
    [
        ("ModelDeployment", "churn", True),
        ("ModelDeployment", "churn-batch", False),
        ("CronJob", "churn-batch", True),
        ("Job", "churn-batch-29312345", True),
        ("Job", "churn-batch-x7k2p", True),
        ("Pod", "churn-batch-29312345-0-x7k2p", True),
        ("Pod", "churn-realtime-predictor-7d9c5f64bd-x7k2p", True),
        ("Job", "churn-edge-0a1b2c3d", True),
        # Those of a deployment named churn-batch.
        ("CronJob", "churn-batch-batch", False),
        ("Job", "churn-batch-batch-29312345", False),
        ("Deployment", "churn-batch-streaming", False),
        ("Pod", "churn", False),
        ("Pod", "other", False),
    ],
)
def test_events_belong_to_a_deployment_by_its_objects_names(
    kind: str, name: str, ours: bool
) -> None:
    assert concerns({"kind": kind, "name": name}, "churn") is ours


def test_events_are_listed_the_latest_last(config: Path, api: ApiObjects) -> None:
    deployed(api)
    api.add("/api/v1", event("b", "churn-batch-2", "2026-01-02T00:00:00Z"))
    api.add("/api/v1", event("a", "churn", "2026-01-01T00:00:00Z", kind="ModelDeployment"))
    api.add("/api/v1", event("c", "other-batch-2", "2026-01-03T00:00:00Z"))
    found = json.loads(fourways(config, "events", "churn", "-o", "json").stdout)
    assert [each["object"] for each in found] == ["ModelDeployment/churn", "Job/churn-batch-2"]
    api.objects.clear()
    deployed(api)
    assert fourways(config, "events", "churn").stdout == "no events of churn\n"


def test_logs_are_those_of_the_latest_run(config: Path, api: ApiObjects) -> None:
    deployed(api)
    for number, text in ((1, b"old\n"), (2, f"one\ntwo {EVIL}\nthree\n".encode())):
        name = f"churn-batch-{number}-0-bcdfg"
        api.add("/api/v1", pod(name, f"churn-batch-{number}", f"2026-01-0{number}T00:00:00Z"))
        api.logs[name] = text
    done = fourways(config, "logs", "churn", "--tail", "2")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "churn-batch-2-0-bcdfg  two [/x] \\x1b[31mred",
        "churn-batch-2-0-bcdfg  three",
    ]
    named = fourways(config, "logs", "churn", "--pod", "churn-batch-1-0-bcdfg")
    assert named.stdout == "old\n"
    followed = fourways(config, "logs", "churn", "-f")
    assert "churn-batch-2-0-bcdfg  three" in followed.stdout
    refused = fourways(config, "logs", "churn", "--pod", "nosuch")
    assert refused.exit_code == 1
    assert "no pod nosuch; there are: churn-batch-1-0-bcdfg" in refused.stderr


def test_a_pod_that_has_not_started_hides_no_other_log(config: Path, api: ApiObjects) -> None:
    deployed(api)
    for index in (0, 1):
        name = f"churn-batch-1-{index}-bcdfg"
        api.add("/api/v1", pod(name, "churn-batch-1", "2026-01-01T00:00:00Z"))
    api.logs["churn-batch-1-1-bcdfg"] = b"scored\n"
    for options in ((), ("-f",)):
        done = fourways(config, "logs", "churn", *options)
        assert "churn-batch-1-1-bcdfg  scored" in done.stdout
        assert "(no log: container of churn-batch-1-0-bcdfg is waiting to start)" in done.stdout


def test_no_pod_has_no_log(config: Path, api: ApiObjects) -> None:
    deployed(api)
    done = fourways(config, "logs", "churn")
    assert (done.exit_code, "churn has no log" in done.stderr) == (1, True)


# ---------------------------------------------------------------- apply


def written(tmp_path: Path, *documents: dict[str, Any]) -> str:
    file = tmp_path / "m.yaml"
    file.write_text(yaml.safe_dump_all(documents))
    return str(file)


SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"}, "stringData": {}}


def test_objects_are_applied_deployments_last(
    config: Path, api: ApiObjects, tmp_path: Path
) -> None:
    file = written(tmp_path, churn(), SECRET)
    done = fourways(config, "apply", file)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "secret/login created (cluster mine, namespace team)",
        "modeldeployment.fourways.dev/churn created (cluster mine, namespace team)",
        "next: fourways describe churn",
    ]
    assert [(method, path.rpartition("/")[2]) for method, path, _ in api.asked] == [
        ("PATCH", "login"),
        ("PATCH", "churn"),
    ]
    assert api.objects[f"{MDEP}/churn"]["spec"] == churn()["spec"]
    assert "churn unchanged" in fourways(config, "apply", file).stdout
    changed = written(tmp_path, churn(resources={"cpu": "2"}))
    assert "churn configured" in fourways(config, "apply", changed).stdout


def test_a_dry_run_changes_nothing(config: Path, api: ApiObjects, tmp_path: Path) -> None:
    done = fourways(config, "apply", written(tmp_path, churn()), "--dry-run")
    assert done.exit_code == 0, done.output
    assert "nothing was changed" in done.stdout
    assert api.objects == {}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (churn(model={"uri": "m.onnx"}), "a path of this machine"),
        (churn(mode="nosuch"), "spec.mode"),
    ],
)
def test_an_invalid_manifest_applies_nothing(
    config: Path, api: ApiObjects, tmp_path: Path, document: dict[str, Any], words: str
) -> None:
    done = fourways(config, "apply", written(tmp_path, SECRET, document))
    assert (done.exit_code, api.asked) == (2, [])
    assert words in done.stderr


def test_a_kind_that_the_cluster_lacks_applies_nothing(
    config: Path, api: ApiObjects, tmp_path: Path
) -> None:
    other = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}}
    done = fourways(config, "apply", written(tmp_path, churn(), other))
    assert (done.exit_code, api.asked) == (1, [])
    assert "the cluster has no kind Thing of example.com/v1" in done.stderr


def test_fields_of_others_are_taken_over_only_on_demand(
    config: Path, api: ApiObjects, tmp_path: Path
) -> None:
    file = written(tmp_path, churn())
    api.refusals["PATCH"] = (409, 'conflict with "kubectl-edit": .spec.resources.cpu')
    done = fourways(config, "apply", file)
    assert done.exit_code == 1
    assert 'conflict with "kubectl-edit"' in done.stderr
    assert "add --force-conflicts" in done.stderr
    api.refusals.clear()
    assert fourways(config, "apply", file, "--force-conflicts").exit_code == 0
    assert [query.get("force") for _, _, query in api.asked] == [None, "true"]


def test_who_waits_is_told_the_next_step_or_what_is_in_the_way(
    config: Path, api: ApiObjects, tmp_path: Path
) -> None:
    file = written(tmp_path, churn())
    deployed(api)
    done = fourways(config, "apply", file, "--wait", "5")
    assert done.exit_code == 0, done.output
    assert "next: fourways predict churn KEY" in done.stdout
    deployed(api, ready=False)
    done = fourways(config, "apply", file, "--wait", "0.01")
    assert done.exit_code == 1
    assert "is not ready after 0.01 s: ModelNotFound: no file" in done.stderr


def test_standard_input_is_applied(config: Path, api: ApiObjects) -> None:
    done = fourways(config, "apply", "-", input=yaml.safe_dump(churn()))
    assert "churn created" in done.stdout


# ---------------------------------------------------------------- delete


def test_deployments_are_deleted_and_their_data_named(config: Path, api: ApiObjects) -> None:
    deployed(api)
    deployed(api, "other")
    done = fourways(config, "delete", "churn")
    assert done.exit_code == 0, done.output
    assert "churn deleted (cluster mine, namespace team)" in done.stdout
    assert "fourways purge team/churn" in done.stdout
    assert list(api.objects) == [f"{MDEP}/other"]


def test_one_unknown_name_deletes_nothing(config: Path, api: ApiObjects) -> None:
    deployed(api)
    assert fourways(config, "delete", "churn", "nosuch").exit_code == 1
    assert api.asked == []


def test_a_refused_deletion_says_why(config: Path, api: ApiObjects) -> None:
    deployed(api)
    api.refusals["DELETE"] = (403, "forbidden for you")
    done = fourways(config, "delete", "churn")
    assert (done.exit_code, done.stderr) == (1, "forbidden for you\n")


# ---------------------------------------------------------------- pause, resume


def test_a_batch_deployment_is_paused_and_resumed(config: Path, api: ApiObjects) -> None:
    deployed(api)
    done = fourways(config, "pause", "churn")
    assert done.stdout.endswith("churn paused (cluster mine, namespace team)\n"), done.output
    held = api.objects[f"{MDEP}/churn"]["spec"]["batch"]
    assert held == {**churn()["spec"]["batch"], "suspend": True}
    assert "paused already" in fourways(config, "pause", "churn").stdout
    assert len(api.asked) == 1
    assert fourways(config, "resume", "churn").exit_code == 0
    assert api.objects[f"{MDEP}/churn"]["spec"]["batch"]["suspend"] is False


@pytest.mark.parametrize(
    ("mode", "words"), [("realtime", "minReplicas: 0"), ("streaming", "delete"), ("edge", "builds")]
)
def test_other_modes_say_what_they_have_instead(
    config: Path, api: ApiObjects, mode: str, words: str
) -> None:
    deployed(api)["status"]["mode"] = mode
    done = fourways(config, "pause", "churn")
    assert (done.exit_code, api.asked) == (1, [])
    assert f"churn is a {mode} deployment" in done.stderr
    assert words in done.stderr


# ---------------------------------------------------------------- open


def test_a_cluster_s_page_is_opened_through_a_forwarded_port(
    config: Path, api: ApiObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed(api)
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setenv("PATH", str(tmp_path))
    done = fourways(config, "open", "churn", "--port", "8123")
    assert done.exit_code == 1
    assert "kubectl is not installed; where it is: kubectl --kubeconfig" in done.stderr
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\necho Forwarding from here\n')
    kubectl.chmod(0o755)
    done = fourways(config, "open", "churn", "--port", "8123")
    assert done.exit_code == 0, done.output
    assert opened == ["http://127.0.0.1:8123/deployments/churn"]
    asked = (tmp_path / "asked").read_text().split()
    assert asked[2:] == [
        *("--context", "mine", "-n", "team"),
        *("port-forward", "service/fourways-gateway", "8123:http"),
    ]
    kubectl.write_text("#!/bin/sh\nexit 3\n")
    done = fourways(config, "open", "--port", "8123")
    assert (done.exit_code, opened[1:]) == (1, [])
    assert "ended with 3" in done.stderr


# ---------------------------------------------------------------- diff


def test_differences_are_those_of_an_apply(config: Path, api: ApiObjects, tmp_path: Path) -> None:
    file = written(tmp_path, churn(resources={"cpu": "2"}))
    done = fourways(config, "diff", file)
    assert done.exit_code == 1
    assert "ModelDeployment churn is new" in done.stdout
    fourways(config, "apply", file)
    same = fourways(config, "diff", file)
    assert (same.exit_code, same.stdout) == (0, "no difference (cluster mine, namespace team)\n")
    changed = written(tmp_path, churn(resources={"cpu": "4"}))
    done = fourways(config, "diff", changed)
    assert done.exit_code == 1
    lines = [line for line in done.stdout.splitlines() if line[:1] in "+-"]
    assert lines[2:] == ["-    cpu: '2'", "+    cpu: '4'"]
    told = json.loads(fourways(config, "diff", changed, "-o", "json").stdout)
    assert [each["object"] for each in told] == ["ModelDeployment churn"]
    assert api.objects[f"{MDEP}/churn"]["spec"]["resources"] == {"cpu": "2"}


def test_differences_of_a_secret_show_no_value(
    config: Path, api: ApiObjects, tmp_path: Path
) -> None:
    last = {"kubectl.kubernetes.io/last-applied-configuration": "old-password"}
    secret = {**SECRET, "metadata": {"name": "login", "annotations": last}}
    api.add("/api/v1", {**secret, "stringData": {"password": "old-password", "user": "me"}})
    new = {**SECRET, "stringData": {"password": "new-password", "user": "me"}}
    done = fourways(config, "diff", written(tmp_path, new))
    assert done.exit_code == 1
    assert "-password" not in done.stdout
    assert "+  password: '*** (manifest)'" in done.stdout
    assert "-  password: '*** (live)'" in done.stdout


# ---------------------------------------------------------------- completion, version


def completed(config: Path, words: str) -> list[str]:
    done = CliRunner().invoke(
        app,
        [],
        prog_name="fourways",
        env={
            "_FOURWAYS_COMPLETE": "complete_bash",
            "COMP_WORDS": f"fourways {words}",
            "COMP_CWORD": str(len(words.split(" "))),
        },
    )
    return done.stdout.split()


def test_names_of_deployments_are_completed(config: Path, api: ApiObjects) -> None:
    for name in ("churn", "churn-weekly", "price"):
        deployed(api, name)
    for command in ("get", "describe", "logs", "delete", "start-run", "pause", "open", "predict"):
        words = f"{command} --kubeconfig {config} ch"
        assert completed(config, words) == ["churn", "churn-weekly"], command
    assert completed(config, f"get --kubeconfig {config} -n other ch") == []
    assert completed(config, "get --kubeconfig /nosuch ch") == []
    assert "list-runs" in completed(config, "li")
    assert "runs" not in completed(config, "ru")


def test_the_versions_of_program_and_operators_are_shown(config: Path, api: ApiObjects) -> None:
    done = CliRunner().invoke(app, ["version", "-o", "json"])
    assert set(json.loads(done.stdout)) == {"fourways", "python"}
    labels = {"app.kubernetes.io/name": "fourways,app.kubernetes.io/component=operator"}
    image = "registry.example/fourways-operator:1"
    operator = {"metadata": {"name": "o", "namespace": "system", "labels": labels}}
    api.objects["/api/v1/pods/o"] = {**operator, "spec": {"containers": [{"image": image}]}}
    assert image in fourways(config, "version").stdout
    api.objects.clear()
    done = fourways(config, "version")
    assert (done.exit_code, "no operator runs" in done.stderr) == (1, True)
