"""The gateway as a process: real store, real signals, exit codes."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import httpx
import pytest

from fourways_api import GatewayConfig
from fourways_runtime.errors import Unavailable
from fourways_runtime.io.store import open_reader
from fourways_runtime.workloads.gateway.shell import serve
from tests.kit.drain import drained
from tests.kit.gateway_process import gateway, publish, start

pytestmark = pytest.mark.embedded


def test_answers_from_a_real_store_and_drains_without_failing_a_request(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/store.db"
    publish(uri, "run-1")
    (tmp_path / "uri").write_text(uri)
    tensor = {"name": "customer", "datatype": "INT64", "shape": [2], "data": [2, 0]}
    with gateway(tmp_path) as running:
        answer = httpx.post(f"{running.url}/v2/models/churn/infer", json={"inputs": [tensor]})
        outputs = {output["name"]: output["data"] for output in answer.json()["outputs"]}
        assert outputs == {
            "score": [1.0, 0.0],
            "label": ["l2", "l0"],
            "box": [8, 9, 10, 11, 0, 1, 2, 3],
            "big": [2**64 - 1] * 2,
        }
        publish(uri, "run-2")
        assert httpx.get(f"{running.url}/predictions/churn/1").json()["run"] == "run-2"
        assert httpx.get(f"{running.url}/predictions/churn/7").status_code == 404

        faults = drained(
            running.process,
            running.url,
            lambda client: client.get("/predictions/churn/1"),
            lambda answer: answer.status_code == 200,
            after=100,
        )
        assert faults == []
        assert running.end() == 0
    assert running.log[-1]["message"] == "stopped"
    assert running.log[-1]["all_answered"] is True


def test_a_configuration_that_makes_no_sense() -> None:
    process = start("{}")
    _, log = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "namespace" in json.loads(log.splitlines()[-1])["message"]


async def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = GatewayConfig(namespace="shop", host="127.0.0.1", port=port)
        with pytest.raises(Unavailable, match=f"cannot listen on 127.0.0.1:{port}"):
            await serve(config, open_reader)
