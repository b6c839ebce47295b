"""`fourways up` with deployments that scale to zero: processes that come with requests and go."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from fourways_cli.embedded.control import ask
from fourways_runtime.callers.api_keys import new_key
from tests.kit.hosts import Up
from tests.kit.waiting import until
from tools.kit.models import LINEAR, linear

pytestmark = pytest.mark.embedded

CALLERS = 60


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    models = tmp_path / "models"
    models.mkdir()
    (models / "m.onnx").write_bytes(linear())
    with Up(tmp_path / "state", volumes={"models": models}) as host:
        yield host


def manifest(folder: Path, name: str = "m", after: str = "1s", **realtime: Any) -> Path:
    digest = hashlib.sha256(linear()).hexdigest()
    document = {
        "apiVersion": "fourways.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {
            "mode": "realtime",
            "model": {"uri": "pvc://models/m.onnx", "version": "1", "digest": f"sha256:{digest}"},
            "contract": LINEAR,
            "realtime": {"minReplicas": 0, "scaleToZeroAfter": after, **realtime},
        },
    }
    file = folder / f"{name}.yaml"
    file.write_text(orjson.dumps(document).decode())  # YAML would read the tensor's name y as true
    return file


def infer(up: Up, name: str = "m", row: int = 1, **headers: str) -> httpx.Response:
    tensors = [
        {"name": "age", "datatype": "INT32", "shape": [1], "data": [row % 100]},
        {"name": "spend", "datatype": "FP32", "shape": [1], "data": [1.5]},
        {"name": "rate", "datatype": "FP32", "shape": [1], "data": [0.25]},
    ]
    return httpx.post(
        f"{up.url}/v2/models/{name}/infer",
        json={"inputs": tensors},
        headers=headers,
        timeout=60,
        trust_env=False,
    )


def status(up: Up, name: str = "m") -> dict[str, Any]:
    deployments = ask(up.state, {"do": "status"})["deployments"]
    found: dict[str, Any] = next(d for d in deployments if d["metadata"]["name"] == name)["status"]
    return found


def ready(up: Up, name: str = "m") -> tuple[str, str]:
    (found,) = [c for c in status(up, name)["conditions"] if c["type"] == "Ready"]
    return found["status"], found["reason"]


def await_ready(up: Up, reason: str, name: str = "m") -> None:
    until(
        lambda: ready(up, name) == ("True", reason),
        lambda: f"{reason}: {status(up, name)}",
        seconds=60,
        ignoring=(Exception,),
    )


def starts(up: Up, name: str = "m") -> int:
    """Count how often the model server was started."""
    log = up.state / "logs" / f"default-{name}-realtime.log"
    return log.read_text().count('"message":"listening"') if log.exists() else 0


def test_a_sleeping_model_starts_once_for_many_callers_and_sleeps_again(
    up: Up, tmp_path: Path
) -> None:
    up.start(manifest(tmp_path))
    await_ready(up, "Asleep")
    assert starts(up) == 1, "it was started once, to prove that it works"
    until(lambda: len(up.children()) == 1, "only the gateway runs")
    with ThreadPoolExecutor(CALLERS) as pool:
        answers = list(pool.map(lambda row: infer(up, row=row), range(CALLERS)))
    assert [a.status_code for a in answers] == [200] * CALLERS
    scores = [a.json()["outputs"][0]["data"][0] for a in answers]
    assert scores == pytest.approx([row * 0.5 - 3.0 + 0.03125 for row in range(CALLERS)])
    assert starts(up) == 2
    assert 0.1 < status(up)["coldStart"]["seconds"] < 20
    await_ready(up, "Asleep")
    until(lambda: len(up.children()) == 1, "only the gateway runs")
    (message,) = [c["message"] for c in status(up)["conditions"] if c["type"] == "Ready"]
    assert "the last one took" in message
    metrics = httpx.get(f"{up.url}/metrics", trust_env=False).text
    assert 'fourways_cold_start_seconds_count{deployment="m"} 1.0' in metrics


def test_it_stays_awake_while_it_is_asked_and_no_request_is_lost(up: Up, tmp_path: Path) -> None:
    """Requests come about as seldom as the model server is ended for want of them."""
    up.start(manifest(tmp_path, after="300ms"))
    await_ready(up, "Asleep")
    for turn in range(12):
        first = infer(up, row=turn)
        assert first.status_code == 200, first.text
        until(
            lambda: infer(up).status_code == 200 and ready(up)[1] in ("Answering", "Asleep"),
            "it answers",
            interval=0.1,
        )
        if turn % 3 == 0:
            await_ready(up, "Asleep")
    assert starts(up) >= 5


def test_a_gateway_with_keys_tells_its_own_host(up: Up, tmp_path: Path) -> None:
    key, digest = new_key("shop")
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "shop").write_bytes(orjson.dumps({"sha256": [digest], "scopes": ["predict:*"]}))
    up.start(manifest(tmp_path), keys=keys)
    await_ready(up, "Asleep")
    assert infer(up).status_code == 401
    assert infer(up, authorization=f"Bearer {key}").status_code == 200
    assert starts(up) == 2


def test_a_model_that_does_not_work_is_known_before_it_is_asked(up: Up, tmp_path: Path) -> None:
    file = manifest(tmp_path)
    digest = hashlib.sha256(linear()).hexdigest()
    file.write_text(file.read_text().replace(digest, "0" * 64))
    up.start(file)
    until(
        lambda: ready(up) == ("False", "DigestMismatch"),
        lambda: str(status(up)),
        seconds=60,
        ignoring=(Exception,),
    )
