"""`fourways plan`, and what the embedded host reads back out of a plan."""

import json
from pathlib import Path

import pytest
import yaml

from fourways_api import Paths, parse
from fourways_api.runtime_config import TERMINAL_EXIT_CODES
from fourways_cli import jobs
from fourways_cli.embedded import workloads
from fourways_cli.main import app
from fourways_operator import planning as planner
from fourways_operator.facts import OperatorSettings
from tests.kit.cli import CliRunner

ROOT = Path(__file__).parents[2]
CHURN = ROOT / "examples" / "churn.yaml"
SETTINGS = OperatorSettings(runtime_image="fourways-runtime:dev")


def test_plan_prints_exactly_what_the_operator_would_apply() -> None:
    document = yaml.safe_load(CHURN.read_text())
    result = CliRunner().invoke(app, ["plan", str(CHURN)])
    assert result.exit_code == 0
    wanted = [
        *planner.plan(parse(document), SETTINGS),
        *planner.plan_gateway("default", [parse(document).to_json()], SETTINGS),
    ]
    assert list(yaml.safe_load_all(result.stdout)) == wanted


def test_plan_is_printed_for_programs() -> None:
    def planned(output: str) -> str:
        return CliRunner().invoke(app, ["plan", str(CHURN), "-o", output]).stdout

    documents = list(yaml.safe_load_all(planned("yaml")))
    assert json.loads(planned("json")) == {"apiVersion": "v1", "kind": "List", "items": documents}
    names = planned("name").split()
    assert len(names) == len(documents)
    assert "cronjob/churn-batch" in names


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


@pytest.mark.parametrize("own", ["fourways-store", "team-store"])
def test_plan_refuses_the_store_s_own_secret_as_the_operator_does(own: str, tmp_path: Path) -> None:
    document = yaml.safe_load(CHURN.read_text())
    document["spec"]["batch"]["source"] = {
        "query": {"database": {"secretName": own}, "sql": "SELECT 1"}
    }
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(document))
    command = ["plan", str(path), "--no-gateway", "--store-secret"]
    refused = CliRunner().invoke(app, [*command, own])
    assert refused.exit_code == 2
    assert f"{own} is the Secret of the prediction store" in refused.stderr
    assert "spec.batch.source.query.database.secretName" in refused.stderr
    assert CliRunner().invoke(app, [*command, "another"]).exit_code == 0


def test_plan_of_a_missing_file_says_so() -> None:
    result = CliRunner().invoke(app, ["plan", "/nowhere.yaml"])
    assert result.exit_code == 2
    assert "/nowhere.yaml" in result.stderr


def test_the_embedded_host_runs_what_a_pod_would_run() -> None:
    deployment = parse(yaml.safe_load(CHURN.read_text()))
    paths = Paths(store_uri_file="/s", volumes_root="/v", cache_dir="/c", termination_log="/t")
    objects = planner.plan(deployment, SETTINGS)
    (cron,) = workloads.cron_jobs(objects)
    assert (cron.name, cron.schedule, cron.time_zone) == ("churn-batch", "0 3 * * 1", "Etc/UTC")
    pod = next(o for o in objects if o["kind"] == "CronJob")["spec"]["jobTemplate"]["spec"]
    job = workloads.batch_job(jobs.run_job(cron.planned), "churn-batch-1", paths)
    assert list(job.args) == pod["template"]["spec"]["containers"][0]["args"]
    assert job.config.contract == deployment.spec.contract
    assert job.config.paths == paths
    assert (job.name, job.workers, job.backoff_limit, job.run) == ("churn-batch-1", 1, 3, None)
    assert job.terminal == set(TERMINAL_EXIT_CODES)


def test_the_embedded_gateway_listens_on_loopback_only() -> None:
    owner = {"metadata": {"name": "churn", "uid": "u"}}
    objects = planner.plan_gateway("default", [owner], SETTINGS)
    assert workloads.gateway(objects, Paths(), 9000).url == "http://127.0.0.1:9000"


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("realtime", "InferenceService"), ("streaming", "Deployment"), ("edge", "Job")],
)
def test_plan_shows_every_mode_and_its_route(mode: str, kind: str) -> None:
    manifest = ROOT / "tests" / "golden" / "plan" / f"{mode}.in.yaml"
    result = CliRunner().invoke(app, ["plan", str(manifest)])
    assert result.exit_code == 0, result.stderr
    objects = list(yaml.safe_load_all(result.stdout))
    assert kind in {o["kind"] for o in objects if "gateway" not in o["metadata"]["name"]}
    (route,) = workloads.gateway(objects[-4:], Paths(), 9000).config.routes
    assert route.mode == mode
