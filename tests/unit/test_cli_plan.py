"""`fourways plan`, and what the embedded host reads back out of a plan."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from fourways_api import Paths, parse
from fourways_cli.embedded import workloads
from fourways_cli.main import app
from fourways_operator import plan as planner
from fourways_operator.facts import Settings

ROOT = Path(__file__).parents[2]
CHURN = ROOT / "examples" / "churn.yaml"
SETTINGS = Settings(runtime_image="fourways-runtime:dev")


def test_plan_prints_exactly_what_the_operator_would_apply() -> None:
    document = yaml.safe_load(CHURN.read_text())
    result = CliRunner().invoke(app, ["plan", str(CHURN)])
    assert result.exit_code == 0
    wanted = [
        *planner.plan(parse(document), SETTINGS),
        *planner.plan_gateway("default", [parse(document).to_json()], SETTINGS),
    ]
    assert list(yaml.safe_load_all(result.stdout)) == wanted


def test_plan_reads_standard_input() -> None:
    result = CliRunner().invoke(app, ["plan", "-", "--no-gateway"], input=CHURN.read_text())
    kinds = [d["kind"] for d in yaml.safe_load_all(result.stdout)]
    assert kinds == ["ServiceAccount", "NetworkPolicy", "CronJob"]


@pytest.mark.parametrize("text", ["", "kind: Secret\napiVersion: v1\n", "- 1\n", "a: ["])
def test_plan_of_nothing_valid_says_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    result = CliRunner().invoke(app, ["plan", str(path)])
    assert result.exit_code == 2
    assert "x.yaml" in result.stderr


def test_plan_of_a_missing_file_says_so() -> None:
    result = CliRunner().invoke(app, ["plan", "/nowhere.yaml"])
    assert result.exit_code == 2
    assert "/nowhere.yaml" in result.stderr


def test_the_embedded_host_runs_what_a_pod_would_run() -> None:
    deployment = parse(yaml.safe_load(CHURN.read_text()))
    paths = Paths(store_uri_file="/s", volumes_root="/v", cache_dir="/c", termination_log="/t")
    objects = planner.plan(deployment, SETTINGS)
    (cron,) = workloads.cron_jobs(objects, paths)
    pod = next(o for o in objects if o["kind"] == "CronJob")["spec"]["jobTemplate"]["spec"]
    assert list(cron.args) == pod["template"]["spec"]["containers"][0]["args"]
    assert cron.config.contract == deployment.spec.contract
    assert cron.config.paths == paths
    assert (cron.name, cron.schedule, cron.time_zone) == ("churn-batch", "0 3 * * 1", "Etc/UTC")
    assert cron.terminal == {2, 3, 4, 5, 6}


def test_the_embedded_gateway_listens_on_loopback_only() -> None:
    owner = {"metadata": {"name": "churn", "uid": "u"}}
    objects = planner.plan_gateway("default", [owner], SETTINGS)
    assert workloads.gateway(objects, Paths(), 9000).url == "http://127.0.0.1:9000"
