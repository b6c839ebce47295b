"""The chart as a user lives with it: install, apply, run, ask, upgrade, uninstall."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from fourways_cli.targets import API_KEY_VARIABLE
from tests.kit.waiting import until
from tools.demo.questions import ARTIFACTS, EXAMPLES, ask_all
from tools.installation import CHART, Cluster, idle_pod

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

NAMESPACE = "fw-test-install"
API_KEYS: dict[str, str] = {}
NAMES = ("churn", "file-type", "recommendations", "sales-forecast", "segmentation")


@pytest.fixture(scope="module")
def installed(cluster_with_images: Cluster) -> Iterator[Cluster]:
    cluster = cluster_with_images
    subprocess.run([sys.executable, EXAMPLES / "prepare.py"], check=True)
    cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=90s")
    cluster.make_namespace(NAMESPACE)
    cluster.install(NAMESPACE)
    # Before the gateway is there, so that the kubelet mounts the Secret at once.
    API_KEYS["shop"] = fourways(
        cluster, "key", "create", "shop", "--scope", "predict:churn", cluster_flag=False
    ).split()[-1]
    cluster.fill_claim(NAMESPACE, ARTIFACTS)
    yield cluster
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false", "--ignore-not-found")


@pytest.fixture(scope="module")
def serving(installed: Cluster) -> Cluster:
    """The examples applied, run once, and Ready."""
    for name in NAMES:
        installed.kubectl("-n", NAMESPACE, "apply", "-f", str(EXAMPLES / f"{name}.yaml"))
    for name in NAMES:
        installed.kubectl(
            "-n", NAMESPACE, "wait", "--for=create", f"cronjob/{name}-batch", "--timeout=30s"
        )
        fourways(installed, "run", name, "--wait", "0")
    installed.await_ready(NAMESPACE, *NAMES, seconds=180)
    return installed


def fourways(cluster: Cluster, *args: str, cluster_flag: bool = True) -> str:
    command = [sys.executable, "-m", "fourways_cli", *args, "-n", NAMESPACE]
    command += ["--cluster"] if cluster_flag else []
    environment = cluster.environment() | {"COLUMNS": "250"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_helm_finds_nothing_wrong_with_the_chart(cluster_with_images: Cluster) -> None:
    assert "0 chart(s) failed" in cluster_with_images.helm("lint", "--strict", str(CHART))


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("gateway.replicas=0", "replicas"),
        ("fetch.schemes={ftp}", "schemes"),
        ("stroe.port=5432", "stroe"),
    ],
)
def test_wrong_values_are_refused_by_name(
    cluster_with_images: Cluster, option: str, words: str
) -> None:
    with pytest.raises(RuntimeError, match=words):
        cluster_with_images.helm("template", "x", str(CHART), "--set", option)


def test_every_example_passes_the_api_server(installed: Cluster) -> None:
    for manifest in EXAMPLES.glob("*.yaml"):
        installed.kubectl("-n", NAMESPACE, "apply", "--dry-run=server", "-f", str(manifest))


def test_kubectl_shows_what_people_ask_first(serving: Cluster) -> None:
    table = serving.kubectl("-n", NAMESPACE, "get", "modeldeployments").splitlines()
    assert table[0].split() == [
        "NAME",
        "MODE",
        "READY",
        "VERSION",
        "LAST",
        "RUN",
        "NEXT",
        "RUN",
        "AGE",
    ]
    assert table[1].split()[:4] == ["churn", "batch", "True", "1.0.0"]


def test_the_gateway_answers_with_real_predictions(
    serving: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = serving.gateway_token(NAMESPACE)
    monkeypatch.setenv(API_KEY_VARIABLE, token)
    with serving.forwarded(NAMESPACE, "svc/fourways-gateway", 80) as url:
        answers = dict(ask_all(url))
        assert set(answers) == set(NAMES)
        assert all(0 <= p <= 1 for p in answers["churn"]["outputs"][0]["data"])
        assert status_of(url, "/predictions/churn/no-such-customer", token) == 404


def test_who_may_ask_the_gateway(serving: Cluster) -> None:
    owner, pod = (serving.gateway_token(NAMESPACE, a) for a in ("fourways-gateway", "default"))
    other = serving.kubectl("-n", NAMESPACE, "create", "token", "default").strip()
    with serving.forwarded(NAMESPACE, "svc/fourways-gateway", 80) as url:
        asked = "/v2/models/churn"
        assert status_of(url, "/v2/health/live", None) == 200
        for path in (asked, "/runs", "/metrics", "/runs/churn"):
            assert status_of(url, path, None) == 401, path
            assert status_of(url, path, other) == 401, "a token for the API server"
            assert status_of(url, path, owner) == 200, path
        assert status_of(url, asked, pod) == 200
        assert status_of(url, "/metrics", pod) == 403
        key = API_KEYS["shop"]
        assert status_of(url, "/predictions/churn/nobody", key) == 404
        assert status_of(url, "/predictions/segmentation/nobody", key) == 403
        assert status_of(url, asked, key) == 403


def status_of(url: str, path: str, token: str | None) -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.get(f"{url}{path}", headers=headers, trust_env=False).status_code


def churn_answer(cluster: Cluster) -> dict[str, Any]:
    """Return an answer with the keys asked for, asked with an API key."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(API_KEY_VARIABLE, API_KEYS["shop"])
        with cluster.forwarded(NAMESPACE, "svc/fourways-gateway", 80) as url:
            ((_, answer),) = ask_all(url, only="churn")
    return answer


def test_the_trial_role_is_no_superuser(serving: Cluster) -> None:
    asked = (
        "SELECT rolsuper OR rolcreaterole OR rolcreatedb FROM pg_roles WHERE rolname = 'fourways'"
    )
    pod = ("-n", NAMESPACE, "exec", "fourways-trial-postgresql-0", "--", "psql", "-Atq")
    assert serving.kubectl(*pod, "-U", "fourways", "-d", "fourways", "-c", asked).strip() == "f"
    owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'fourways'"
    assert serving.kubectl(*pod, "-U", "postgres", "-c", owner).strip() == "fourways"


def test_predict_asks_through_the_api_server(serving: Cluster) -> None:
    answer = churn_answer(serving)
    assert "churn_probability" in fourways(serving, "predict", "churn", str(answer["keys"][0]))


def test_every_pod_was_admitted_under_restricted_and_has_no_token(serving: Cluster) -> None:
    pods = serving.get("-n", NAMESPACE, "pods")["items"]
    assert len(pods) >= 6
    for pod in pods:
        role = pod["metadata"]["labels"].get("app.kubernetes.io/component")
        mounts = [m["mountPath"] for c in pod["spec"]["containers"] for m in c["volumeMounts"]]
        has_token = "/var/run/secrets/kubernetes.io/serviceaccount" in mounts
        assert has_token == (role == "operator"), pod["metadata"]["name"]


def test_nothing_of_ours_holds_a_finalizer_or_an_annotation(serving: Cluster) -> None:
    for kind in ("modeldeployments", "cronjobs", "deployments", "services", "networkpolicies"):
        for obj in serving.get("-n", NAMESPACE, kind)["items"]:
            assert not obj["metadata"].get("finalizers")
    for obj in serving.get("-n", NAMESPACE, "modeldeployments")["items"]:
        keys = set(obj["metadata"].get("annotations", {}))
        assert keys <= {"kubectl.kubernetes.io/last-applied-configuration"}


def test_a_failed_run_is_told_with_its_root_cause(serving: Cluster) -> None:
    document = yaml.safe_load((EXAMPLES / "churn.yaml").read_text())
    document["metadata"]["name"] = "broken"
    document["spec"]["model"]["digest"] = "sha256:" + "0" * 64
    serving.kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=yaml.safe_dump(document))
    serving.kubectl(
        "-n", NAMESPACE, "wait", "--for=create", "cronjob/broken-batch", "--timeout=30s"
    )
    fourways(serving, "run", "broken", "--wait", "0")
    serving.kubectl(
        "-n",
        NAMESPACE,
        "wait",
        "modeldeployment/broken",
        "--timeout=60s",
        "--for=jsonpath={.status.conditions[?(@.type=='Degraded')].reason}=DigestMismatch",
    )
    serving.kubectl("-n", NAMESPACE, "delete", "modeldeployment", "broken")


def test_an_operator_restart_writes_nothing(serving: Cluster) -> None:
    # The deployment that the test before deleted takes its uid from the gateway's configuration.
    rolled = ("rollout", "status", "deployment/fourways-gateway", "--timeout=60s")
    serving.kubectl("-n", NAMESPACE, *rolled)
    serving.await_ready(NAMESPACE, *NAMES)
    before = versions(serving)
    serving.kubectl("-n", NAMESPACE, "rollout", "restart", "deployment/fourways-operator")
    serving.kubectl("-n", NAMESPACE, "rollout", "status", "deployment/fourways-operator")
    assert versions(serving) == before


def versions(cluster: Cluster) -> dict[str, str]:
    """Return what changes when the operator writes one of its objects."""
    kinds = "modeldeployments,cronjobs,services,serviceaccounts,networkpolicies"
    items = cluster.get("-n", NAMESPACE, kinds)["items"]
    gateway = cluster.get("-n", NAMESPACE, "deployment/fourways-gateway")
    found = {
        f"{o['kind']}/{o['metadata']['name']}": o["metadata"]["resourceVersion"] for o in items
    }
    # Kubernetes writes the status of a Deployment, the operator its spec.
    return found | {"Deployment/fourways-gateway": str(gateway["metadata"]["generation"])}


def test_an_upgrade_keeps_password_and_predictions(serving: Cluster) -> None:
    secret = serving.get("-n", NAMESPACE, "secret/fourways-store")["data"]
    serving.install(NAMESPACE, "--set", "gateway.replicas=2")
    assert serving.get("-n", NAMESPACE, "secret/fourways-store")["data"] == secret
    serving.kubectl(
        "-n",
        NAMESPACE,
        "wait",
        "deployment/fourways-gateway",
        "--timeout=60s",
        "--for=jsonpath={.status.readyReplicas}=2",
    )
    assert churn_answer(serving)["keys"]


ASK = """
import json, select, sys, urllib.request
url, token = sys.argv[1:]
asked, failed = 0, []
while not select.select([sys.stdin], [], [], 0.005)[0]:
    request = urllib.request.Request(url, headers={"Authorization": "Bearer " + token})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert "churn_probability" in json.load(answer)["outputs"]
    except Exception as error:
        failed.append(f"{error!r} after {asked}")
    asked += 1
    if asked == 1:
        print("begun", flush=True)
print(json.dumps([asked, failed]))
"""


@pytest.fixture
def asker(serving: Cluster) -> Iterator[subprocess.Popen[str]]:
    """A pod that looks a prediction up without a pause, until its standard input has a line."""
    pod = idle_pod("asker", serving.images["runtime"])
    serving.kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=pod)
    serving.kubectl("-n", NAMESPACE, "wait", "--for=condition=Ready", "pod/asker", "--timeout=60s")
    url = f"http://fourways-gateway.{NAMESPACE}.svc/predictions/churn/01760"
    where = ("-n", NAMESPACE, "exec", "-i", "asker", "--", "python", "-c", ASK)
    process = serving.start_kubectl(*where, url, serving.gateway_token(NAMESPACE))
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    yield process
    process.kill()
    process.wait()
    serving.kubectl("-n", NAMESPACE, "delete", "pod", "asker", "--wait=false")


def test_upgrades_and_a_downgrade_under_load_fail_no_request(
    serving: Cluster, asker: subprocess.Popen[str]
) -> None:
    # The test before changed the number of replicas, and with it how pods are spread.
    status = ("rollout", "status", "deployment/fourways-gateway", "--timeout=60s")
    serving.kubectl("-n", NAMESPACE, *status)
    before = pods(serving)
    serving.install(NAMESPACE, "--set", "gateway.replicas=2")
    assert pods(serving) == before, "nothing that a pod has was changed"
    serving.install(NAMESPACE, "--set", "gateway.replicas=2", "--set", "logs.access=true")
    rolled(serving)
    assert not pods(serving) & before, "the setting restarts gateways"
    serving.helm("rollback", "fourways", "-n", NAMESPACE, "--wait", "--timeout", "3m")
    rolled(serving)
    said, _ = asker.communicate("enough\n", timeout=30)
    asked, failed = json.loads(said)
    assert failed == []
    assert asked > 100


def pods(cluster: Cluster) -> set[str]:
    """Return the pods of the gateway by uid, without those that are going."""
    found = cluster.get("-n", NAMESPACE, "pods", "-l", "fourways.dev/component=gateway")["items"]
    return {p["metadata"]["uid"] for p in found if "deletionTimestamp" not in p["metadata"]}


def rolled(cluster: Cluster) -> None:
    """Wait until the operator has read the new settings, and the gateways have them."""
    kubectl = cluster.kubectl
    kubectl("-n", NAMESPACE, "rollout", "status", "deployment/fourways-operator", "--timeout=60s")
    cluster.await_ready(NAMESPACE, *NAMES)
    wanted = cluster.get("-n", NAMESPACE, "deployment/fourways-operator")["spec"]["template"]
    env = {e["name"]: e.get("value") for e in wanted["spec"]["containers"][0]["env"]}

    def current() -> bool:
        gateway = cluster.get("-n", NAMESPACE, "deployment/fourways-gateway")
        text = json.dumps(gateway["spec"]["template"])
        return ("accessLog" in text) is (env["FOURWAYS_ACCESS_LOG"] == "true")

    until(current, "the gateways have the new settings", seconds=60)
    kubectl("-n", NAMESPACE, "rollout", "status", "deployment/fourways-gateway", "--timeout=90s")


def test_uninstall_leaves_serving_and_deployments_in_place(serving: Cluster) -> None:
    serving.helm("uninstall", "fourways", "-n", NAMESPACE, "--wait")
    names = [
        d["metadata"]["name"] for d in serving.get("-n", NAMESPACE, "modeldeployments")["items"]
    ]
    assert sorted(names) == sorted(NAMES)
    gateway = serving.get("-n", NAMESPACE, "deployment/fourways-gateway")
    assert gateway["status"]["readyReplicas"] == 2
    # With the operator gone, deleting deployments still cleans up: by garbage collection alone.
    serving.kubectl("-n", NAMESPACE, "delete", "modeldeployments", "--all", "--timeout=30s")
    serving.kubectl(
        "-n", NAMESPACE, "wait", "--for=delete", "deployment/fourways-gateway", "--timeout=30s"
    )
    serving.kubectl("delete", "namespace", NAMESPACE, "--timeout=60s")


def test_the_chart_packs_what_the_repository_holds(
    cluster_with_images: Cluster, tmp_path: Path
) -> None:
    shutil.copytree(CHART, tmp_path / "fourways")
    rendered = cluster_with_images.helm("template", "fourways", str(tmp_path / "fourways"))
    kinds = {d["kind"] for d in yaml.safe_load_all(rendered) if d}
    assert {"CustomResourceDefinition", "Role", "Deployment", "NetworkPolicy"} <= kinds
    roles = [d for d in yaml.safe_load_all(rendered) if d and d["kind"] == "Role"]
    assert all("secrets" not in rule["resources"] for role in roles for rule in role["rules"])
