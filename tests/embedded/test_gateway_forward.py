"""A real model server behind a real gateway, both processes: answers, drains, kills."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from fourways_api import GatewayConfig, Paths, Route
from fourways_api.runtime_config import ServerConfig
from fourways_cli.embedded.ports import free_port
from tests.kit.waiting import until
from tools.kit.models import LINEAR, linear

pytestmark = pytest.mark.embedded

INPUTS = [
    {"name": "age", "datatype": "INT32", "shape": [1], "data": [40]},
    {"name": "spend", "datatype": "FP32", "shape": [1], "data": [1.5]},
    {"name": "rate", "datatype": "FP32", "shape": [1], "data": [8.0]},
]
SCORE = 40 * 0.5 - 2 * 1.5 + 0.125 * 8


class Plane:
    """A model server and a gateway in front of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "model.onnx").write_bytes(linear())
        self.model_port, port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.model_url = f"http://127.0.0.1:{self.model_port}"
        self.paths = Paths(
            store_uri_file=str(folder / "store-secret" / "uri"),
            cache_dir=str(folder / "cache"),
            termination_log=str(folder / "words"),
        )
        route = Route(
            deployment="score", mode="realtime", version="1", url=self.model_url, timeout_seconds=5
        )
        config = GatewayConfig(
            namespace="shop", host="127.0.0.1", port=port, routes=(route,), paths=self.paths
        )
        self.start_model()
        self.gateway = self.start("gateway", config.model_dump_json(by_alias=True))
        ready(self.url)

    def start_model(self) -> None:
        config = ServerConfig.model_validate(
            {
                "namespace": "shop",
                "name": "score",
                "model": {
                    "uri": (self.folder / "model.onnx").as_uri(),
                    "format": "onnx",
                    "version": "1",
                },
                "contract": LINEAR,
                "host": "127.0.0.1",
                "port": self.model_port,
                "timeout_seconds": 5,
                "paths": self.paths.to_json(),
            }
        )
        self.model = self.start("serve", config.model_dump_json(by_alias=True))
        ready(self.model_url)

    def start(self, mode: str, config: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{mode}.log").open("ab")
        with log:
            return subprocess.Popen(
                [sys.executable, "-m", "fourways_runtime", mode],
                env={**os.environ, "FOURWAYS_CONFIG": config},
                stderr=log,
            )

    def end(self) -> None:
        for process in (self.gateway, self.model):
            process.kill()
            process.wait()


def ready(url: str) -> None:
    until(
        lambda: httpx.get(f"{url}/v2/health/ready").is_success,
        f"{url} is ready",
        seconds=30,
        ignoring=httpx.HTTPError,
    )


@contextmanager
def running(folder: Path) -> Iterator[Plane]:
    plane = Plane(folder)
    try:
        yield plane
    finally:
        plane.end()


class Load:
    """Clients that ask until they are stopped, or told to go elsewhere."""

    def __init__(self, url: str, clients: int = 4) -> None:
        self.url = url
        self.statuses: list[int] = []
        self.faults: list[str] = []
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self.ask) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def ask(self) -> None:
        with httpx.Client(base_url=self.url, timeout=20) as client:
            while not self.stopped.is_set():
                try:
                    answer = client.post("/v2/models/score/infer", json={"inputs": INPUTS})
                except httpx.HTTPError as error:
                    self.faults.append(repr(error))
                    return
                self.statuses.append(answer.status_code)
                if answer.headers.get("connection") == "close":
                    return

    def reaches(self, status: int, count: int = 20) -> None:
        seen = len(self.statuses)
        until(
            lambda: self.statuses[seen:].count(status) >= count,
            lambda: f"{count} answers {status}: {self.statuses[-5:]}, {self.faults}",
            seconds=30,
        )

    def join(self) -> None:
        for thread in self.threads:
            thread.join(30)


def test_answers_in_json_and_in_binary_tensors(tmp_path: Path) -> None:
    with running(tmp_path) as plane, httpx.Client(base_url=plane.url) as client:
        answer = client.post("/v2/models/score/versions/1/infer", json={"inputs": INPUTS})
        assert answer.json()["outputs"][0]["data"] == [SCORE]
        row = np.array([40, 1.5, 8.0], np.float32)
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 3]}
        body = {
            "inputs": [{**tensor, "parameters": {"binary_data_size": row.nbytes}}],
            "parameters": {"binary_data_output": True},
        }
        head = json.dumps(body).encode()
        answer = client.post(
            "/v2/models/score/infer",
            content=head + row.tobytes(),
            headers={"Inference-Header-Content-Length": str(len(head))},
        )
        size = int(answer.headers["inference-header-content-length"])
        assert np.frombuffer(answer.content[size:], np.float32).tolist() == [SCORE]
        wrong = client.post("/v2/models/score/infer", json={"inputs": INPUTS[:1]})
        assert (wrong.status_code, wrong.json()["field"]) == (400, "spend")
        metadata = client.get("/v2/models/score").json()
        assert metadata["platform"] == "fourways_onnx"
        assert client.get("/v2/models/score/versions/9/ready").status_code == 404


def test_a_model_server_killed_and_drained_under_load(tmp_path: Path) -> None:
    with running(tmp_path) as plane:
        load = Load(plane.url)
        load.reaches(200)
        plane.model.kill()
        plane.model.wait()
        load.reaches(503)
        plane.start_model()
        load.reaches(200)
        load.stopped.set()
        load.join()
        assert load.faults == []
        assert set(load.statuses) <= {200, 503, 504}

        # One that ends in good order says so, and nobody asks it any more: all that fails is
        # what comes while there is none.
        load = Load(plane.url)
        load.reaches(200)
        plane.model.send_signal(signal.SIGTERM)
        load.reaches(503, 1)
        assert plane.model.wait(30) == 0
        load.stopped.set()
        load.join()
        assert load.faults == []
        changes = [status for status, _ in itertools.groupby(load.statuses)]
        assert set(changes) == {200, 503}


def test_a_gateway_drained_under_load_fails_no_request(tmp_path: Path) -> None:
    with running(tmp_path) as plane:
        load = Load(plane.url)
        load.reaches(200, 50)
        plane.gateway.send_signal(signal.SIGTERM)
        load.join()
        assert load.faults == []
        assert set(load.statuses) == {200}
        assert plane.gateway.wait(30) == 0
        assert '"all_answered":true' in (tmp_path / "gateway.log").read_text()
