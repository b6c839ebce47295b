"""The command line on a real cluster: from an empty claim to answers, and what it tells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from fourways_operator.facts import Json
from tests.kit.cluster.modes_rig import NAMESPACE, Plant, changed, example
from tests.kit.waiting import until
from tools.demo.questions import ARTIFACTS
from tools.installation import claim

pytestmark = pytest.mark.cluster

NAME, CLAIM = "by-command", "by-command-files"


def manifest() -> Json:
    """Return a batch deployment that reads files of a claim that only `fourways cp` fills."""
    made = example("churn.yaml", NAME)
    text = yaml.safe_dump(made).replace("pvc://fourways-examples/churn/", f"pvc://{CLAIM}/files/")
    document: Json = yaml.safe_load(text)
    return document


def test_a_deployment_is_brought_looked_at_and_taken_away(planted: Plant, tmp_path: Path) -> None:
    fourways, image = planted.fourways, planted.cluster.images["runtime"]
    planted.cluster.kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=claim(CLAIM, "256Mi"))
    copied = fourways("cp", str(ARTIFACTS / "churn"), f"pvc://{CLAIM}/files/", "--image", image)
    assert "copied" in copied
    assert f"namespace {NAMESPACE}" in copied
    assert (
        planted.get(
            f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=fourways.dev%2Fcomponent%3Dcopy"
        )["items"]
        == []
    )
    file = tmp_path / "m.yaml"
    file.write_text(yaml.safe_dump(manifest()))

    assert "is new" in fourways("diff", str(file), code=1)
    assert f"{NAME} created" in fourways("apply", str(file))
    assert f"{NAME} unchanged" in fourways("apply", str(file))
    assert "no difference" in fourways("diff", str(file))
    fourways("start-run", NAME)
    said = fourways("apply", str(file), "--wait", "120")
    assert f"next: fourways predict {NAME} KEY" in said

    described = json.loads(fourways("describe", NAME, "-o", "json"))
    assert described["deployment"]["metadata"]["name"] == NAME
    assert described["pods"]
    text = fourways("describe", NAME)
    assert "Answers from" in text
    happened = {each["reason"] for each in json.loads(fourways("events", NAME, "-o", "json"))}
    assert {"RunPublished", "SuccessfulCreate"} <= happened
    assert f"{NAME}-batch-" in fourways("logs", NAME)

    fourways("pause", NAME)
    cron = f"/apis/batch/v1/namespaces/{NAMESPACE}/cronjobs/{NAME}-batch"
    until(lambda: planted.get(cron)["spec"]["suspend"], "the CronJob is suspended", seconds=30)
    assert f"{NAME} unchanged" in fourways("apply", str(file)), "an apply does not resume it"
    fourways("resume", NAME)
    until(lambda: not planted.get(cron)["spec"]["suspend"], "it goes on", seconds=30)

    other = changed(manifest(), "resources.cpu", "750m")
    file.write_text(yaml.safe_dump(other))
    assert "750m" in fourways("diff", str(file), code=1)
    deleted = fourways("delete", NAME)
    assert f"fourways purge {NAMESPACE}/{NAME}" in deleted
    assert "no ModelDeployment" in fourways("describe", NAME, code=1)


def test_a_file_that_leaves_the_claim_is_refused_in_the_pod(planted: Plant) -> None:
    image = planted.cluster.images["runtime"]
    planted.cluster.kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=claim(CLAIM, "256Mi"))
    arguments = (str(ARTIFACTS / "churn" / "model.onnx"), f"pvc://{CLAIM}/../x", "--image", image)
    assert "leaves the volume" in planted.fourways("cp", *arguments, code=1)


def test_helm_s_test_passes(planted: Plant) -> None:
    said = planted.cluster.helm("test", "fourways", "-n", NAMESPACE, "--timeout", "2m")
    assert "Phase:          Succeeded" in said
