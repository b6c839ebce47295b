"""From the build to a device that answers: end to end, offline, and while it is being updated."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from onnx import helper

from fourways_agent import Device
from fourways_agent.check import boot
from fourways_agent.errors import BundleRefused, ModelUnusable, NoModel
from fourways_agent.state import DeviceSettings, Store
from fourways_agent.update import update
from fourways_cli.embedded.ports import free_port
from fourways_runtime.grpc_v2.messages import SERVICE, message
from fourways_runtime.scoring.single import RecordRefused
from tests.kit import foreign_clients
from tests.kit.edge_plane import ROOMY, key_pair, public_half
from tests.kit.edge_rig import (
    RECORD,
    Gateway,
    Publisher,
    cut_off,
    device,
    gateway_of,
    golden,
    model,
)
from tests.kit.serving_plane import NO_TLS, tensor
from tools.kit.models import FLOAT, onnx_bytes

pytestmark = pytest.mark.embedded

TENSORS = [
    tensor("age", "INT32", [30]),
    tensor("spend", "FP32", [2]),
    tensor("rate", "FP32", [1]),
]


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path)


@pytest.fixture
def gateway(publisher: Publisher) -> Iterator[Gateway]:
    with gateway_of(publisher) as it:
        yield it


def agent(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fourways_agent", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **more,
    )


def told(settings: DeviceSettings, store: Store) -> list[str]:
    return [
        "--state",
        str(store.folder),
        "--gateway",
        settings.gateway,
        "--deployment",
        settings.deployment,
        "--target",
        settings.target,
        "--key",
        settings.key,
    ]


def test_commands_of_a_device(tmp_path: Path, publisher: Publisher, gateway: Gateway) -> None:
    store, settings = device(tmp_path, gateway)
    none = agent("predict", "--state", str(store.folder), "-", input="{}")
    assert (none.returncode, "no model on this device" in none.stderr) == (4, True)
    digest = publisher.publish(1)
    first = agent("update", *told(settings, store))
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout) == {"updated": True, "digest": digest}
    again = agent("update", "--state", str(store.folder))
    assert json.loads(again.stdout) == {"updated": False, "digest": digest}
    gateway.close()  # offline from here on
    status = json.loads(agent("status", "--state", str(store.folder)).stdout)
    assert (status["digest"], status["version"], status["confirmed"]) == (digest, "v1", True)
    lines = [
        "\ufeff" + json.dumps(RECORD),
        json.dumps(RECORD | {"age": 300}),
        '{"age": NaN}',
        "[1]",
    ]
    records = "\n".join([*lines, json.dumps(RECORD)])
    answers = agent("predict", "--state", str(store.folder), "-", input=records)
    assert [json.loads(line) for line in answers.stdout.splitlines()] == [
        {"score": 30.0},
        {"error": "age: 300 is above 120", "field": "age"},
        {
            "error": "record: it is not JSON: unexpected character, expected a JSON value",
            "field": "record",
        },
        {"error": "record: it is not a JSON object", "field": "record"},
        {"score": 30.0},
    ]
    assert answers.returncode == 1
    away = agent("update", "--state", str(store.folder))
    assert (away.returncode, "cannot be reached" in away.stderr) == (75, True)


def test_a_device_in_this_process_follows_updates(
    tmp_path: Path, publisher: Publisher, gateway: Gateway
) -> None:
    store, settings = device(tmp_path, gateway)
    with pytest.raises(NoModel):
        Device(store.folder)
    publisher.publish(1)
    assert update(store, settings).changed
    assert not store.read().confirmed
    ours = Device(store.folder)
    assert store.read().confirmed, "it has answered"
    assert (ours.version, ours.predict(RECORD)) == ("v1", {"score": 30.0})
    assert ours.predict(RECORD | {"id": "c-1"}) == {"score": 30.0}
    with pytest.raises(RecordRefused, match="rate: missing: the contract"):
        ours.predict({"age": 1, "spend": 1})
    with pytest.raises(RecordRefused, match="colour: is not an input"):
        ours.predict(RECORD | {"colour": 1})
    publisher.publish(2)
    update(store, settings)
    assert ours.predict(RECORD) == {"score": 60.0}
    assert ours.version == "v2"


def test_an_older_release_is_refused_and_a_rollback_is_a_new_release(
    tmp_path: Path, publisher: Publisher, gateway: Gateway
) -> None:
    store, settings = device(tmp_path, gateway)
    publisher.publish(1)
    older = {
        str(file.relative_to(publisher.folder)): file.read_bytes()
        for file in publisher.folder.rglob("*")
        if file.is_file()
    }
    publisher.publish(2)
    update(store, settings)
    boot(store.folder)
    gateway.lies = dict(older)  # the whole of an old bundle, genuinely signed
    with pytest.raises(BundleRefused, match="is older than release"):
        update(store, settings)
    gateway.lies.clear()
    publisher.publish(1)
    assert update(store, settings).version == "v1"


def test_a_model_that_crashes_or_errs_here_is_given_up_and_never_fetched_again(
    tmp_path: Path, publisher: Publisher, gateway: Gateway
) -> None:
    store, settings = device(tmp_path, gateway)
    publisher.publish(1)
    update(store, settings)
    ours = Device(store.folder)
    # Genuine, but this device answers otherwise than the build did.
    wrong = golden(3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fourways_runtime.workloads.prepare.check_vectors", lambda *arguments: None)
        digest = publisher.publish(2, golden=wrong)
    with pytest.raises(ModelUnusable, match=r"0\.0000 of 2 golden vectors agree on this device"):
        update(store, settings)
    assert [it.digest for it in store.read().bad] == [digest]
    assert ours.predict(RECORD) == {"score": 30.0}
    gateway.asked.clear()
    with pytest.raises(ModelUnusable, match="does not work on this device"):
        update(store, settings)
    assert [path.rpartition("/")[2] for path, _ in gateway.asked] == ["index.json"]
    publisher.publish(4)
    assert update(store, settings).changed


@contextmanager
def running(
    store: Store, settings: DeviceSettings, every: str = "1s", *more: str
) -> Iterator[tuple[str, Any]]:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "fourways_agent",
            "run",
            *told(settings, store),
            "--port",
            "0",
            "--every",
            every,
            *more,
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield until(process, "listening"), process
    finally:
        process.kill()
        process.communicate()


def until(process: subprocess.Popen[str], message: str) -> str:
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        found = json.loads(line)
        if found["message"] == message:
            return f"http://127.0.0.1:{found.get('port')}"
    raise AssertionError(seen)


def test_the_agent_answers_v2_and_takes_a_new_model_over_without_a_gap(
    tmp_path: Path, publisher: Publisher, gateway: Gateway
) -> None:
    store, settings = device(tmp_path, gateway)
    with (
        running(store, settings) as (url, process),
        httpx.Client(base_url=url, verify=NO_TLS) as client,
    ):
        assert client.get("/v2/health/live").status_code == 200
        assert client.get("/v2/health/ready").status_code == 503
        publisher.publish(1)
        until(process, "serving")
        answer = client.post("/v2/models/churn/infer", json={"inputs": TENSORS}).json()
        assert answer["model_version"] == "v1"
        assert answer["outputs"][0]["data"] == [30.0]
        bad = client.post(
            "/v2/models/churn/infer", json={"inputs": [tensor("age", "INT32", [500]), *TENSORS[1:]]}
        )
        assert (bad.status_code, bad.json()["field"]) == (400, "age")
        done, faults, seen = threading.Event(), [], set()

        def ask() -> None:
            with httpx.Client(base_url=url, verify=NO_TLS) as mine:
                while not done.is_set():
                    try:
                        got = mine.post("/v2/models/churn/infer", json={"inputs": TENSORS})
                        value = got.json()["outputs"][0]["data"][0]
                        seen.add((got.json()["model_version"], value))
                    except (httpx.HTTPError, KeyError) as error:
                        faults.append(repr(error))
                        return

        clients = [threading.Thread(target=ask) for _ in range(2)]
        for it in clients:
            it.start()
        publisher.publish(2)
        until(process, "serving")
        answer = client.post("/v2/models/churn/infer", json={"inputs": TENSORS}).json()
        done.set()
        for it in clients:
            it.join(60)
        assert not faults
        assert seen <= {("v1", 30.0), ("v2", 60.0)}
        assert answer["outputs"][0]["data"] == [60.0]
        assert "fourways_http_requests_total" in client.get("/metrics").text
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert store.read().confirmed


def test_the_agent_answers_over_grpc_what_it_answers_over_http(
    tmp_path: Path, publisher: Publisher, gateway: Gateway
) -> None:
    publisher.publish(3)
    store, settings = device(tmp_path, gateway)
    port = free_port()
    ages = np.array([30, 31, 119], "<i4")
    with (
        running(store, settings, "1s", "--grpc-port", str(port)) as (url, process),
        httpx.Client(base_url=url, verify=NO_TLS) as client,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        until(process, "serving")
        rest = [tensor(name, "FP32", [2, 1, 0.1]) for name in ("spend", "rate")]
        told = [tensor("age", "INT32", ages.tolist()), *rest]
        over_http = client.post("/v2/models/churn/infer", json={"inputs": told}).json()
        request = message("ModelInferRequest")(
            model_name="churn",
            inputs=[{k: v for k, v in one.items() if k != "data"} for one in told],
            raw_input_contents=[
                ages.tobytes(),
                *(np.array(one["data"], "<f4").tobytes() for one in rest),
            ],
        )
        call = channel.unary_unary(
            f"/{SERVICE}/ModelInfer",
            request_serializer=message("ModelInferRequest").SerializeToString,
            response_deserializer=message("ModelInferResponse").FromString,
        )
        answer = call(request, timeout=30)
        assert answer.model_version == over_http["model_version"] == "v3"
        found = np.frombuffer(answer.raw_output_contents[0], "<f4")
        wanted = np.float32(over_http["outputs"][0]["data"])
        assert found.tobytes() == wanted.tobytes() == np.float32(3 * ages).tobytes()
        request.raw_input_contents[0] = np.array([30, 500, 1], "<i4").tobytes()
        with pytest.raises(grpc.RpcError, match="500"):
            call(request, timeout=30)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_foreign_clients_are_answered_by_the_agent(
    tmp_path: Path, publisher: Publisher, gateway: Gateway
) -> None:
    publisher.publish(3)
    store, settings = device(tmp_path, gateway)
    port = free_port()
    with running(store, settings, "1s", "--grpc-port", str(port)) as (url, process):
        until(process, "serving")
        http = url.removeprefix("http://")
        for client in foreign_clients.CLIENTS:
            question = ("churn", TENSORS)
            (row,) = foreign_clients.answers_of(client, http, f"127.0.0.1:{port}", [question])
            assert row == {"score": 90.0}, client
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


FEATURES = {
    "features": {
        "database": {"secretName": "features"},
        "table": "customers",
        "inputs": ["spend", "rate"],
        "defaults": [{"name": "rate", "number": 5}],
    }
}


def test_missing_inputs_come_from_the_gateway_and_offline_from_what_it_last_said(
    tmp_path: Path, publisher: Publisher, gateway: Gateway
) -> None:
    # The answer shows which values the model was given.
    raw = onnx_bytes(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [("x", FLOAT, ["N", 3])],
        [("y", FLOAT, ["N", 1])],
        [("w", np.array([[1], [100], [10000]], np.float32))],
    )
    vectors = [{"inputs": RECORD, "outputs": {"score": 10230.0}}]
    publisher.publish(1, raw=raw, golden=vectors, edge=_edge(FEATURES))
    told = publisher.blob(publisher.digests()["features.json"]).read_text()
    assert json.loads(told) == {
        "inputs": ["spend", "rate"],
        "defaults": [{"name": "rate", "number": 5}],
    }, "the database stays behind"
    store, settings = device(tmp_path, gateway)
    update(store, settings)
    gateway.features["c 1/x"] = {"spend": 3, "rate": 2}
    ours = Device(store.folder)
    assert ours.predict({"id": "c 1/x", "age": 30}) == {"score": 20330.0}
    assert ours.predict({"id": "c 1/x", "age": 30, "spend": 4}) == {"score": 20430.0}
    with pytest.raises(RecordRefused, match="spend: missing: the contract"):
        ours.predict({"id": "nobody", "age": 30})
    for record in ([["id", "age"]], None, "id"):
        with pytest.raises(RecordRefused, match="record: must be a mapping"):
            ours.predict(record)  # type: ignore[arg-type]
    with running(store, settings, every="60s") as (url, process):
        until(process, "serving")
        gateway.close()
        body = {"inputs": [tensor("id", "BYTES", ["c 1/x"]), TENSORS[0]]}
        answer = httpx.post(f"{url}/v2/models/churn/infer", json=body, verify=NO_TLS)
        assert answer.json()["outputs"][0]["data"] == [20330.0]
    assert ours.predict({"id": "c 1/x", "age": 30}) == {"score": 20330.0}
    assert Device(store.folder).predict({"id": "new", "age": 30, "spend": 1}) == {"score": 50130.0}


def _edge(more: dict[str, Any]) -> dict[str, Any]:
    return {
        "targets": [{"name": "door", "budget": ROOMY}],
        "signing": {"secretName": "device-key"},
        "publish": "pvc://out/bundles",
    } | more


def test_a_full_disk_leaves_the_old_model_answering(
    tmp_path: Path, publisher: Publisher, gateway: Gateway
) -> None:
    store, settings = device(tmp_path, gateway)
    publisher.publish(1)
    update(store, settings)
    ours = Device(store.folder)
    publisher.publish(2, raw=model(2, 2**21))
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2**19, 2**19));"
        "from fourways_agent.main import main; sys.exit(main())"
    )
    full = subprocess.run(
        [sys.executable, "-c", limited, "update", "--state", str(store.folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert (full.returncode, "file too large" in full.stderr) == (75, True), full.stderr
    assert not (store.folder / "slots" / store.read().inactive()).exists(), "no half bundle is left"
    assert ours.predict(RECORD) == {"score": 30.0}
    assert Device(store.folder).predict(RECORD) == {"score": 30.0}
    assert update(store, settings).changed
    assert ours.predict(RECORD) == {"score": 60.0}


def test_a_download_that_broke_off_is_continued(
    tmp_path: Path, publisher: Publisher, gateway: Gateway
) -> None:
    store, settings = device(tmp_path, gateway)
    publisher.publish(1, raw=model(1, 2**20))
    name = "blobs/" + publisher.digests()["model.onnx"].replace(":", "/")
    raw = (publisher.folder / name).read_bytes()
    gateway.lies[name] = cut_off(raw)
    with suppress(Exception):
        update(store, settings)
    gateway.lies.clear()
    gateway.asked.clear()
    assert update(store, settings).changed
    ranges = [asked for path, asked in gateway.asked if path.endswith(name)]
    assert ranges == [f"bytes={len(raw) // 2}-"]


def test_a_key_that_is_not_ours_signs_nothing_for_us(
    tmp_path: Path, publisher: Publisher, gateway: Gateway
) -> None:
    store, settings = device(tmp_path, gateway)
    publisher.publish(1)
    other = subprocess.run(
        ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout"],
        check=True,
        capture_output=True,
    ).stdout
    Path(settings.key).write_bytes(public_half(other))
    gateway.asked.clear()
    with pytest.raises(
        BundleRefused, match="signature was not made with a key that this device trusts"
    ):
        update(store, settings)
    model_blob = publisher.digests()["model.onnx"].partition(":")[2]
    assert not any(model_blob in path for path, _ in gateway.asked), "not even fetched"
    Path(settings.key).write_bytes(key_pair()[1])
    assert update(store, settings).changed
