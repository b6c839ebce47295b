"""A model that does not return on a device: named, and no program waits for it for ever."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from fourways_agent.state import Store
from fourways_agent.update import update
from fourways_cli.embedded.ports import free_port
from tests.kit.edge_rig import RECORD, Publisher, device, gateway_of
from tests.kit.hanging_model import trap
from tests.kit.waiting import until

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(300)]

ENDLESS = RECORD | {"age": 110, "id": "c-17"}

KINDS = {"age": "INT32", "spend": "FP32", "rate": "FP32"}

SHORT = """
import functools, sys
from fourways_agent import loading
from fourways_runtime.scoring.model.watched import watched
loading.watched = functools.partial(watched, seconds=1.0)
"""

EMBEDDING = """
from fourways_agent import Device
from fourways_runtime.errors import ModelHangs
import json
device = Device(sys.argv[1])
for record in map(json.loads, sys.argv[2:]):
    try:
        print(device.predict(record))
    except ModelHangs as error:
        print("hangs:", error)
sys.stdout.flush()
import os; os._exit(0)
"""

MAIN = """
from fourways_agent.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Return a device that has a model which hangs from an age of 100 on."""
    root = tmp_path_factory.mktemp("hangs")
    publisher = Publisher(root)
    golden = [{"inputs": RECORD | {"age": 30}, "outputs": {"score": 30.0}}]
    publisher.publish(1, raw=trap(100, width=3), golden=golden)
    with gateway_of(publisher) as gateway:
        found, settings = device(root, gateway)
        update(found, settings)
        found.remember(settings)
        yield found


def command(script: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", SHORT + script, *arguments]


def test_a_program_that_embeds_the_device_gets_an_error_and_goes_on(store: Store) -> None:
    records = [json.dumps(it) for it in (RECORD, ENDLESS, RECORD)]
    done = subprocess.run(
        command(EMBEDDING, str(store.folder), *records),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, hangs, last = done.stdout.splitlines()
    assert first == last == "{'score': 30.0}"
    assert hangs.startswith("hangs: id 'c-17': ")
    assert "scoring: 1 row; the model has not returned for 1 s" in hangs
    assert store.read().bad == ()


def test_predict_ends_with_the_reason(store: Store) -> None:
    lines = "".join(json.dumps(it) + "\n" for it in (RECORD, ENDLESS, RECORD))
    done = subprocess.run(
        command(MAIN, "predict", "--state", str(store.folder), "-"),
        input=lines,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 75, done.stderr
    assert [json.loads(it) for it in done.stdout.splitlines()] == [{"score": 30.0}]
    assert "fourways-agent: ModelHangs: " in done.stderr
    assert "the model has not returned" in done.stderr


def test_the_agents_process_ends_with_the_reason(store: Store) -> None:
    port = free_port()
    with subprocess.Popen(
        command(MAIN, "run", "--state", str(store.folder), "--port", str(port)),
        stderr=subprocess.PIPE,
        text=True,
    ) as agent:
        url = f"http://127.0.0.1:{port}"
        until(
            lambda: httpx.get(f"{url}/v2/health/ready").status_code == 200,
            "the agent is ready",
            seconds=60,
            ignoring=httpx.TransportError,
        )
        record = ENDLESS.items()
        inputs = [
            {"name": name, "datatype": KINDS[name], "shape": [1], "data": [value]}
            for name, value in record
            if name in RECORD
        ]
        with pytest.raises(httpx.TransportError):
            httpx.post(f"{url}/v2/models/churn/infer", json={"inputs": inputs}, timeout=60)
        said = agent.stderr.read() if agent.stderr else ""
        assert agent.wait(30) == 75
    assert "ModelHangs" in said
    assert store.read().bad == ()
