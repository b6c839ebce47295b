"""One model through all four modes under `fourways up`: the golden vectors come out equal."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

from fourways import Client, Prediction
from fourways_cli.embedded.ports import free_port
from tests.kit import foreign_clients, parity
from tests.kit.hosts import Up, await_settled, patiently
from tools.demo.device import Device
from tools.demo.questions import ARTIFACTS, CLAIM

pytestmark = pytest.mark.embedded

GRPC_PORT = free_port()


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, examples_complete: None) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("parity")
    manifest = folder / "all.yaml"
    manifest.write_text(yaml.safe_dump_all(parity.documents().values()))
    with Up(folder / "state", volumes={CLAIM: ARTIFACTS}) as host:
        host.start(manifest, grpc_port=GRPC_PORT)
        said = await_settled(host.state, 100)
        assert {n: c["Ready"]["status"] for n, c in said.items()} == dict.fromkeys(
            (f"parity-{mode}" for mode in parity.MODES), "True"
        ), said
        yield host


@pytest.fixture
def client(up: Up) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=up.url, timeout=30, trust_env=False) as client:
        yield client


def asked(client: httpx.Client, method: str, path: str, **options: Any) -> httpx.Response:
    return patiently(lambda: client.request(method, path, **options))


def test_batch(client: httpx.Client) -> None:
    answers = {}
    for key in parity.vectors():
        answer = asked(client, "GET", f"/predictions/parity-batch/{key}")
        assert answer.status_code == 200, answer.text
        answers[key] = answer.json()["outputs"]
    assert parity.disagreements(answers) == []


def test_realtime(client: httpx.Client) -> None:
    answers = {}
    for key, vector in parity.vectors().items():
        question = parity.question(key, vector["inputs"])
        answer = asked(client, "POST", "/v2/models/parity-realtime/infer", json=question)
        assert answer.status_code == 200, answer.text
        answers[key] = parity.row(answer.json())
    assert parity.disagreements(answers) == []


def test_streaming(client: httpx.Client) -> None:
    places = {}
    for key, vector in parity.vectors().items():
        question = parity.question(key, vector["inputs"])
        taken = asked(client, "POST", "/v2/models/parity-streaming/infer", json=question)
        assert taken.status_code == 202, taken.text
        places[key] = taken.headers["location"]
        assert places[key].startswith(f"/predictions/parity-streaming/{key}?question=")
    answers = {}
    for key, place in places.items():
        answer = asked(client, "GET", place, headers={"Prefer": "wait=20"})
        assert answer.status_code == 200, answer.text
        answers[key] = answer.json()["outputs"]
    assert parity.disagreements(answers) == []


def question_of(mode: str) -> foreign_clients.Question:
    """The first golden vector, as a mode is asked for it."""
    key = "golden-00"
    inputs = parity.question(key, parity.vectors()[key]["inputs"])["inputs"]
    return f"parity-{mode}", inputs[:1] if mode == "batch" else inputs


@pytest.mark.parametrize("mode", ["batch", "realtime", "streaming"])
def test_version_1_answers_as_version_2(client: httpx.Client, mode: str) -> None:
    """After the streaming test above, which has its answers stored."""
    name, inputs = question_of(mode)
    expected = parity.row(
        asked(client, "POST", f"/v2/models/{name}/infer", json={"inputs": inputs}).json()
    )
    instance = {one["name"]: one["data"][0] for one in inputs}
    answer = asked(client, "POST", f"/v1/models/{name}:predict", json={"instances": [instance]})
    (prediction,) = answer.json()["predictions"]
    assert prediction == (expected if len(expected) > 1 else next(iter(expected.values())))


@pytest.mark.parametrize("foreign", foreign_clients.CLIENTS)
def test_foreign_clients_are_answered_in_every_mode(
    up: Up, client: httpx.Client, foreign: str
) -> None:
    """After the streaming test above, which has its answers stored."""
    questions, expected = [], []
    for mode in ("batch", "realtime", "streaming"):
        name, inputs = question_of(mode)
        questions.append((name, inputs))
        answer = asked(client, "POST", f"/v2/models/{name}/infer", json={"inputs": inputs})
        expected.append(parity.row(answer.json()))
    http = up.url.removeprefix("http://")
    rows = foreign_clients.answers_of(foreign, http, f"127.0.0.1:{GRPC_PORT}", questions)
    for (name, _), row, wanted in zip(questions, rows, expected, strict=True):
        assert row.keys() == wanted.keys(), name
        for output, value in wanted.items():
            found = row[output] if isinstance(value, str) else np.float32(row[output])
            assert found == (value if isinstance(value, str) else np.float32(value)), name


def test_the_python_client_in_every_mode(up: Up) -> None:
    """Its own keys for the stream, so that nothing is stored for them."""
    name = "parity-streaming"
    with Client(up.url) as client:
        stored = client.predict_many("parity-batch", keys=list(parity.vectors()))
        scored = client.predict_many(
            "parity-realtime", [v["inputs"] for v in parity.vectors().values()]
        )
        events = {
            key: client.submit(name, vector["inputs"], key=f"client-{key}")
            for key, vector in parity.vectors().items()
        }
        streamed = {
            key: event if isinstance(event, Prediction) else client.wait(event, 20)
            for key, event in events.items()
        }
    found = {key: dict(one.outputs) for key, one in streamed.items()}
    assert parity.disagreements(found) == []
    for answers in (stored, scored):
        by_key = dict(zip(parity.vectors(), (dict(one.outputs) for one in answers), strict=True))
        assert parity.disagreements(by_key) == []


def test_edge(up: Up, tmp_path: Path) -> None:
    key = up.state / "keys" / "device-signing" / "public-key.pem"
    device = Device(tmp_path / "device", key, deployment="parity-edge", target="till")
    device.fetch(up.url)
    answers = {k: device.predict(v["inputs"]) for k, v in parity.vectors().items()}
    assert parity.disagreements(answers) == []
