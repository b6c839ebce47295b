"""The real-time mode on a cluster: KServe's own controller, our model server, a real database."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import numpy as np
import pytest
import yaml
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

from fourways_api.audience import EVERY_DEPLOYMENT
from fourways_operator.facts import Json
from tests.kit import parity
from tests.kit.cluster.modes_rig import (
    NAMESPACE,
    TRUNCATED,
    Plant,
    Timeline,
    changed,
    example,
)
from tests.kit.cluster.told import tell
from tests.kit.waiting import until
from tools import brokers
from tools.demo.questions import ARTIFACTS, ask_realtime, tensor
from tools.installation import Cluster

triton = pytest.importorskip("tritonclient.http")

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

GROUP = "/apis/serving.kserve.io/v1beta1"
BARE = "bare"
TRIES = 3
NOISE_SECONDS = 2.0
"""Between the quickest of three, on two cores that also run the cluster."""

NO_DIGEST = "sha256:" + "0" * 64


def come_back(name: str | None = None) -> Json:
    return example("come-back.yaml", name)


@pytest.fixture(scope="module")
def served(modes: Plant) -> Iterator[Plant]:
    """come-back, Ready."""
    with modes.deployed(come_back()) as timeline:
        modes.ready("come-back")
        timeline.mark("Ready")
        with modes.gateway() as url:
            answer = httpx.get(f"{url}/v2/models/come-back/ready", trust_env=False, timeout=30)
        assert answer.is_success, "Ready is what the gateway reaches"
        yield modes
    timeline.tell()


@contextmanager
def straight(plant: Plant) -> Iterator[str]:
    """Forward KServe's Service; yields HOST:PORT."""
    service = "svc/come-back-realtime-predictor"
    with plant.cluster.forwarded(NAMESPACE, service, 80) as url:
        yield url.removeprefix("http://")


# ---------------------------------------------------------------- answers


def test_the_gateway_answers_with_features_of_the_database(served: Plant) -> None:
    with served.gateway() as url:
        answered = ask_realtime(url)
        assert answered.answer.startswith("come_back_probability 0.")
        nobody = [
            tensor("customer_id", "BYTES", ["no-such-customer"]),
            tensor("basket_dollars", "FP32", [24.5]),
            tensor("basket_discs", "INT32", [2]),
        ]
        answer = httpx.post(
            f"{url}/v2/models/come-back/infer", json={"inputs": nobody}, trust_env=False
        )
        # A stranger is one who never bought anything: the spec says what is known of those.
        assert answer.status_code == 200, answer.text
        refused = httpx.post(
            f"{url}/v2/models/come-back/infer",
            trust_env=False,
            json={"inputs": [*nobody[:2], tensor("basket_discs", "INT32", [0])]},
        )
        assert refused.status_code == 400
        assert "basket_discs" in refused.json()["error"]


def golden() -> tuple[list[Json], list[float]]:
    lines = (ARTIFACTS / "come-back" / "golden.jsonl").read_text("utf-8").splitlines()
    vectors = [json.loads(line) for line in lines]
    return (
        [v["inputs"] for v in vectors],
        [v["outputs"]["come_back_probability"] for v in vectors],
    )


def columns() -> dict[str, tuple[str, np.ndarray]]:
    """The golden vectors' inputs, a column an input; what is null is NaN on the wire."""
    inputs, _ = golden()
    kinds = {"float32": ("FP32", np.float32), "int32": ("INT32", np.int32)}
    found = {}
    for field in come_back()["spec"]["contract"]["inputs"]:
        datatype, kind = kinds[field["type"]]
        values = [np.nan if row[field["name"]] is None else row[field["name"]] for row in inputs]
        found[field["name"]] = (datatype, np.array(values, kind))
    return found


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_tritons_client_asks_the_service(served: Plant, binary: bool) -> None:
    given = []
    # JSON has no NaN: who has no last visit is told in binary only.
    rows = np.ones(len(golden()[1]), bool)
    if not binary:
        rows = ~np.any([np.isnan(values) for _, values in columns().values()], axis=0)
    for name, (datatype, values) in columns().items():
        given.append(triton.InferInput(name, [int(rows.sum())], datatype))
        given[-1].set_data_from_numpy(values[rows], binary_data=binary)
    asked = [triton.InferRequestedOutput("come_back_probability", binary_data=binary)]
    with straight(served) as address, triton.InferenceServerClient(address) as client:
        assert client.is_model_ready("come-back", "1.0.0")
        answer = client.infer("come-back", given, outputs=asked)
    wanted = np.array(golden()[1])[rows]
    np.testing.assert_allclose(answer.as_numpy("come_back_probability"), wanted, atol=1e-4)


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
async def test_kserves_client_asks_the_service(served: Plant, binary: bool) -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    given = []
    for name, datatype, value in (
        ("customer_id", "BYTES", np.array([b"01760"], object)),
        ("basket_dollars", "FP32", np.array([24.5], np.float32)),
        ("basket_discs", "INT32", np.array([2], np.int32)),
    ):
        given.append(InferInput(name, [1], datatype))
        given[-1].set_data_from_numpy(value, binary_data=binary)
    request = InferRequest("come-back", given, parameters={"binary_data_output": binary})
    try:
        with straight(served) as address:
            assert await client.is_model_ready(f"http://{address}", "come-back")
            answer = await client.infer(f"http://{address}", request, model_name="come-back")
    finally:
        await client.close()
    assert 0 < answer.outputs[0].as_numpy()[0] < 1


# ---------------------------------------------------------------- a broken new version

ASK = """
import json, select, sys, time, urllib.error, urllib.request
url, last, body = sys.argv[1], sys.argv[2], sys.stdin.buffer.readline()
versions, failed, version, end = {}, [], None, None
# Until standard input is closed, and the last version answers.
while end is None or version != last and time.monotonic() < end:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=10) as answer:
            version = json.load(answer)["model_version"]
            versions[version] = versions.get(version, 0) + 1
    except urllib.error.HTTPError as error:
        failed.append([error.code, str(error.headers), error.read(500).decode()])
    except Exception as error:
        failed.append(repr(error))
    if select.select([sys.stdin], [], [], 0.01)[0]:
        end = end or time.monotonic() + 20
print(json.dumps({"versions": versions, "failed": failed}))
"""


def test_a_broken_new_version_leaves_the_old_one_serving(served: Plant, messaging: Cluster) -> None:
    asker = asking(served.cluster, "3")
    try:
        served.apply(changed(changed(come_back(), "model.version", "2"), "model.digest", NO_DIGEST))
        served.said("come-back", "Degraded", reason="DigestMismatch")
        assert "version 1.0.0 serves predictions" in served.message("come-back", "Degraded")
        assert "version 1.0.0 serves predictions" in served.message("come-back", "Ready")
        served.apply(changed(come_back(), "model.version", "3"))
        served.said("come-back", "Progressing", 60, status="False", reason="Idle")
        served.said("come-back", "Degraded", status="False")
        assert served.ready("come-back")["model"]["version"] == "3"
        output, _ = asker.communicate(timeout=30)
    finally:
        asker.kill()
    told = json.loads(output)
    tell(f"asked without a pause during two edits: {told}")
    # Its features are another service, which a busy machine may keep waiting.
    failed = [each for each in told["failed"] if "x-fourways-fault: features" not in str(each)]
    assert failed == []
    assert set(told["versions"]) == {"1.0.0", "3"}


def asking(cluster: Cluster, last: str) -> subprocess.Popen[str]:
    """Ask the gateway from inside the cluster, until told to stop and a last version answers."""
    url = f"http://fourways-gateway.{NAMESPACE}.svc/v2/models/come-back/infer"
    question = {
        "inputs": [
            tensor("customer_id", "BYTES", ["01760"]),
            tensor("basket_dollars", "FP32", [24.5]),
            tensor("basket_discs", "INT32", [2]),
        ]
    }
    process = cluster.start_kubectl(
        "-n",
        brokers.NAMESPACE,
        "exec",
        "-i",
        brokers.CLIENT,
        "--",
        "python",
        "-c",
        ASK,
        url,
        last,
    )
    assert process.stdin is not None
    process.stdin.write(f"{json.dumps(question)}\n")
    process.stdin.flush()
    return process


# ---------------------------------------------------------------- what may be wrong

CHURN = parity.documents()["realtime"]
RENAMED = [
    {**field, "name": "order_count"} if field["name"] == "orders" else field
    for field in CHURN["spec"]["contract"]["inputs"]
]

WRONG = {
    "digest": (changed(CHURN, "model.digest", NO_DIGEST), "DigestMismatch", "sha256:0000"),
    "truncated": (
        changed(changed(CHURN, "model.uri", TRUNCATED), "model.digest", None),
        "ModelNotLoadable",
        "truncated",
    ),
    "input": (changed(CHURN, "contract.inputs", RENAMED), "ContractMismatch", "order_count"),
    "secret": (
        changed(come_back(), "realtime.features.database.secretName", "no-such-secret"),
        "ConfigError",
        "no-such-secret",
    ),
    "database": (
        changed(come_back(), "realtime.features.database.secretName", "elsewhere"),
        "FeaturesUnavailable",
        "no-such-database",
    ),
    "table": (
        changed(come_back(), "realtime.features.table", "no_such_table"),
        "FeaturesMismatch",
        "no_such_table",
    ),
    "model": (
        changed(CHURN, "model.uri", "pvc://fourways-examples/churn/none.onnx"),
        "SourceError",
        "churn/none.onnx",
    ),
    "memory": (changed(CHURN, "resources.memory", "24Mi"), "OOMKilled", "resources.memory"),
    "room": (changed(CHURN, "resources.cpu", "64"), "Unschedulable", "cpu"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_named(modes: Plant, wrong: str) -> None:
    document, reason, words = WRONG[wrong]
    uri = "postgresql://u:p@no-such-database:5432/shop"
    modes.cluster.give_secret(NAMESPACE, "elsewhere", {"uri": uri}, EVERY_DEPLOYMENT)
    name = f"wrong-{wrong}"
    document = {**document, "metadata": {"name": name}}
    with modes.deployed(document) as timeline:
        modes.said(name, "Degraded", status="True", reason=reason)
        timeline.mark(f"{reason} said after")
        said = modes.message(name, "Degraded")
        assert words in said
        assert "p@" not in said
        modes.said(name, "Ready", 5, status="False", reason=reason)
    timeline.tell()


# ---------------------------------------------------------------- how long it takes


# It measures. That a deployment becomes Ready, and what takes long, is held by the tests above.
@pytest.mark.long
def test_we_are_as_quick_as_a_bare_inference_service(modes: Plant) -> None:
    ours, bare = [], []
    for _ in range(TRIES):
        with modes.deployed(come_back("timed")) as timeline:
            until_ready(modes, "timed-realtime")
            ours.append(timeline.mark("ours"))
            live = modes.get(path("timed-realtime"))
        bare.append(bare_seconds(modes, live["spec"]["predictor"]))
    one, other = statistics.median(ours), statistics.median(bare)
    told = ", ".join(f"{s:.1f}" for s in ours), ", ".join(f"{s:.1f}" for s in bare)
    tell(
        f"apply -> InferenceService Ready: ours {one:.1f} s ({told[0]}), "
        f"the same container by kubectl alone {other:.1f} s ({told[1]})"
    )
    assert min(ours) <= min(bare) + 1 + NOISE_SECONDS


def bare_seconds(plant: Plant, predictor: Json) -> float:
    """Apply an InferenceService with the same container, without us; return what it took."""
    own = {k: v for k, v in predictor.items() if k not in ("labels", "serviceAccountName")}
    document = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": BARE,
            "annotations": {
                "serving.kserve.io/deploymentMode": "Standard",
                "serving.kserve.io/autoscalerClass": "none",
            },
        },
        "spec": {"predictor": own},
    }
    timeline = Timeline(BARE)
    kubectl = plant.cluster.kubectl
    kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=yaml.safe_dump(document))
    try:
        until_ready(plant, BARE)
        return timeline.mark("ready")
    finally:
        kubectl("-n", NAMESPACE, "delete", "inferenceservice", BARE, "--wait=false")
        selector = f"labelSelector=serving.kserve.io/inferenceservice%3D{BARE}"
        pods = f"/api/v1/namespaces/{NAMESPACE}/pods?{selector}"
        until(lambda: not plant.get(pods)["items"], "the bare pods are gone", seconds=60)


def until_ready(plant: Plant, name: str) -> None:
    def ready() -> bool:
        items = plant.get(f"{GROUP}/namespaces/{NAMESPACE}/inferenceservices")["items"]
        found = [i for i in items if i["metadata"]["name"] == name]
        conditions = found[0].get("status", {}).get("conditions", []) if found else []
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    until(ready, f"InferenceService {name} is Ready", seconds=90)


def path(name: str) -> str:
    return f"{GROUP}/namespaces/{NAMESPACE}/inferenceservices/{name}"
