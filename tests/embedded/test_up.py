"""`fourways up` as a user runs it: real processes, a real model, real HTTP."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import orjson
import pytest

from fourways_cli.embedded.control import ask
from fourways_cli.embedded.ports import free_port
from tests.kit.hosts import Up, await_settled, patiently
from tests.kit.waiting import until
from tools.demo.questions import ARTIFACTS, CLAIM, EXAMPLES, SHOP_SECRET, ask_all, tensor
from tools.installation import ROOT

pytestmark = [pytest.mark.embedded, pytest.mark.usefixtures("examples_complete")]


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    secrets = {SHOP_SECRET: EXAMPLES / "secrets" / SHOP_SECRET}
    with Up(tmp_path / "state", volumes={CLAIM: ARTIFACTS}, secrets=secrets) as host:
        yield host


def test_the_examples_answer_over_http(up: Up) -> None:
    up.start(*sorted(EXAMPLES.glob("*.yaml")))
    statuses = await_settled(up.state, 100)
    assert {n: c["Ready"]["status"] for n, c in statuses.items()} == dict.fromkeys(
        (
            "churn",
            "segmentation",
            "sales-forecast",
            "recommendations",
            "file-type",
            "come-back",
            "water-flow",
            "file-type-on-device",
        ),
        "True",
    ), statuses
    answers = dict(ask_all(up.url))
    assert set(answers) == {
        "churn",
        "segmentation",
        "sales-forecast",
        "recommendations",
        "file-type",
    }
    assert [o["shape"] for o in answers["recommendations"]["outputs"]] == [[3, 10]] * 3
    assert all(0 <= p <= 1 for p in answers["churn"]["outputs"][0]["data"])
    assert answers["churn"]["model_version"] == "1.0.0"
    # A customer whom the shop's database knows, and one whom it does not.
    for customer in ("01760", "never-here"):
        tensors = [
            tensor("customer_id", "BYTES", [customer]),
            tensor("basket_dollars", "FP32", [9]),
            tensor("basket_discs", "INT32", [1]),
        ]
        response = httpx.post(
            f"{up.url}/v2/models/come-back/infer", json={"inputs": tensors}, trust_env=False
        )
        assert response.status_code == 200, response.text
        answers[customer] = response.json()["outputs"][0]["data"][0]
    assert answers["01760"] > 0.9 > 0.5 > answers["never-here"]


def test_commands_answer_from_the_running_host(up: Up) -> None:
    up.start(EXAMPLES / "churn.yaml")
    await_settled(up.state)
    ((_, answer),) = ask_all(up.url, only="churn")
    key = str(answer["keys"][0])
    predicted = orjson.loads(up.fourways("predict", "churn", key, "-o", "json"))
    assert predicted[0]["outputs"]["churn_probability"] == pytest.approx(
        answer["outputs"][0]["data"][0]
    )
    (status,) = orjson.loads(up.fourways("status", "-o", "json"))["items"]
    first = status["status"]["lastPublished"]["name"]
    assert "Succeeded" in up.fourways("start-run", "churn")
    (status,) = orjson.loads(up.fourways("status", "-o", "json"))["items"]
    assert status["status"]["lastPublished"]["name"] != first


def test_a_wrong_digest_is_named_and_nothing_is_published(up: Up, tmp_path: Path) -> None:
    text = (EXAMPLES / "churn.yaml").read_text()
    digest = next(line for line in text.splitlines() if "digest: sha256:" in line)
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(text.replace(digest, digest[: digest.index("sha256:")] + "sha256:" + "0" * 64))
    up.start(wrong)
    said = await_settled(up.state)["churn"]
    assert said["Ready"]["status"] == "False"
    assert said["Degraded"]["reason"] == "DigestMismatch"
    path = f"{up.url}/predictions/churn/1"
    assert patiently(lambda: httpx.get(path, trust_env=False)).status_code == 404


def test_predictions_survive_a_killed_host_whose_children_end_with_it(up: Up) -> None:
    up.start(EXAMPLES / "churn.yaml", EXAMPLES / "water-flow.yaml")
    await_settled(up.state)
    before = dict(ask_all(up.url, only="churn"))
    children = up.children()
    up.process.send_signal(signal.SIGKILL)
    up.process.wait()

    def left() -> list[int]:
        return [pid for pid in children if Path(f"/proc/{pid}").exists()]

    until(lambda: not left(), lambda: f"the processes {left()} have ended")
    up.start(EXAMPLES / "churn.yaml", EXAMPLES / "water-flow.yaml", port=free_port())
    await_settled(up.state)
    after = dict(ask_all(up.url, only="churn"))
    assert after["churn"]["outputs"] == before["churn"]["outputs"]


def test_a_stopped_host_leaves_no_process(up: Up) -> None:
    up.start(EXAMPLES / "churn.yaml")
    await_settled(up.state)
    children = up.children()
    assert children
    up.stop()
    assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []


def test_a_second_host_on_the_same_state_is_refused(up: Up) -> None:
    up.start(EXAMPLES / "churn.yaml")
    await_settled(up.state)
    second = subprocess.run(
        [
            sys.executable,
            "-m",
            "fourways_cli",
            "up",
            str(EXAMPLES / "churn.yaml"),
            "--state",
            str(up.state),
            "--volume",
            f"{CLAIM}={ARTIFACTS}",
            "--port",
            str(free_port()),
        ],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert second.returncode == 1
    assert "another `fourways up`" in second.stderr
    assert ask(up.state, {"do": "status"})["deployments"]


def test_an_invalid_manifest_starts_nothing(tmp_path: Path) -> None:
    manifest = tmp_path / "bad.yaml"
    manifest.write_text((EXAMPLES / "churn.yaml").read_text().replace("mode: batch", "mode: btach"))
    done = subprocess.run(
        [sys.executable, "-m", "fourways_cli", "up", str(manifest), "--state", str(tmp_path / "s")],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert "spec.mode" in done.stderr
    assert not (tmp_path / "s").exists()


def test_make_demo_prints_an_answer_of_each_mode() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.demo.here"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    for said in ("churn_probability", "come_back_probability", "label strange", "label makefile"):
        assert said in done.stdout
    shutil.rmtree(ROOT / ".fourways" / "demo", ignore_errors=True)
