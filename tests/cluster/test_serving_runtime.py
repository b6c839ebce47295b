"""A deployment that a ServingRuntime of the cluster serves: KServe's controller, our gateway."""

from __future__ import annotations

import math
from collections.abc import Iterator

import httpx
import pytest
import yaml

from fourways_operator.facts import Json
from tests.kit.cluster.modes_rig import NAMESPACE, Plant, example
from tools.installation import CHART

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

SERVER = """
import http.server, json, os, signal, sys
# The first process of a container ignores SIGTERM otherwise: its pod would take 30 s to end.
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.tell(b"")
    def do_POST(self):
        self.tell(self.rfile.read(int(self.headers["content-length"])))
    def tell(self, body):
        seen = {"path": self.path, "args": sys.argv[1:], "word": os.environ.get("WORD"),
                "size": os.path.getsize("/mnt/models"), "body": body.decode()}
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(seen).encode())
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""
"""A stand-in for a server whose image cannot be had here. It says what it was started with."""


SMALL = {"cpu": "200m", "memory": "512Mi"}


def runtime(image: str) -> Json:
    probe = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {"name": "teller", "namespace": NAMESPACE},
        "spec": {
            "supportedModelFormats": [{"name": "teller", "version": "1", "autoSelect": True}],
            "protocolVersions": ["v2"],
            "containers": [
                {
                    "name": "kserve-container",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["python", "-c", SERVER],
                    "args": ["--model_name={{.Name}}"],
                    "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                    "readinessProbe": probe,
                }
            ],
        },
    }


@pytest.fixture(scope="module")
def teller(modes: Plant) -> Iterator[Plant]:
    made = yaml.safe_dump(runtime(modes.cluster.images["runtime"]))
    modes.cluster.kubectl("apply", "-f", "-", stdin=made)
    document = example("come-back.yaml", "teller")
    document["spec"]["model"] = {
        "uri": document["spec"]["model"]["uri"],
        "version": "7",
    }
    del document["spec"]["contract"]["goldenVectors"]
    document["spec"]["realtime"] = {
        "timeout": "5s",
        "runtime": {"modelFormat": "teller", "protocolVersion": "v2", "args": ["--more"]},
    }
    document["spec"]["pod"] = {"env": [{"name": "WORD", "value": "$(HOME) $$"}]}
    with modes.deployed(document) as timeline:
        modes.ready("teller")
        timeline.mark("Ready")
        yield modes
    timeline.tell()
    modes.cluster.kubectl("-n", NAMESPACE, "delete", "servingruntime", "teller")


def test_its_paths_are_passed_on(teller: Plant) -> None:
    with teller.gateway() as url:
        ask = httpx.Client(base_url=url, trust_env=False, timeout=10)
        seen = ask.post("/v2/models/teller/infer", json={"inputs": []}).json()
        assert seen["path"] == "/v2/models/teller-realtime/infer"
        assert seen["args"] == ["--model_name=teller-realtime", "--more"]
        assert (seen["word"], seen["body"]) == ("$(HOME) $$", '{"inputs":[]}')
        assert seen["size"] > 0
        seen = ask.post("/v1/models/teller:predict", json={"instances": []}).json()
        assert seen["path"] == "/v1/models/teller-realtime:predict"
        seen = ask.post("/openai/v1/completions", json={"model": "teller"}).json()
        assert seen["path"] == "/openai/v1/completions"
        assert seen["body"] == '{"model":"teller-realtime"}'


def test_its_pod_keeps_what_is_ours(teller: Plant) -> None:
    (pod,) = teller.pods("teller")
    assert pod["spec"]["serviceAccountName"] == "teller-realtime"
    assert pod["spec"]["automountServiceAccountToken"] is False
    (container,) = [c for c in pod["spec"]["containers"] if c["name"] == "kserve-container"]
    assert container["securityContext"]["allowPrivilegeEscalation"] is False


@pytest.fixture
def by_hand(modes: Plant) -> Iterator[str]:
    """An InferenceService that nobody but KServe knows, on the chart's runtime; yields its URL."""
    cluster = modes.cluster
    repository, _, tag = cluster.images["runtime"].rpartition(":")
    values = {"servingRuntime.install": "true", "runtime.image.repository": repository}
    options = [
        f"--set={name}={value}" for name, value in {**values, "runtime.image.tag": tag}.items()
    ]
    rendered = cluster.helm(
        "template", "x", str(CHART), "-s", "templates/serving-runtime.yaml", *options
    )
    service = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": "by-hand",
            "namespace": NAMESPACE,
            "annotations": {"serving.kserve.io/deploymentMode": "Standard"},
        },
        "spec": {
            "predictor": {
                "model": {
                    "modelFormat": {"name": "onnx"},
                    "runtime": "fourways",
                    "storageUri": "pvc://fourways-examples/segmentation",
                    # There is not a whole core left here.
                    "resources": dict.fromkeys(("requests", "limits"), SMALL),
                }
            }
        },
    }
    cluster.kubectl("apply", "-f", "-", stdin=rendered)
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(service))
    name = "inferenceservice/by-hand"
    try:
        cluster.kubectl("-n", NAMESPACE, "wait", "--for=condition=Ready", name, "--timeout=120s")
        with cluster.forwarded(NAMESPACE, "svc/by-hand-predictor", 80) as url:
            yield url
    finally:
        cluster.kubectl("-n", NAMESPACE, "delete", name, "--wait=false")
        cluster.kubectl("delete", "clusterservingruntime", "fourways")


def test_a_service_written_by_hand_runs_on_our_server(by_hand: str) -> None:
    ask = httpx.Client(base_url=by_hand, trust_env=False, timeout=10)
    described = ask.get("/v2/models/by-hand").json()
    own = [i for i in described["inputs"] if not (i.get("parameters") or {}).get("entity_key")]
    tensors = [
        {
            "name": each["name"],
            "datatype": each["datatype"],
            "shape": [1, *each["shape"][1:]],
            "data": [1] * math.prod(each["shape"][1:]),
        }
        for each in own
    ]
    second = ask.post("/v2/models/by-hand/infer", json={"inputs": tensors})
    assert second.status_code == 200, second.text
    rows = {"inputs": {each["name"]: [each["data"]] for each in tensors}}
    rows = {"inputs": {n: v if len(v[0]) > 1 else v[0] for n, v in rows["inputs"].items()}}
    first = ask.post("/v1/models/by-hand:predict", json=rows)
    assert first.status_code == 200, first.text
